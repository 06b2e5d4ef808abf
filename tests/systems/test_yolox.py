"""YOLOX's network at its published scales, and all of it at once."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_heart import learn_by_heart

from ylosia_jax.data.augment import Augment
from ylosia_jax.data.scenes import CLASSES, Scenes
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.models.backbones.csp_darknet import focus
from ylosia_jax.systems.yolox import yolox
from ylosia_jax.train.optim import Optim


def form(network, side=64):
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    return jax.eval_shape(lambda image: network.init_with_output(jax.random.key(0), image, train=False), image)


@pytest.mark.parametrize(
    ("scale", "count"),
    # nano's is counted in its published file; the others round to the paper's: 5.06, 9.0, 25.3, 54.2 and 99.1 M.
    [
        ("nano", 912_159),
        ("tiny", 5_055_855),
        ("s", 8_968_255),
        ("m", 25_326_495),
        ("l", 54_208_895),
        ("x", 99_071_455),
    ],
)
def test_parameters_are_as_many_as_published(scale, count):
    network, _ = yolox(scale, 80)
    _, variables = form(network)
    assert sum(math.prod(x.shape) for x in jax.tree.leaves(variables["params"])) == count


def test_the_head_answers_at_three_levels():
    network, tasks = yolox("nano", 7)
    outputs, variables = form(network, side=96)
    cells = {"p3": 12, "p4": 6, "p5": 3}
    for maps, depth in ((outputs["box"].logits, 7), (outputs["box"].deltas, 4), (outputs["box"].quality, 1)):
        assert {level: x.shape for level, x in maps.items()} == {k: (1, n, n, depth) for k, n in cells.items()}
    assert set(variables["params"]) == {"backbone", "neck", "heads_box"}
    assert tasks["box"].num_classes == 7


def test_focus_keeps_every_pixel_down_the_columns_first():
    image = jnp.arange(2 * 4 * 6 * 3, dtype=jnp.float32).reshape(2, 4, 6, 3)
    cells = focus(image)
    assert cells.shape == (2, 2, 3, 12)
    patch = image[1, 2:4, 4:6]
    np.testing.assert_array_equal(cells[1, 1, 2], np.concatenate([patch[0, 0], patch[1, 0], patch[0, 1], patch[1, 1]]))


@pytest.mark.slow
def test_four_images_are_learned_by_heart() -> None:
    source = Scenes("train", size=4, image_size=(128, 128))
    network, tasks = yolox("nano", len(CLASSES), l1_epoch=0)
    experiment = Experiment(
        network=network,
        tasks=tasks,
        data=Data(train=source, valid=source, classes=CLASSES, image_size=128, batch_size=4, max_objects=32),
        augment=Augment(),
        optim=Optim(lr=4e-3, warmup_steps=20, weight_decay=0.0, ema_decay=0.9, ema_warmup=10),
    )
    losses, scores = learn_by_heart(experiment, steps=300)
    assert losses[-1] < losses[0] / 15
    assert scores["box"]["AP50"] >= 0.99
