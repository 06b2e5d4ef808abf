"""The single-task twin for semantic maps: `configs/ylosia_n_scenes.py` with all else left out."""

import dataclasses
from pathlib import Path

from ylosia_jax import config
from ylosia_jax.experiment import Experiment
from ylosia_jax.systems.ylosia import ylosia


def get_config() -> Experiment:
    demo = config.load(Path(__file__).parents[2] / "configs" / "ylosia_n_scenes.py")
    classes = len(demo.data.classes + demo.data.stuff)
    network, tasks = ylosia("n", num_classes=0, semantic_classes=classes)
    train = dataclasses.replace(demo.train, best_metric="semantic/mIoU")
    return dataclasses.replace(demo, network=network, tasks=tasks, train=train)
