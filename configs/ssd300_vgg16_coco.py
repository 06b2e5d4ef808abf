r"""SSD300 with VGG-16 on COCO 2017, about as torchvision trains it: batch 32, 120 epochs, bf16.

Not trained yet: torchvision's reaches box AP 25.1 on val, from a VGG trained on ImageNet and from crops that are
chosen by their overlap with objects, which are not here: pictures are enlarged, shrunk and shifted. The VGG is
torchvision's `VGG16_Weights.IMAGENET1K_FEATURES`, which saw pixels as this network does.

    ylosia data import coco annotations/instances_train2017.json --images train2017 --name coco --split train
    ylosia data import coco annotations/instances_val2017.json --images val2017 --name coco --split val
    ylosia weights import vgg16_features.pth --config configs/ssd300_vgg16_coco.py --workdir runs/ssd300 \
        --only 'backbone/conv[1-5]_'
    ylosia train configs/ssd300_vgg16_coco.py --workdir runs/ssd300
"""

from ylosia_jax.data.augment import Augment
from ylosia_jax.data.coco_classes import THINGS
from ylosia_jax.data.datasets import Imported
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.systems.ssd import ssd300
from ylosia_jax.train.loop import Train
from ylosia_jax.train.optim import Optim


def get_config() -> Experiment:
    network, tasks = ssd300(len(THINGS))
    return Experiment(
        network=network,
        tasks=tasks,
        data=Data(
            train=Imported("coco", split="train"),
            valid=Imported("coco", split="val"),
            classes=THINGS,
            image_size=300,
            resize="bilinear",
            stretch=True,
            batch_size=32,
            max_objects=100,
            threads=16,
        ),
        augment=Augment(flip=0.5, scale=(0.3, 2.0), translate=0.3, hue=0.05, saturation=0.5, brightness=0.125),
        optim=Optim(
            optimizer="plain_sgd",
            lr=0.002,
            weight_decay=5e-4,
            warmup_steps=1000,
            schedule="step",
            milestones=(80 / 120, 110 / 120),
            clip=0.0,
        ),
        train=Train(epochs=120, evaluate_every=10, precision="bfloat16", checkpoint_every=2000),
    )
