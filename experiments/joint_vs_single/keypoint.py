"""The single-task twin for poses, which need boxes: `configs/ylosia_n_scenes.py` with all else left out."""

import dataclasses
from pathlib import Path

from ylosia_jax import config
from ylosia_jax.experiment import Experiment
from ylosia_jax.systems.ylosia import ylosia


def get_config() -> Experiment:
    demo = config.load(Path(__file__).parents[2] / "configs" / "ylosia_n_scenes.py")
    things = len(demo.data.classes)
    network, tasks = ylosia("n", num_classes=things, skeleton=demo.data.skeleton, gradient_limits={})
    return dataclasses.replace(demo, network=network, tasks=tasks)
