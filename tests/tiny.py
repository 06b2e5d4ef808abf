"""A config small enough to train in seconds: the tests' own run, also started from the command line."""

from ylosia_jax.data.augment import Augment
from ylosia_jax.data.scenes import CLASSES, Scenes
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.models.backbones.csp import CSP
from ylosia_jax.models.heads.decoupled import DecoupledHead
from ylosia_jax.models.necks.pan import PAN
from ylosia_jax.models.network import Network
from ylosia_jax.tasks.dense import DenseBoxes
from ylosia_jax.train.loop import Train
from ylosia_jax.train.optim import Optim


def get_config() -> Experiment:
    return Experiment(
        network=Network(
            backbone=CSP(widths=(8, 8, 8, 16, 16), depths=(0, 0, 0, 0)),
            neck=PAN(widths=(8, 16, 16), depth=0),
            heads={"box": DecoupledHead(num_classes=len(CLASSES), bins=8)},
        ),
        tasks={"box": DenseBoxes(num_classes=len(CLASSES), bins=8, pre_nms=64, max_detections=32)},
        data=Data(
            train=Scenes("train", size=40, image_size=(64, 64)),
            valid=Scenes("validation", size=9, image_size=(64, 64)),
            classes=CLASSES,
            image_size=64,
            batch_size=8,
            max_objects=16,
        ),
        augment=Augment(flip=0.5, scale=(0.7, 1.4), translate=0.1, mosaic=0.5, hue=0.02, saturation=0.3),
        # Small steps: rounding differs between numbers of devices, and large ones blow that up until assignments flip.
        optim=Optim(lr=5e-4, warmup_steps=100),
        train=Train(steps=20, log_every=1, evaluate_every=100, checkpoint_every=6),
    )
