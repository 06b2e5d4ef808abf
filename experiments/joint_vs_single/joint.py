"""All tasks in one network: `configs/ylosia_n_scenes.py` with the usual limits of gradients and weights of losses."""

import dataclasses
from pathlib import Path

from ylosia_jax import config
from ylosia_jax.experiment import Experiment
from ylosia_jax.systems.ylosia import ylosia


def get_config() -> Experiment:
    demo = config.load(Path(__file__).parents[2] / "configs" / "ylosia_n_scenes.py")
    things, classes = len(demo.data.classes), len(demo.data.classes + demo.data.stuff)
    network, tasks = ylosia("n", num_classes=things, masks=True, skeleton=demo.data.skeleton, semantic_classes=classes)
    return dataclasses.replace(demo, network=network, tasks=tasks)
