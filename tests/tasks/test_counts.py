"""Detectors of one stage learn from any number of objects: finite, and by one compiled program."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ylosia_jax.systems.fcos import fcos
from ylosia_jax.systems.retinanet import retinanet
from ylosia_jax.systems.ssd import ssd300
from ylosia_jax.systems.ylosia import ylosia
from ylosia_jax.systems.yolox import yolox
from ylosia_jax.types import Batch, Objects

ROWS, SIDE, CLASSES = 300, 128, 5
SYSTEMS: dict[str, Any] = {
    "retinanet": (retinanet(CLASSES, depth=18), SIDE),
    "fcos": (fcos(CLASSES, depth=18), SIDE),
    "ssd": (ssd300(CLASSES), 300),
    "yolox": (yolox("nano", CLASSES), SIDE),
    "ylosia without suppression": (ylosia("n", CLASSES, nms_free=True), SIDE),
}


def batch_of(count: int, side: int) -> Batch:
    """Two images with as many objects: boxes of all sizes, also without area."""
    rng = np.random.default_rng(count)
    low = rng.uniform(0, side, (2, ROWS, 2))
    high = np.minimum(low + rng.uniform(0, side, (2, ROWS, 2)) * (rng.uniform(size=(2, ROWS, 2)) > 0.1), side)
    valid = np.broadcast_to(np.arange(ROWS) < count, (2, ROWS))
    numbers, size = jnp.arange(2), jnp.full((2, 2), float(side))
    return Batch(
        image=jnp.zeros((2, side, side, 3)),
        extent=size,
        size=size,
        index=numbers,
        epoch=numbers,
        objects=Objects(
            boxes=jnp.asarray(np.concatenate([low, high], -1) * valid[..., None], jnp.float32),
            labels=jnp.asarray(rng.integers(0, CLASSES, (2, ROWS)) * valid),
            valid=jnp.asarray(valid),
            crowd=jnp.zeros((2, ROWS), bool),
        ),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_any_number_of_objects(name: str) -> None:
    (network, tasks), side = SYSTEMS[name]
    form = jax.eval_shape(
        lambda key: network.init_with_output(key, jnp.zeros((2, side, side, 3)), train=False)[0], jax.random.key(0)
    )
    rng = np.random.default_rng(0)
    outputs = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), form)
    task = tasks["box"]

    def loss(outputs: Any, batch: Batch) -> Any:
        targets = {"box": task.encode(outputs, batch, {})}
        return task.loss(outputs, targets, batch)[0]

    run = jax.jit(jax.value_and_grad(loss, allow_int=True))
    for count in (0, 1, ROWS):
        value, gradient = run(outputs, batch_of(count, side))
        assert np.isfinite(float(value))
        slopes = [x for x in jax.tree.leaves(gradient) if x.dtype == jnp.float32]
        assert all(np.isfinite(x).all() for x in slopes)
        # Without positives SSD learns from no background either: three for each.
        assert any(np.asarray(x).any() for x in slopes) == (count > 0 or name != "ssd")
    assert run._cache_size() == 1
