import json
from pathlib import Path

import pytest

from ylosia_jax.cli import main

COMMANDS = ("train", "evaluate", "predict", "data", "weights", "show", "diff", "plan")
BCCD = "configs/ylosia_n_bccd.py"
SCENES = "configs/ylosia_n_scenes.py"


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])


@pytest.mark.parametrize(
    "command", [[], *[[name] for name in COMMANDS], ["data", "import"], ["data", "check"], ["weights", "import"]]
)
def test_help_is_there(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "usage: ylosia" in printed
    if not command:
        assert all(name in printed for name in COMMANDS)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["trian"], "did you mean train?"),
        (["train", BCCD], "--workdir"),
        (["train", "configs/ylosia_n_bcd.py", "--workdir", "x"], "did you mean configs/ylosia_n_bccd.py?"),
        (["train", BCCD, "--workdir", "x", "--optim.lrr", "1"], "did you mean --optim.lr?"),
        (["train", BCCD, "--workdir", "x", "--optim.lr", "fast"], "--optim.lr: expected float, got 'fast'"),
        (["train", BCCD, "--workdir", "x", "--data.image_size", "300"], "give multiples of 32, such as 288"),
        (
            ["train", BCCD, "--workdir", "x", "--train.best_metric", "mask/AP"],
            "but the tasks that answer are box: name a score",
        ),
        (["train", SCENES, "--workdir", "x", "--data.max_objects", "300"], "give at most 254, the masks"),
        (
            ["train", SCENES, "--workdir", "x", "--network.neck.fine", "0"],
            "the head 'mask' asks for the level 'p2', it is given p3, p4, p5",
        ),
        (["train", BCCD, "--workdir", "x", "--augment.mosaic", "7"], "mosaic is 7.0: give a probability"),
        (["train", BCCD, "--workdir", "x", "--augment.copy_paste", "0.5"], "but no task needs masks: set it to 0"),
        (["train", BCCD, "--workdir", "x", "--train.precision", "fp8"], "'bfloat16'"),
        (["evaluate", "nothing-here"], "nothing-here"),
        (["evaluate", "x", "--out", "none/scores.json"], "none/scores.json cannot be written"),
        (["data", "check", "voc", "x", "--json", "tests"], "tests cannot be written"),
        (["data", "import", "voc", "x", "--name", "y", "--void", "255"], "--void says nothing for the format voc"),
        (
            ["train", SCENES, "--workdir", "x", "--tasks.panoptic.things", "3"],
            "tasks.panoptic.things is 3, but data.cl",
        ),
        (
            ["train", SCENES, "--workdir", "x", "--tasks.semantic.classes", "7"],
            "tasks.semantic.classes is 7, but data.",
        ),
        (
            ["train", SCENES, "--workdir", "x", "--tasks.box.num_classes", "4"],
            "data.classes has 6 names: make them agree",
        ),
        (["weights", "import", "none.pth", "--config", BCCD, "--workdir", "x"], "none.pth: there is no such file"),
        (["weights", "import", "none.pth", "--config", BCCD, "--workdir", "x", "--onli", "a"], "--onli is no field"),
        (["weights", "import", "none.pth", "--config", BCCD], "--workdir"),
        (["weights", "show", "tests"], "tests: it is a folder"),
        (["weights", "show", "x", "--al"], "unknown argument '--al'"),
        (["evaluate", "x", "--chekpoint", "3"], "did you mean --checkpoint?"),
        (["predict", "x", "tests", "--out", "y"], "no image in it"),
        (["predict", "x", "none.jpg", "--out", "y"], "none.jpg: no such file or folder"),
        (["data", "import", "vok", "x", "--name", "y"], "'voc'"),
        (["data", "import", "coco", "x.json", "--name", "y"], "--split"),
        (["data", "import", "voc", "x", "--name", "y", "--split", "a"], "--split says nothing for the format voc"),
        (["data", "import", "voc", "no-such-folder", "--name", "y"], "no-such-folder"),
        (["show", "ylosia_n_bcd"], "did you mean"),
        (["plan", BCCD, "--topology", "v9:2x2"], "v5e"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_status_2(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("ylosia: ")
    assert error.count("\n") == 1


def test_a_missing_data_set_names_the_import_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YLOSIA_DATA_DIR", str(tmp_path))
    assert main(["train", BCCD, "--workdir", str(tmp_path / "run")]) == 2
    assert "ylosia data import FORMAT SOURCE --name bccd" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_show_and_diff(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", BCCD]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "data.image_size: 320" in lines
    assert main(["diff", BCCD, "configs/ylosia_n_coco.py"]) == 0
    assert "data.image_size: 320 -> 640" in capsys.readouterr().out.splitlines()
    assert main(["diff", BCCD, BCCD]) == 0
    assert capsys.readouterr().out == ""


def test_check_and_import_of_real_cells(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, findings = str(shared / "data" / "bccd"), tmp_path / "findings.json"
    assert main(["data", "check", "voc", source, "--json", str(findings)]) == 0
    assert len(json.loads(findings.read_text())["dropped"]) == 2
    assert main(["data", "import", "voc", source, "--name", "bccd", "--out", str(tmp_path)]) == 0
    assert "train: 205 images" in capsys.readouterr().out
    assert main(["data", "import", "voc", source, "--name", "bccd", "--out", str(tmp_path)]) == 2
