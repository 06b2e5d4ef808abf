"""Ylosia n on three sets at once: nuclei with their masks, the scenes with everything, a mouse with its four points.

Expected: each task's scores within 2 points of those of a run on its own set; what was measured, and what is missing,
stands in experiments/mixed.

    ylosia data import coco PATH/TO/nuclei-dsb2018/instances_train.json --name nuclei --split train
    ylosia data import coco PATH/TO/nuclei-dsb2018/instances_val.json --name nuclei --split val
    ylosia data import coco PATH/TO/mouse-keypoints/keypoints_train.json --name mouse --split train
    ylosia data import coco PATH/TO/mouse-keypoints/keypoints_val.json --name mouse --split val
    ylosia train configs/ylosia_n_mixed.py --workdir runs/mixed
"""

from ylosia_jax.data.augment import Augment
from ylosia_jax.data.datasets import Imported, Mixture
from ylosia_jax.data.mixture import join_skeletons
from ylosia_jax.data.scenes import CLASSES, Scenes
from ylosia_jax.data.scenes_grounds import STUFF
from ylosia_jax.data.skeletons import COCO_PERSON, MOUSE
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.systems.ylosia import ylosia
from ylosia_jax.train.loop import Train
from ylosia_jax.train.optim import Optim


def get_config() -> Experiment:
    classes, skeleton = ("nucleus", *CLASSES, "mouse"), join_skeletons([COCO_PERSON, MOUSE])
    network, tasks = ylosia(
        "n", num_classes=len(classes), masks=True, skeleton=skeleton, semantic_classes=len(classes + STUFF)
    )
    # One image in two is of a scene: they have the most to teach.
    scenes = Scenes("train", size=2000, image_size=(192, 192))
    train = Mixture((Imported("nuclei", "train"), scenes, Imported("mouse", "train")), (1, 2, 1))
    # Each image once.
    scenes = Scenes("validation", size=64, image_size=(192, 192))
    valid = Mixture((Imported("nuclei", "val"), scenes, Imported("mouse", "val")))
    return Experiment(
        network=network,
        tasks=tasks,
        data=Data(
            train=train,
            valid=valid,
            classes=classes,
            stuff=STUFF,
            skeleton=skeleton,
            image_size=192,
            batch_size=8,
            max_objects=64,
        ),
        augment=Augment(flip=0.5, scale=(0.8, 1.3), translate=0.1, hue=0.02, saturation=0.3, brightness=0.3),
        optim=Optim(lr=2e-3, warmup_steps=100, ema_decay=0.99, ema_warmup=50),
        train=Train(epochs=4, evaluate_every=2),
    )
