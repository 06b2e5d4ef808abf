"""Ylosia n on COCO 2017, boxes, from random weights: 640 px, batch 128, 300 epochs, bf16.

Not trained yet: the published network of these widths reaches box AP 37.3 on val. The step is compiled for a pod by

    ylosia plan configs/ylosia_n_coco.py --topology v5e:16x16 --data.batch_size 8192

    ylosia data import coco annotations/instances_train2017.json --images train2017 --name coco --split train
    ylosia data import coco annotations/instances_val2017.json --images val2017 --name coco --split val
    ylosia train configs/ylosia_n_coco.py --workdir runs/coco
"""

from ylosia_jax.data.augment import Augment
from ylosia_jax.data.coco_classes import THINGS
from ylosia_jax.data.datasets import Imported
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.systems.ylosia import ylosia
from ylosia_jax.train.loop import Train
from ylosia_jax.train.optim import Optim


def get_config() -> Experiment:
    network, tasks = ylosia("n", num_classes=len(THINGS))
    return Experiment(
        network=network,
        tasks=tasks,
        data=Data(
            train=Imported("coco", split="train"),
            valid=Imported("coco", split="val"),
            classes=THINGS,
            image_size=640,
            batch_size=128,
            max_objects=100,
            threads=16,
        ),
        augment=Augment(
            flip=0.5,
            scale=(0.5, 1.5),
            translate=0.1,
            mosaic=1.0,
            close_mosaic=0.034,
            hue=0.015,
            saturation=0.7,
            brightness=0.4,
        ),
        optim=Optim(optimizer="sgd", lr=0.02, momentum=0.937, weight_decay=5e-4, warmup_steps=2000),
        train=Train(epochs=300, evaluate_every=10, precision="bfloat16", checkpoint_every=2000),
    )
