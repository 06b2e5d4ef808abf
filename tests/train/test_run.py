"""Whole runs from the command line: killed and resumed, on several devices, on several hosts."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from ylosia_jax import config
from ylosia_jax.experiment import restore_average
from ylosia_jax.train.log import read_rows
from ylosia_jax.train.sharding import make_mesh

TINY = Path(__file__).parents[1] / "tiny.py"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled programs that the runs of this file share, which saves most of their time."""
    return tmp_path_factory.mktemp("cache")


def start(workdir: Path, cache: Path, *args: str, devices: int = 1, **env: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "ylosia_jax", "train", str(TINY), "--workdir", str(workdir), *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1",
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
def whole(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A run of 20 steps on one device that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("whole")
    finish(start(workdir, cache))
    return workdir


def test_it_compiles_once_and_learns(whole: Path) -> None:
    rows = read_rows(whole / "metrics.csv")
    assert [int(row["step"]) for row in rows] == list(range(1, 21))
    assert {row["compiles"] for row in rows} == {"1"}
    assert losses(whole)[-5:].mean() < losses(whole)[:5].mean()
    for name in ("config.json", "config.txt", "metrics.json", "report.html", "versions.json"):
        assert (whole / name).is_file()


def test_a_finished_run_says_so(whole: Path, cache: Path) -> None:
    before = (whole / "metrics.csv").read_bytes()
    assert "finished" in finish(start(whole, cache))[0]
    assert (whole / "metrics.csv").read_bytes() == before


def test_another_config_does_not_enter_the_folder(whole: Path, cache: Path) -> None:
    process = start(whole, cache, "--optim.lr", "0.5")
    _, error = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "optim.lr: 0.002 there, 0.5 here" in error
    assert "Traceback" not in error


def test_killed_and_resumed_ends_in_the_same_place(whole: Path, tmp_path: Path, cache: Path) -> None:
    process = start(tmp_path, cache)
    deadline = time.monotonic() + 240
    while len(losses(tmp_path)) < 9 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the run ended before it could be killed"

    assert "resuming" in finish(start(tmp_path, cache))[0]
    np.testing.assert_array_equal(losses(tmp_path), losses(whole))
    for ours, theirs in zip(weights(tmp_path), weights(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_eight_devices_give_the_same_losses(whole: Path, tmp_path: Path, cache: Path) -> None:
    finish(start(tmp_path, cache, devices=8))
    np.testing.assert_allclose(losses(tmp_path), losses(whole), rtol=1e-5)


def test_two_hosts_with_four_devices_give_the_same_losses(whole: Path, tmp_path: Path, cache: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    shared = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    finish(*(start(tmp_path, cache, "--distributed", devices=4, JAX_PROCESS_ID=str(i), **shared) for i in range(2)))
    np.testing.assert_allclose(losses(tmp_path), losses(whole), rtol=1e-5)
    assert (tmp_path / "metrics.json").read_text() == (whole / "metrics.json").read_text()
