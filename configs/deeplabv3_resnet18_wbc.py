"""DeepLabv3 with a ResNet-18 of half the width on white blood cells, from random weights.

Expected: mIoU of 0.913 on val (seeds 0 and 1), after 12 to 16 minutes on one CPU core;
`experiments/segmentation/` has the table. 675 steps of 8 pictures.

    ylosia data import masks PATH/TO/wbc-segmentation --name wbc --classes background cytoplasm nucleus
    ylosia train configs/deeplabv3_resnet18_wbc.py --workdir runs/deeplabv3
"""

from ylosia_jax.data.augment import Augment
from ylosia_jax.data.datasets import Imported
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.systems.segmentation import deeplabv3
from ylosia_jax.train.loop import Train
from ylosia_jax.train.optim import Optim

STUFF = ("background", "cytoplasm", "nucleus")


def get_config() -> Experiment:
    network, tasks = deeplabv3(len(STUFF), depth=18, width=32)
    return Experiment(
        network=network,
        tasks=tasks,
        data=Data(
            train=Imported("wbc", split="train"),
            valid=Imported("wbc", split="val"),
            classes=(),
            stuff=STUFF,
            image_size=128,
            batch_size=8,
            max_objects=1,
        ),
        # As in ylosia_n_wbc.py: the colour is the stain's, it says what is nucleus.
        augment=Augment(
            flip=0.5, flip_vertical=0.5, scale=(0.8, 1.25), translate=0.1, hue=0.02, saturation=0.2, brightness=0.2
        ),
        optim=Optim(lr=2e-3, warmup_steps=30, ema_decay=0.99, ema_warmup=50),
        train=Train(epochs=30, evaluate_every=30, best_metric="semantic/mIoU"),
    )
