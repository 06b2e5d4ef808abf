"""Whole runs from the command line: killed and resumed, on several devices, on several hosts."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest

import ylosia_jax as yl
from ylosia_jax import config
from ylosia_jax.cli import main
from ylosia_jax.data.scenes import Scenes
from ylosia_jax.runs import restore_average
from ylosia_jax.train.log import read_rows
from ylosia_jax.train.sharding import make_mesh
from ylosia_jax.types import UserError

TINY = Path(__file__).parents[1] / "tiny.py"

pytestmark = pytest.mark.slow


def start(workdir: Path, *args: str, devices: int = 1, **env: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "ylosia_jax", "train", str(TINY), "--workdir", str(workdir), *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
            **env,
        },
    )


def finish(*processes: "subprocess.Popen[str]") -> list[str]:
    output = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), output
    return [error for _, error in output]


def losses(workdir: Path) -> np.ndarray:
    return np.array([float(row["loss"]) for row in read_rows(workdir / "metrics.csv")])


def weights(workdir: Path) -> list[np.ndarray]:
    state = restore_average(config.load(workdir), workdir, make_mesh(), "last")
    return [np.asarray(x) for x in jax.tree.leaves(state)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 steps on one device that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("whole")
    finish(start(workdir))
    return workdir


def test_it_compiles_once_and_leaves_what_it_promises(whole: Path) -> None:
    rows = read_rows(whole / "metrics.csv")
    assert [int(row["step"]) for row in rows] == list(range(1, 21))
    assert {row["compiles"] for row in rows} == {"1"}
    for name in ("config.json", "config.txt", "metrics.json", "report.html", "versions.json"):
        assert (whole / name).is_file()


def test_a_finished_run_says_so(whole: Path) -> None:
    before = (whole / "metrics.csv").read_bytes()
    assert "finished" in finish(start(whole))[0]
    assert (whole / "metrics.csv").read_bytes() == before


def test_another_config_does_not_enter_the_folder(whole: Path) -> None:
    process = start(whole, "--optim.lr", "0.5")
    _, error = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "optim.lr: 0.0005 there, 0.5 here" in error
    assert "Traceback" not in error


def test_it_can_be_evaluated_anew(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    assert main(["evaluate", str(whole), "--checkpoint", "last", "--out", str(out)]) == 0
    assert json.loads(out.read_text()) == json.loads((whole / "metrics.json").read_text())
    assert main(["evaluate", str(whole), "--split", "test"]) == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--checkpoint", "3"], "name best, last or one of the steps 20"),
        (["--split", "tset"], "tset"),
        (["--dataset", "no_such_set"], "no_such_set"),
    ],
)
def test_what_is_not_there_to_evaluate_is_named(
    whole: Path, args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(whole), *args]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with two drawn scenes of other sizes than the network's, and a damaged file."""
    folder = tmp_path / "in"
    folder.mkdir()
    for i, size in enumerate([(96, 160), (200, 120)]):
        image = Scenes("test", size=2, image_size=size)[i].image
        cv2.imwrite(str(folder / f"{i}.jpg"), image[..., ::-1])
    (folder / "cut.jpg").write_bytes((folder / "0.jpg").read_bytes()[:500])
    return folder


def test_predict_draws_and_lists(
    whole: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["predict", str(whole), str(pictures), "--out", str(out)]) == 2
    assert "cut.jpg" in capsys.readouterr().err
    assert main(["predict", str(whole), str(pictures), "--out", str(out), "--skip-bad"]) == 1
    assert "1 skipped" in capsys.readouterr().err
    assert {path.name for path in out.iterdir()} == {"0.jpg", "1.jpg", "predictions.json"}
    entries = json.loads((out / "predictions.json").read_text())
    assert {entry["image_id"] for entry in entries} <= {"0.jpg", "1.jpg"}
    assert all({"category_id", "bbox", "score"} <= entry.keys() for entry in entries)


def test_predictions_never_replace_their_own_images(
    whole: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (pictures / "0.jpg").read_bytes()
    assert main(["predict", str(whole), str(pictures / "0.jpg"), "--out", str(pictures)]) == 2
    assert "give another --out" in capsys.readouterr().err
    assert (pictures / "0.jpg").read_bytes() == before


def test_load_from_python(whole: Path, pictures: Path) -> None:
    model = yl.load(whole)
    one, two = model([pictures / "0.jpg", pictures / "1.jpg"])
    assert one.image.shape == (96, 160, 3)
    assert one.boxes.shape == (len(one), 4)
    assert len(one.names) == len(one.scores) == len(one.labels)
    assert (np.diff(one.scores) <= 0).all()
    assert (two.boxes >= 0).all()
    assert (two.boxes <= [120, 200, 120, 200]).all()
    again = model(one.image)
    np.testing.assert_array_equal(again.boxes, one.boxes)
    with pytest.raises(UserError, match="uint8 RGB"):
        model(one.image.astype(np.float32))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143)])
def test_stopped_and_resumed_ends_in_the_same_place(number: int, status: int, whole: Path, tmp_path: Path) -> None:
    process = start(tmp_path)
    deadline = time.monotonic() + 240
    while len(losses(tmp_path)) < 9 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(number)
    _, error = process.communicate()
    assert process.returncode == status, f"the run ended before it could be stopped: {error}"
    assert ("the same command goes on" in error) == (status == 143)

    assert "resuming" in finish(start(tmp_path))[0]
    np.testing.assert_array_equal(losses(tmp_path), losses(whole))
    for ours, theirs in zip(weights(tmp_path), weights(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_eight_devices_give_the_same_losses(whole: Path, tmp_path: Path) -> None:
    finish(start(tmp_path, devices=8))
    np.testing.assert_allclose(losses(tmp_path), losses(whole), rtol=1e-5)


def test_two_hosts_with_four_devices_give_the_same_losses(whole: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    shared = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    finish(*(start(tmp_path, "--distributed", devices=4, JAX_PROCESS_ID=str(i), **shared) for i in range(2)))
    np.testing.assert_allclose(losses(tmp_path), losses(whole), rtol=1e-5)
    assert (tmp_path / "metrics.json").read_text() == (whole / "metrics.json").read_text()
