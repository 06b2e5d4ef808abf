"""ResNet-56 on CIFAR-10: `resnet20_cifar10.py` with three times as many blocks (arXiv:1512.03385, section 4.2).

Not trained yet: the weights that are published for it have top1 of 0.936 on the test split.

    ylosia data import folders PATH/TO/cifar10 --name cifar10
    ylosia weights import resnet56.th --config configs/resnet56_cifar10.py --workdir runs/resnet56_published
    ylosia train configs/resnet56_cifar10.py --workdir runs/resnet56_cifar10
"""

import dataclasses
from pathlib import Path

from ylosia_jax import config
from ylosia_jax.experiment import Experiment
from ylosia_jax.systems.classifiers import resnet_cifar


def get_config() -> Experiment:
    experiment = config.load(Path(__file__).with_name("resnet20_cifar10.py"))
    network, _ = resnet_cifar(56, num_classes=len(experiment.data.classes))
    return dataclasses.replace(experiment, network=network)
