"""Faster R-CNN with ResNet-18 and a feature pyramid on BCCD from random weights: red and white cells and platelets.

Expected: box AP of 0.587 and AP50 of 0.903 on val (seed 0), after 83 minutes on one CPU core; `experiments/two_stage`
has it beside torchvision's model on the same batches.

    ylosia data import voc PATH/TO/bccd --name bccd
    ylosia train configs/faster_rcnn_resnet18_fpn_bccd.py --workdir runs/faster_rcnn_bccd
"""

import dataclasses

from ylosia_jax.data.augment import Augment
from ylosia_jax.data.datasets import Imported
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.systems.rcnn import faster_rcnn
from ylosia_jax.train.loop import Train
from ylosia_jax.train.optim import Optim

CLASSES = ("Platelets", "RBC", "WBC")


def get_config() -> Experiment:
    network, tasks = faster_rcnn(len(CLASSES), depth=18)
    # A small picture has few regions to tell apart.
    tasks["rpn"] = dataclasses.replace(tasks["rpn"], pre_nms=(500, 500), post_nms=(500, 300))
    tasks["box"] = dataclasses.replace(tasks["box"], samples=128)
    return Experiment(
        network=network,
        tasks=tasks,
        data=Data(
            train=Imported("bccd", split="train"),
            valid=Imported("bccd", split="val"),
            classes=CLASSES,
            image_size=(256, 320),
            batch_size=4,
            max_objects=64,
        ),
        # Cells have no up and no left.
        augment=Augment(flip=0.5, flip_vertical=0.5),
        optim=Optim(lr=5e-4, warmup_steps=50, ema_decay=0.99, ema_warmup=50),
        train=Train(epochs=12, evaluate_every=12),
    )
