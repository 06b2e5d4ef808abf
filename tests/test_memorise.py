"""The whole chain at once: a network that cannot learn eight images by heart has an error somewhere."""

import pytest
from by_heart import learn_by_heart

from ylosia_jax.data.augment import Augment
from ylosia_jax.data.scenes import CLASSES, Scenes
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.systems.ylosia import ylosia
from ylosia_jax.train.optim import Optim


@pytest.mark.slow
def test_eight_images_are_learned_by_heart() -> None:
    source = Scenes("train", size=8, image_size=(128, 128))
    network, tasks = ylosia("n", num_classes=len(CLASSES))
    experiment = Experiment(
        network=network,
        tasks=tasks,
        data=Data(train=source, valid=source, classes=CLASSES, image_size=128, batch_size=8, max_objects=32),
        augment=Augment(),
        optim=Optim(lr=4e-3, warmup_steps=20, weight_decay=0.0, ema_decay=0.9, ema_warmup=10),
    )
    losses, scores = learn_by_heart(experiment, steps=300)
    assert losses[-1] < losses[0] / 60
    assert scores["box"]["AP50"] >= 0.99
