"""Ylosia n on cell nuclei: boxes and instance masks, from random weights.

Expected: mask AP 0.64 and AP50 0.88 on val after 625 steps, 50 minutes on one CPU core; `experiments/nuclei` has three
seeds.

    ylosia data import coco PATH/TO/nuclei-dsb2018/instances_train.json --name nuclei --split train
    ylosia data import coco PATH/TO/nuclei-dsb2018/instances_val.json --name nuclei --split val
    ylosia train configs/ylosia_n_nuclei.py --workdir runs/nuclei
"""

from ylosia_jax.data.augment import Augment
from ylosia_jax.data.datasets import Imported
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.systems.ylosia import ylosia
from ylosia_jax.train.loop import Train
from ylosia_jax.train.optim import Optim


def get_config() -> Experiment:
    network, tasks = ylosia("n", num_classes=1, masks=True)
    return Experiment(
        network=network,
        tasks=tasks,
        data=Data(
            train=Imported("nuclei", split="train"),
            valid=Imported("nuclei", split="val"),
            classes=("nucleus",),
            image_size=320,
            batch_size=16,
            max_objects=64,
        ),
        # Nuclei have no up, no left; two kinds of microscope, so brightness says little.
        augment=Augment(
            flip=0.5, flip_vertical=0.5, scale=(0.7, 1.5), translate=0.2, hue=0.02, saturation=0.3, brightness=0.3
        ),
        optim=Optim(lr=2e-3, warmup_steps=50, ema_decay=0.99, ema_warmup=50),
        train=Train(epochs=100, evaluate_every=25, best_metric="mask/AP"),
    )
