"""configs/mask_rcnn_resnet50_fpn_nuclei.py with ResNet-18, whose steps two cores can afford."""

import dataclasses
from pathlib import Path

from ylosia_jax import config
from ylosia_jax.experiment import Experiment
from ylosia_jax.systems.rcnn import mask_rcnn

CONFIG = Path(__file__).parents[2] / "configs" / "mask_rcnn_resnet50_fpn_nuclei.py"


def get_config() -> Experiment:
    experiment = config.load(CONFIG)
    network, _ = mask_rcnn(1, depth=18)
    return dataclasses.replace(
        experiment, network=network, train=dataclasses.replace(experiment.train, epochs=24, evaluate_every=24)
    )
