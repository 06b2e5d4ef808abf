"""ResNet-101 on ImageNet: `resnet50_imagenet.py` with 101 layers (arXiv:1512.03385, section 3.4).

Not trained yet: torchvision's weights of this recipe have top1 of 0.774 on val, of other squares, as told there.

    ylosia data import folders PATH/TO/imagenet --name imagenet
    ylosia train configs/resnet101_imagenet.py --workdir runs/resnet101_imagenet
"""

import dataclasses
from pathlib import Path

from ylosia_jax import config
from ylosia_jax.experiment import Experiment
from ylosia_jax.systems.classifiers import resnet


def get_config() -> Experiment:
    experiment = config.load(Path(__file__).with_name("resnet50_imagenet.py"))
    network, _ = resnet(101, num_classes=len(experiment.data.classes))
    return dataclasses.replace(experiment, network=network)
