"""AlexNet on MNIST's digits, from random weights: 64 px, batch 64, 20 epochs of 5,000 images.

Expected: top1 of 0.980 on val (seed 0), after 7 minutes on one CPU core; `experiments/classifiers/` has the table.

    ylosia data import idx PATH/TO/mnist-subset --name mnist    # the files train-* and val-*
    ylosia train configs/alexnet_mnist.py --workdir runs/alexnet_mnist
"""

from ylosia_jax.data.augment import Augment
from ylosia_jax.data.datasets import Imported
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.systems.classifiers import alexnet
from ylosia_jax.train.loop import Train
from ylosia_jax.train.optim import Optim

CLASSES = tuple("0123456789")


def get_config() -> Experiment:
    # Of 64 pixels the body leaves a single cell: a smaller grid, and smaller matrices, read it as well.
    network, tasks = alexnet(num_classes=len(CLASSES), pool=1, hidden=1024)
    return Experiment(
        network=network,
        tasks=tasks,
        data=Data(
            train=Imported("mnist", split="train"),
            valid=Imported("mnist", split="val"),
            classes=CLASSES,
            image_size=64,
            batch_size=64,
            fill=0,  # as dark as what is around the digits
            max_objects=1,
            cache=0.1,
        ),
        # Digits have one way up and one way round: shift and scale them a little.
        augment=Augment(scale=(0.9, 1.15), translate=0.06),
        optim=Optim(lr=5e-4, warmup_steps=50, ema_decay=0.99, ema_warmup=50),
        train=Train(epochs=20, evaluate_every=5, best_metric="classification/top1"),
    )
