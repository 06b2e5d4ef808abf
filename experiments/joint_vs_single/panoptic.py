"""The twin for panoptic maps, which need boxes, masks and semantic maps: `configs/ylosia_n_scenes.py` without poses."""

import dataclasses
from pathlib import Path

from ylosia_jax import config
from ylosia_jax.experiment import Experiment
from ylosia_jax.systems.ylosia import ylosia


def get_config() -> Experiment:
    joint = config.load(Path(__file__).parents[2] / "configs" / "ylosia_n_scenes.py")
    things, classes = len(joint.data.classes), len(joint.data.classes + joint.data.stuff)
    network, tasks = ylosia("n", num_classes=things, masks=True, semantic_classes=classes, pull={})
    return dataclasses.replace(joint, network=network, tasks=tasks)
