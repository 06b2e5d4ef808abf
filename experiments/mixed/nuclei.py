"""Nuclei alone, as often and on the same canvas as `configs/ylosia_n_mixed.py` sees them, and nothing else."""

import dataclasses
from pathlib import Path

from ylosia_jax import config
from ylosia_jax.data.datasets import Imported
from ylosia_jax.experiment import Experiment
from ylosia_jax.systems.ylosia import ylosia


def get_config() -> Experiment:
    mixed = config.load(Path(__file__).parents[2] / "configs" / "ylosia_n_mixed.py")
    network, tasks = ylosia("n", num_classes=1, masks=True)
    data = dataclasses.replace(
        mixed.data,
        train=Imported("nuclei", "train"),
        valid=Imported("nuclei", "val"),
        classes=("nucleus",),
        stuff=(),
        skeleton=None,
    )
    # A quarter of the mixed run's images.
    train = dataclasses.replace(mixed.train, steps=500, evaluate_every=100)
    return dataclasses.replace(mixed, network=network, tasks=tasks, data=data, train=train)
