"""Ylosia n on one mouse seen from above: a box and four points, from random weights.

Expected: on val a median error of 3.9, 3.8 and 3.4 px of the 640x480 picture, keypoint AP50 1.00, 0.92 and 1.00 (seeds
0, 1, 2), in 25 minutes on one CPU core.

    ylosia data import coco PATH/TO/mouse-keypoints/keypoints_train.json --name mouse --split train
    ylosia data import coco PATH/TO/mouse-keypoints/keypoints_val.json --name mouse --split val
    ylosia train configs/ylosia_n_mouse.py --workdir runs/mouse
"""

from ylosia_jax.data.augment import Augment
from ylosia_jax.data.datasets import Imported
from ylosia_jax.data.skeletons import MOUSE
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.systems.ylosia import ylosia
from ylosia_jax.train.loop import Train
from ylosia_jax.train.optim import Optim


def get_config() -> Experiment:
    network, tasks = ylosia("n", num_classes=1, skeleton=MOUSE)
    return Experiment(
        network=network,
        tasks=tasks,
        data=Data(
            train=Imported("mouse", split="train"),
            valid=Imported("mouse", split="val"),
            classes=("mouse",),
            skeleton=MOUSE,
            image_size=(256, 320),
            batch_size=8,
            max_objects=4,
        ),
        # Seen from above it has no up and no left; a mirrored mouse has its ears exchanged, which augmentation knows.
        augment=Augment(
            flip=0.5, flip_vertical=0.5, scale=(0.7, 1.4), translate=0.2, hue=0.02, saturation=0.3, brightness=0.3
        ),
        optim=Optim(lr=2e-3, warmup_steps=50, ema_decay=0.99, ema_warmup=50),
        train=Train(epochs=150, evaluate_every=50, best_metric="keypoint/AP"),
    )
