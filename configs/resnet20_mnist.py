"""ResNet-20, for images of 32 px, on MNIST's digits, from random weights: 32 px, batch 64, 15 epochs of 5,000 images.

Expected: top1 of 0.982 on val (seed 0), after 13 minutes on one CPU core; `experiments/classifiers/` has the table.

    ylosia data import idx PATH/TO/mnist-subset --name mnist    # the files train-* and val-*
    ylosia train configs/resnet20_mnist.py --workdir runs/resnet20_mnist
"""

from ylosia_jax.data.augment import Augment
from ylosia_jax.data.datasets import Imported
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.systems.classifiers import resnet_cifar
from ylosia_jax.train.loop import Train
from ylosia_jax.train.optim import Optim

CLASSES = tuple("0123456789")


def get_config() -> Experiment:
    network, tasks = resnet_cifar(20, num_classes=len(CLASSES))
    return Experiment(
        network=network,
        tasks=tasks,
        data=Data(
            train=Imported("mnist", split="train"),
            valid=Imported("mnist", split="val"),
            classes=CLASSES,
            image_size=32,
            fill=0,  # as dark as what is around the digits
            batch_size=64,
            max_objects=1,
            cache=0.1,
        ),
        # Digits have one way up and one way round: shift and scale them a little.
        augment=Augment(scale=(0.9, 1.15), translate=0.06),
        optim=Optim(lr=1e-3, warmup_steps=50, ema_decay=0.99, ema_warmup=50),
        train=Train(epochs=15, evaluate_every=5, best_metric="classification/top1"),
    )
