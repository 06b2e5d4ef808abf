"""Fast R-CNN with ResNet-18 on BCCD, blood cells in microscope images, from random weights; selective search's regions.

Expected: AP50 of 0.764 and AP of 0.444 on val (seed 0); `experiments/rcnn_line` has it beside its predecessor and its
successor.

    ylosia data import voc PATH/TO/bccd --name bccd
    ylosia train configs/fast_rcnn_resnet18_bccd.py --workdir runs/fast_rcnn_bccd
"""

from ylosia_jax.data.augment import Augment
from ylosia_jax.data.datasets import Imported
from ylosia_jax.data.regions import SelectiveSearch
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.models.backbones.resnet import resnet
from ylosia_jax.systems.fast_rcnn import fast_rcnn
from ylosia_jax.train.loop import Train
from ylosia_jax.train.optim import Optim

CLASSES = ("Platelets", "RBC", "WBC")


def get_config() -> Experiment:
    network, tasks = fast_rcnn(
        num_classes=len(CLASSES), backbone=resnet(18), level="c3", stride=8, dense=(512, 512), dropout=0.2, samples=128
    )
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
            # At half of the pictures' size: four of five cells are found, in a second an image.
            regions=SelectiveSearch(side=320, count=768, min_side=8),
        ),
        # Cells have no up and no left.
        augment=Augment(flip=0.5, flip_vertical=0.5),
        optim=Optim(lr=5e-4, warmup_steps=50, ema_decay=0.99, ema_warmup=50),
        train=Train(epochs=24, evaluate_every=24),
    )
