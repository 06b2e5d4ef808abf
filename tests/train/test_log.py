from pathlib import Path

import pytest

from ylosia_jax.train.log import Log, read_rows

ROW = {
    "epoch": 0.5,
    "loss": 2.0,
    "loss/box": 2.0,
    "lr": 0.1,
    "images_per_second": 10.0,
    "host_wait": 0.0,
    "compiles": 1,
}


def write(folder: Path, start: int, steps: range) -> None:
    with Log(folder, start, steps.stop) as log:
        for step in steps:
            log.write(step, {**ROW, "loss": float(step)})


def test_columns_stand_in_the_promised_order(tmp_path: Path) -> None:
    write(tmp_path, 0, range(1, 3))
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0]
    assert header == "step,epoch,loss,loss/box,lr,images_per_second,host_wait,compiles"


def test_a_resumed_run_writes_the_rows_after_its_checkpoint_again(tmp_path: Path) -> None:
    write(tmp_path, 0, range(1, 8))
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("8,0.5,")  # killed while it wrote
    write(tmp_path, 5, range(6, 10))
    assert [row["step"] for row in read_rows(tmp_path / "metrics.csv")] == [str(step) for step in range(1, 10)]
    assert [float(row["loss"]) for row in read_rows(tmp_path / "metrics.csv")] == [float(s) for s in range(1, 10)]


def test_the_other_hosts_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Log(tmp_path, 0, 10, active=False) as log:
        log.write(1, ROW)
        log.say("nothing")
        log.scores(1, {"box/AP": 0.5})
    assert not (tmp_path / "metrics.csv").exists()
    assert capsys.readouterr().err == ""
