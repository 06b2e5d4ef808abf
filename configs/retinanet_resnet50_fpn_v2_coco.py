r"""RetinaNet, second version, on COCO 2017: batch 16, 26 epochs, AdamW, images of many scales, bf16.

Not trained yet: torchvision's reaches box AP 41.5 on val, from a backbone trained on ImageNet.

    ylosia data import coco annotations/instances_train2017.json --images train2017 --name coco --split train
    ylosia data import coco annotations/instances_val2017.json --images val2017 --name coco --split val
    ylosia weights import resnet50.pth --config configs/retinanet_resnet50_fpn_v2_coco.py --workdir runs/retinanet_v2 \
        --only backbone
    ylosia train configs/retinanet_resnet50_fpn_v2_coco.py --workdir runs/retinanet_v2
"""

from ylosia_jax.data.augment import Augment
from ylosia_jax.data.coco_classes import THINGS
from ylosia_jax.data.datasets import Imported
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.systems.retinanet import retinanet
from ylosia_jax.train.loop import Train
from ylosia_jax.train.optim import Optim


def get_config() -> Experiment:
    network, tasks = retinanet(len(THINGS), version=2)
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
        augment=Augment(flip=0.5, scale=(0.5, 1.5), translate=0.1),
        optim=Optim(
            lr=1e-4,
            weight_decay=0.05,
            warmup_steps=1000,
            schedule="step",
            milestones=(16 / 26, 22 / 26),
            clip=0.0,
        ),
        train=Train(epochs=26, evaluate_every=2, precision="bfloat16", checkpoint_every=2000),
    )
