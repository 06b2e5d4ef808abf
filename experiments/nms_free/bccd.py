"""`configs/ylosia_n_bccd.py` with scores that need no suppression."""

import dataclasses
from pathlib import Path

from ylosia_jax import config
from ylosia_jax.experiment import Experiment
from ylosia_jax.systems.ylosia import ylosia


def get_config() -> Experiment:
    base = config.load(Path(__file__).parents[2] / "configs" / "ylosia_n_bccd.py")
    network, tasks = ylosia("n", num_classes=len(base.data.classes), nms_free=True)
    return dataclasses.replace(base, network=network, tasks=tasks)
