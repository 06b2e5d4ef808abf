"""Mask R-CNN with ResNet-50 and a feature pyramid on cell nuclei from random weights: boxes and instance masks.

Expected: after twelve of its forty epochs box AP 0.342 and mask AP 0.369 (`experiments/two_stage`, seed 0, beside
torchvision's model on the same batches). All forty have not been run.

    ylosia data import coco PATH/TO/nuclei-dsb2018/instances_train.json --name nuclei --split train
    ylosia data import coco PATH/TO/nuclei-dsb2018/instances_val.json --name nuclei --split val
    ylosia train configs/mask_rcnn_resnet50_fpn_nuclei.py --workdir runs/mask_rcnn_nuclei
"""

import dataclasses

from ylosia_jax.data.augment import Augment
from ylosia_jax.data.datasets import Imported
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.systems.rcnn import mask_rcnn
from ylosia_jax.train.loop import Train
from ylosia_jax.train.optim import Optim


def get_config() -> Experiment:
    network, tasks = mask_rcnn(1)
    # A small picture has few regions to tell apart.
    tasks["rpn"] = dataclasses.replace(tasks["rpn"], pre_nms=(500, 500), post_nms=(500, 300))
    tasks["box"] = dataclasses.replace(tasks["box"], samples=128)
    tasks["mask"] = dataclasses.replace(tasks["mask"], regions=32)
    return Experiment(
        network=network,
        tasks=tasks,
        data=Data(
            train=Imported("nuclei", split="train"),
            valid=Imported("nuclei", split="val"),
            classes=("nucleus",),
            image_size=256,
            batch_size=4,
            max_objects=128,
        ),
        # Nuclei have no up and no left.
        augment=Augment(flip=0.5, flip_vertical=0.5),
        optim=Optim(lr=5e-4, warmup_steps=50, ema_decay=0.99, ema_warmup=50),
        train=Train(epochs=40, evaluate_every=40, best_metric="mask/AP"),
    )
