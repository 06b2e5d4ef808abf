r"""Ylosia n learns a dozen images of COCO by heart: boxes and instance masks of 80 classes.

COCO's samples are too small to generalise from. A network that finds just what it has seen, flipped and shifted, back
in those images has no error in coordinates, flips, crops or ids.

Expected: mask AP50 0.903, box AP50 0.921 after 1,800 steps, 64 minutes on one CPU core (seed 0).

    ylosia data import coco PATH/TO/annotations/instances_train.json \
        --images PATH/TO/images --name coco_instances --split train
    ylosia train configs/ylosia_n_coco_instances.py --workdir runs/coco_instances
"""

from ylosia_jax.data.augment import Augment
from ylosia_jax.data.coco_classes import THINGS
from ylosia_jax.data.datasets import Imported
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.systems.ylosia import ylosia
from ylosia_jax.train.loop import Train
from ylosia_jax.train.optim import Optim


def get_config() -> Experiment:
    network, tasks = ylosia("n", num_classes=len(THINGS), masks=True)
    return Experiment(
        network=network,
        tasks=tasks,
        data=Data(
            train=Imported("coco_instances", split="train", first=12),
            valid=Imported("coco_instances", split="train", first=12),
            classes=THINGS,
            image_size=448,
            batch_size=4,
            max_objects=48,
        ),
        augment=Augment(flip=0.5, scale=(0.95, 1.05), translate=0.02),
        optim=Optim(lr=3e-3, warmup_steps=100, weight_decay=0.0, ema_decay=0.99, ema_warmup=50),
        train=Train(epochs=600, evaluate_every=150, best_metric="mask/AP50"),
    )
