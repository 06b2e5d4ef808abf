"""R-CNN with ResNet-18 on BCCD, blood cells in microscope images, from random weights; selective search's regions.

Expected: AP 0.419 and AP50 0.750 on val (seed 0), after two hours on a CPU core; `experiments/rcnn_line` has its
successors beside it.

    ylosia data import voc PATH/TO/bccd --name bccd
    ylosia train configs/rcnn_resnet18_bccd.py --workdir runs/rcnn_bccd
"""

from ylosia_jax.data.augment import Augment
from ylosia_jax.data.datasets import Imported
from ylosia_jax.data.regions import SelectiveSearch
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.models.backbones.resnet import resnet
from ylosia_jax.systems.fast_rcnn import rcnn
from ylosia_jax.train.loop import Train
from ylosia_jax.train.optim import Optim

CLASSES = ("Platelets", "RBC", "WBC")


def get_config() -> Experiment:
    network, tasks = rcnn(
        num_classes=len(CLASSES), backbone=resnet(18), size=64, context=8, dense=(512,), dropout=0.2, samples=32
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
        train=Train(epochs=12, evaluate_every=12),
    )
