"""All tasks: `configs/ylosia_n_scenes.py` with no head pulling harder than is good for all."""

import dataclasses
from pathlib import Path

from ylosia_jax import config
from ylosia_jax.experiment import Experiment
from ylosia_jax.systems.ylosia import PULL


def get_config() -> Experiment:
    joint = config.load(Path(__file__).parents[2] / "configs" / "ylosia_n_scenes.py")
    return dataclasses.replace(joint, network=joint.network.clone(pull=PULL))
