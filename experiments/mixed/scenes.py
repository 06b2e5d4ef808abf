"""The scenes alone, as often and on the same canvas as `configs/ylosia_n_mixed.py` sees them, and nothing else."""

import dataclasses
from pathlib import Path

from ylosia_jax import config
from ylosia_jax.data.scenes import CLASSES
from ylosia_jax.data.scenes_grounds import STUFF
from ylosia_jax.data.skeletons import COCO_PERSON
from ylosia_jax.experiment import Experiment
from ylosia_jax.systems.ylosia import ylosia


def get_config() -> Experiment:
    mixed = config.load(Path(__file__).parents[2] / "configs" / "ylosia_n_mixed.py")
    network, tasks = ylosia(
        "n", num_classes=len(CLASSES), masks=True, skeleton=COCO_PERSON, semantic_classes=len(CLASSES + STUFF)
    )
    data = dataclasses.replace(
        mixed.data,
        train=mixed.data.train.parts[1],
        valid=mixed.data.valid.parts[1],
        classes=CLASSES,
        skeleton=COCO_PERSON,
    )
    # Half of the mixed run's images.
    train = dataclasses.replace(mixed.train, steps=1000, evaluate_every=100)
    return dataclasses.replace(mixed, network=network, tasks=tasks, data=data, train=train)
