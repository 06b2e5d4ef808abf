"""The twin for panoptic maps, which need boxes, masks and semantic maps: `configs/ylosia_n_scenes.py` without poses."""

import dataclasses
from pathlib import Path

from ylosia_jax import config
from ylosia_jax.experiment import Experiment
from ylosia_jax.systems.ylosia import ylosia


def get_config() -> Experiment:
    demo = config.load(Path(__file__).parents[2] / "configs" / "ylosia_n_scenes.py")
    things, classes = len(demo.data.classes), len(demo.data.classes + demo.data.stuff)
    network, tasks = ylosia("n", num_classes=things, masks=True, semantic_classes=classes, gradient_limits={})
    return dataclasses.replace(demo, network=network, tasks=tasks)
