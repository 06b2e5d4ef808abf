"""Mask R-CNN, second version, on COCO 2017 from random weights: batch 16, 100 epochs, crops of many scales, bf16.

Not trained yet: torchvision's reaches box AP 47.4 and mask AP 41.8 on val, in 100 epochs of the same kind
(arXiv:2111.11429).

    ylosia data import coco annotations/instances_train2017.json --images train2017 --name coco --split train
    ylosia data import coco annotations/instances_val2017.json --images val2017 --name coco --split val
    ylosia train configs/mask_rcnn_resnet50_fpn_v2_coco.py --workdir runs/mask_rcnn_v2
"""

from ylosia_jax.data.augment import Augment
from ylosia_jax.data.coco_classes import THINGS
from ylosia_jax.data.datasets import Imported
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.systems.rcnn import mask_rcnn
from ylosia_jax.train.loop import Train
from ylosia_jax.train.optim import Optim


def get_config() -> Experiment:
    network, tasks = mask_rcnn(len(THINGS), version=2)
    return Experiment(
        network=network,
        tasks=tasks,
        data=Data(
            train=Imported("coco", split="train"),
            valid=Imported("coco", split="val"),
            classes=THINGS,
            image_size=(800, 1344),
            aspect_grouping=True,
            batch_size=16,
            max_objects=100,
            threads=16,
        ),
        augment=Augment(flip=0.5, scale=(0.2, 2.0), translate=0.2),
        optim=Optim(
            optimizer="plain_sgd",
            lr=0.02,
            weight_decay=1e-4,
            warmup_steps=1000,
            schedule="step",
            milestones=(0.9, 0.97),
            clip=0.0,
        ),
        train=Train(epochs=100, evaluate_every=5, best_metric="mask/AP", precision="bfloat16", checkpoint_every=2000),
    )
