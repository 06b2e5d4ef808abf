"""A run on two canvases."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import ylosia_jax as yl
from ylosia_jax import config
from ylosia_jax.data.datasets import Mixture
from ylosia_jax.data.scenes import Scenes
from ylosia_jax.experiment import Experiment
from ylosia_jax.runs import train
from ylosia_jax.train.log import read_rows

TINY = Path(__file__).parents[1] / "tiny.py"


def both(split, count):
    return Mixture((Scenes(split, size=count, image_size=(64, 96)), Scenes(split, size=count, image_size=(96, 64))))


def experiment_in(workdir: Path) -> Experiment:
    tiny = config.load(TINY)
    data = dataclasses.replace(
        tiny.data, train=both("train", 12), valid=both("validation", 3), image_size=(64, 96), aspect_grouping=True
    )
    return dataclasses.replace(tiny, data=data, train=dataclasses.replace(tiny.train, steps=6), workdir=str(workdir))


@pytest.mark.slow
def test_each_canvas_is_compiled_once(tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    seen: list[tuple[int, ...]] = []
    result = train(experiment_in(workdir), lambda index, example, answer: seen.append(example.image.shape[:2]))
    assert "AP" in result["box"]
    # Batches of the two take turns.
    assert [row["compiles"] for row in read_rows(workdir / "metrics.csv")] == ["1", "2", "2", "2", "2", "2"]
    assert seen == [(64, 96)] * 3 + [(96, 64)] * 3
    model = yl.load(workdir)
    lying, upright = (np.full((*size, 3), 128, np.uint8) for size in ((480, 640), (640, 480)))
    assert [found.image.shape[:2] for found in model([lying, upright, lying])] == [(480, 640), (640, 480), (480, 640)]
    assert model.apply._cache_size() == 2  # type: ignore[attr-defined]


def test_the_second_canvas_follows_the_first(tmp_path: Path) -> None:
    experiment = experiment_in(tmp_path)
    assert experiment.canvases == ((64, 96), (96, 64))
    for size in (64, (64, 64)):
        assert dataclasses.replace(experiment.data, image_size=size).aspect_grouping
        square = dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, image_size=size))
        assert square.canvases == ((64, 64),)
