"""ResNet-20 on CIFAR-10, by the recipe of its paper (arXiv:1512.03385, section 4.2): batch 128, 182 epochs.

Not trained yet: the weights that are published for it have top1 of 0.918 on the test split. The set's pictures lie in
folders by class, train/airplane/ to test/truck/.

    ylosia data import folders PATH/TO/cifar10 --name cifar10
    ylosia weights import resnet20.th --config configs/resnet20_cifar10.py --workdir runs/resnet20_published
    ylosia train configs/resnet20_cifar10.py --workdir runs/resnet20_cifar10
"""

from ylosia_jax.data.augment import Augment
from ylosia_jax.data.datasets import Imported
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.systems.classifiers import resnet_cifar
from ylosia_jax.train.loop import Train
from ylosia_jax.train.optim import Optim

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def get_config() -> Experiment:
    network, tasks = resnet_cifar(20, num_classes=len(CLASSES))
    return Experiment(
        network=network,
        tasks=tasks,
        data=Data(
            train=Imported("cifar10", split="train"),
            valid=Imported("cifar10", split="test"),
            classes=CLASSES,
            image_size=32,
            batch_size=128,
            max_objects=1,
            cache=0.5,
        ),
        # Four pixels either way, as a crop of a picture with a rim of four.
        augment=Augment(flip=0.5, translate=0.125),
        optim=Optim(
            optimizer="plain_sgd",
            lr=0.1,
            weight_decay=1e-4,
            warmup_steps=400,
            schedule="step",
            milestones=(0.5, 0.75),
            clip=0.0,
        ),
        train=Train(epochs=182, evaluate_every=20, best_metric="classification/top1"),
    )
