import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ylosia_jax.tasks.pixels import PixelSemantic
from ylosia_jax.types import VOID, Batch, Objects

SIDE, CLASSES = 32, 3


def batch_of(semantic, source=None) -> Batch:
    count = len(semantic)
    none = jnp.zeros((count, 1), bool)
    return Batch(
        image=jnp.zeros((*semantic.shape, 3)),
        extent=jnp.full((count, 2), float(SIDE)),
        size=jnp.full((count, 2), float(SIDE)),
        index=jnp.arange(count),
        epoch=jnp.zeros(count, int),
        objects=Objects(jnp.zeros((count, 1, 4)), jnp.zeros((count, 1), int), none, none),
        source=source,
        semantic=jnp.asarray(semantic, jnp.uint8),
    )


def halves() -> np.ndarray:
    """Class 1 left and 2 right of an edge between two cells, 0 above both; a void frame."""
    page = np.full((2, SIDE, SIDE), 1)
    page[:, :, SIDE // 2 :], page[:, : SIDE // 2] = 2, 0
    page[:, :2], page[:, -1], page[1, :, :5] = VOID, VOID, VOID
    return page


def perfect(page: np.ndarray, stride: int) -> jnp.ndarray:
    """Large logits of each cell's own class, by its middle."""
    middle = page[:, stride // 2 :: stride, stride // 2 :: stride]
    return 1e3 * jax.nn.one_hot(middle, CLASSES)


def loss_of(task: PixelSemantic, outputs, batch: Batch):
    targets = {"semantic": task.encode(outputs, batch, {})}
    return task.loss(outputs, targets, batch)


def whole() -> np.ndarray:
    """The same without void."""
    page = np.full((2, SIDE, SIDE), 1)
    page[:, :, SIDE // 2 :], page[:, : SIDE // 2] = 2, 0
    return page


@pytest.mark.parametrize("stride", [1, 4, 8])
def test_perfect_logits_have_no_loss_and_decode_to_the_truth(stride):
    # Pixels beside an edge are mixtures of two cells, or of four: only the finest grid answers for them.
    mixed = near_an_edge(stride) if stride > 1 else np.zeros((SIDE, SIDE), bool)
    page = np.where(mixed, VOID, halves())
    task, outputs = PixelSemantic(CLASSES, stride=stride), {"semantic": perfect(whole(), stride)}
    loss, parts = loss_of(task, outputs, batch_of(page))
    assert loss == parts["cross_entropy"] < 1e-6
    found = np.asarray(task.decode(outputs, {}).labels)
    np.testing.assert_array_equal(found[:, ~mixed], whole()[:, ~mixed])
    worse = {"semantic": outputs["semantic"] * 1e-3}
    assert loss_of(task, worse, batch_of(page))[0] > 0.3


def near_an_edge(stride: int) -> np.ndarray:
    near = np.abs(np.arange(SIDE) + 0.5 - SIDE // 2) < stride
    return near[:, None] | near


def test_targets_are_the_map():
    task, page = PixelSemantic(CLASSES, stride=8), halves()
    outputs = {"semantic": jnp.zeros((2, 4, 4, CLASSES))}
    np.testing.assert_array_equal(task.encode(outputs, batch_of(page), {}), page)


def twin(logits: np.ndarray, page: np.ndarray, weights: np.ndarray) -> float:
    """The mean cross entropy of the labelled pixels, one pixel after the other, of bilinear logits."""
    count, height, width, _ = logits.shape
    stride, total, weight = SIDE // height, 0.0, 0.0
    for b, y, x in np.ndindex(count, SIDE, SIDE):
        if page[b, y, x] == VOID:
            continue
        v, u = (np.clip((i + 0.5) / stride - 0.5, 0, n - 1) for i, n in ((y, height), (x, width)))
        top, left = int(v), int(u)
        bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
        above = logits[b, top, left] + (logits[b, top, right] - logits[b, top, left]) * (u - left)
        below = logits[b, bottom, left] + (logits[b, bottom, right] - logits[b, bottom, left]) * (u - left)
        logit = above + (below - above) * (v - top)
        share = weights[page[b, y, x]]
        total += share * (np.log(np.exp(logit).sum()) - logit[page[b, y, x]])
        weight += share
    return total / weight


@pytest.mark.parametrize("weights", [(), (0.2, 1.0, 3.5)])
def test_the_loss_equals_its_twin(weights):
    logits = np.random.default_rng(0).normal(0, 2, (2, 4, 4, CLASSES))
    task = PixelSemantic(CLASSES, stride=8, class_weights=weights)
    loss, _ = loss_of(task, {"semantic": jnp.asarray(logits, jnp.float32)}, batch_of(halves()))
    np.testing.assert_allclose(loss, twin(logits, halves(), np.array(weights or [1.0] * CLASSES)), rtol=1e-5)


def test_an_auxiliary_head_of_another_stride_has_half_the_weight():
    rng = np.random.default_rng(1)
    fine, coarse = (jnp.asarray(rng.normal(size=(2, n, n, CLASSES)), jnp.float32) for n in (8, 4))
    batch, alone = batch_of(halves()), PixelSemantic(CLASSES, stride=4)
    both = dataclasses.replace(alone, auxiliary="auxiliary")
    loss, parts = loss_of(both, {"semantic": fine, "auxiliary": coarse}, batch)
    first, _ = loss_of(alone, {"semantic": fine}, batch)
    second, _ = loss_of(PixelSemantic(CLASSES, stride=8), {"semantic": coarse}, batch)
    np.testing.assert_allclose([parts["cross_entropy"], parts["auxiliary"]], [first, second / 2], rtol=1e-6)
    np.testing.assert_allclose(loss, first + second / 2, rtol=1e-6)


def test_void_pixels_change_nothing():
    logits = jnp.asarray(np.random.default_rng(2).normal(size=(2, 4, 4, CLASSES)), jnp.float32)
    task, page = PixelSemantic(CLASSES, stride=8), np.full((2, SIDE, SIDE), VOID)
    page[0, :8, :8] = 1
    run = jax.jit(jax.value_and_grad(lambda x: loss_of(task, {"semantic": x}, batch_of(page))[0]))
    _, gradient = run(logits)
    # The other image, and cells whose pixels and neighbours' are all void.
    assert np.abs(gradient[0, :2, :2]).min() > 0
    assert not np.any(gradient[1])
    assert not np.any(gradient[0, 2:])


def test_a_batch_without_a_labelled_pixel_has_no_loss_and_no_gradient():
    task, page = PixelSemantic(CLASSES, stride=8, class_weights=(1.0, 2.0, 3.0)), np.full((2, SIDE, SIDE), VOID)
    loss, gradient = jax.value_and_grad(lambda x: loss_of(task, {"semantic": x}, batch_of(page))[0])(
        jnp.ones((2, 4, 4, CLASSES))
    )
    assert loss == 0
    assert not np.any(gradient)


def test_sets_of_a_mixture_are_divided_by_their_own_pixels():
    logits = jnp.asarray(np.random.default_rng(3).normal(size=(2, 4, 4, CLASSES)), jnp.float32)
    task, page = PixelSemantic(CLASSES, stride=8), halves()
    page[1, 8:] = VOID
    each = [loss_of(task, {"semantic": logits[i : i + 1]}, batch_of(page[i : i + 1]))[0] for i in range(2)]
    loss, _ = loss_of(task, {"semantic": logits}, batch_of(page, source=jnp.eye(2, dtype=bool)))
    np.testing.assert_allclose(loss, np.mean(each), rtol=1e-6)


def test_what_does_not_fit_is_refused():
    task, batch = PixelSemantic(CLASSES, stride=8), batch_of(halves())
    with pytest.raises(ValueError, match="3 semantic classes, the head's logits are of 4"):
        task.encode({"semantic": jnp.zeros((2, 4, 4, 4))}, batch, {})
    with pytest.raises(ValueError, match=r"stride is 8, but the logits are \(8, 8\)"):
        task.encode({"semantic": jnp.zeros((2, 8, 8, CLASSES))}, batch, {})
    with pytest.raises(ValueError, match="no semantic map"):
        task.encode({"semantic": jnp.zeros((2, 4, 4, CLASSES))}, dataclasses.replace(batch, semantic=None), {})
    with pytest.raises(ValueError, match="one for each of the 3 classes"):
        PixelSemantic(CLASSES, class_weights=(1.0,))
