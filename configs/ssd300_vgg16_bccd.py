"""SSD300 with VGG-16 on BCCD, blood cells in microscope images, from random weights: 300 px, 40 epochs.

Not trained yet: what it reaches is not known.

    ylosia data import voc PATH/TO/bccd --name bccd
    ylosia train configs/ssd300_vgg16_bccd.py --workdir runs/ssd300_bccd
"""

from ylosia_jax.data.augment import Augment
from ylosia_jax.data.datasets import Imported
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.systems.ssd import ssd300
from ylosia_jax.train.loop import Train
from ylosia_jax.train.optim import Optim

CLASSES = ("Platelets", "RBC", "WBC")


def get_config() -> Experiment:
    network, tasks = ssd300(len(CLASSES))
    return Experiment(
        network=network,
        tasks=tasks,
        data=Data(
            train=Imported("bccd", split="train"),
            valid=Imported("bccd", split="val"),
            classes=CLASSES,
            image_size=300,
            resize="bilinear",
            stretch=True,
            batch_size=16,
            max_objects=64,
        ),
        # Cells have no up, no left, and one size: mirror both ways, scale little.
        augment=Augment(
            flip=0.5, flip_vertical=0.5, scale=(0.8, 1.25), translate=0.1, hue=0.02, saturation=0.3, brightness=0.2
        ),
        optim=Optim(lr=2e-4, warmup_steps=50, ema_decay=0.99, ema_warmup=50),
        train=Train(epochs=40, evaluate_every=10),
    )
