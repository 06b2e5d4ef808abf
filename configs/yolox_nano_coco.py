"""YOLOX-nano on COCO 2017, boxes, by the paper's recipe: 416 px, batch 64, 300 epochs, SGD (arXiv:2107.08430).

Not trained yet: the paper reaches box AP 25.3 on val, and the weights published since 25.8. Those score AP 0.320 on 47
images of val, person AP 0.568 on 48 others, as in their own runtime (`experiments/yolox/`). A run is made of them by

    ylosia weights import PATH/TO/yolox_nano.onnx --config configs/yolox_nano_coco.py --workdir runs/yolox_nano

    ylosia data import coco annotations/instances_train2017.json --images train2017 --name coco --split train
    ylosia data import coco annotations/instances_val2017.json --images val2017 --name coco --split val
    ylosia train configs/yolox_nano_coco.py --workdir runs/yolox_nano_trained
"""

from ylosia_jax.data.augment import Augment
from ylosia_jax.data.coco_classes import THINGS
from ylosia_jax.data.datasets import Imported
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.systems.yolox import yolox
from ylosia_jax.train.loop import Train
from ylosia_jax.train.optim import Optim

EPOCHS = 300
PLAIN = 15  # at the end, without mosaic and with the L1 loss


def get_config() -> Experiment:
    network, tasks = yolox("nano", num_classes=len(THINGS), l1_epoch=EPOCHS - PLAIN)
    return Experiment(
        network=network,
        tasks=tasks,
        data=Data(
            train=Imported("coco", split="train"),
            valid=Imported("coco", split="val"),
            classes=THINGS,
            image_size=416,
            resize="bilinear",
            batch_size=64,
            max_objects=100,
            threads=16,
        ),
        # Nano has mosaics half of the time and no mixing of images (section 2.2 and its released config). What is not
        # here: sizes that change from batch to batch, and a warm-up that is no line.
        augment=Augment(
            flip=0.5,
            scale=(0.5, 1.5),
            translate=0.1,
            rotate=10,
            shear=2,
            mosaic=0.5,
            close_mosaic=PLAIN / EPOCHS,
            hue=0.015,
            saturation=0.7,
            brightness=0.4,
        ),
        # 0.01 for every 64 images; five epochs of warm-up.
        optim=Optim(
            optimizer="sgd", lr=0.01, weight_decay=5e-4, warmup_steps=9000, final_lr=0.05, clip=0.0, ema_decay=0.9998
        ),
        train=Train(epochs=EPOCHS, evaluate_every=10, checkpoint_every=2000),
    )
