"""Ylosia n on the built-in scenes, boxes alone: the first minute, the tests, the examples.

Expected: box AP50 0.87 on the validation split after about three minutes on 2 CPU cores.

    ylosia train configs/ylosia_n_scenes_boxes.py --workdir runs/scenes
"""

from ylosia_jax.data.augment import Augment
from ylosia_jax.data.scenes import CLASSES, Scenes
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.systems.ylosia import ylosia
from ylosia_jax.train.loop import Train
from ylosia_jax.train.optim import Optim


def get_config() -> Experiment:
    network, tasks = ylosia("n", num_classes=len(CLASSES))
    return Experiment(
        network=network,
        tasks=tasks,
        data=Data(
            train=Scenes(split="train", size=1024),
            valid=Scenes(split="validation", size=128),
            classes=CLASSES,
            image_size=160,
            batch_size=16,
            max_objects=32,
        ),
        augment=Augment(flip=0.5),
        optim=Optim(lr=2e-3, warmup_steps=50, ema_decay=0.99, ema_warmup=50),
        train=Train(epochs=6, evaluate_every=6),
    )
