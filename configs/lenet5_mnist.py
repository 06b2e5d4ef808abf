"""LeNet-5, in today's form, on MNIST's digits, from random weights: 32 px, batch 64, 120 epochs of 5,000 images.

Expected: top1 of 0.985 on val (two seeds), after 8 minutes on one CPU core;
`experiments/classifiers/` has the table.

    ylosia data import idx PATH/TO/mnist-subset --name mnist    # the files train-* and val-*
    ylosia train configs/lenet5_mnist.py --workdir runs/lenet5_mnist
"""

from ylosia_jax.data.augment import Augment
from ylosia_jax.data.datasets import Imported
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.systems.lenet import lenet5
from ylosia_jax.train.loop import Train
from ylosia_jax.train.optim import Optim

CLASSES = tuple("0123456789")


def get_config() -> Experiment:
    network, tasks = lenet5()
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
        # Digits have one way up and one way round: shift, scale, turn and slant them as hands do.
        augment=Augment(scale=(0.8, 1.2), translate=0.1, rotate=10.0, shear=8.0),
        optim=Optim(lr=4e-3, warmup_steps=50, ema_decay=0.99, ema_warmup=50),
        train=Train(epochs=120, evaluate_every=10, best_metric="classification/top1"),
    )
