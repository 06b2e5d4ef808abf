"""VGG-16 without norms on ImageNet: `resnet50_imagenet.py` at a tenth of its rate, 74 epochs (arXiv:1409.1556, 3.1).

Not trained yet: torchvision's weights have top1 of 0.716 on val, of other squares, as told there. The paper's rate
falls when the score on val no longer grows; here at thirds of the run.

    ylosia data import folders PATH/TO/imagenet --name imagenet
    ylosia train configs/vgg16_imagenet.py --workdir runs/vgg16_imagenet
"""

import dataclasses
from pathlib import Path

from ylosia_jax import config
from ylosia_jax.experiment import Experiment
from ylosia_jax.systems.classifiers import vgg16


def get_config() -> Experiment:
    experiment = config.load(Path(__file__).with_name("resnet50_imagenet.py"))
    network, tasks = vgg16(num_classes=len(experiment.data.classes))
    return dataclasses.replace(
        experiment,
        network=network,
        tasks=tasks,
        optim=dataclasses.replace(experiment.optim, lr=0.01, weight_decay=5e-4),
        train=dataclasses.replace(experiment.train, epochs=74),
    )
