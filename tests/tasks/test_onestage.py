"""RetinaNet's, FCOS's and SSD's tasks: perfect outputs cost nothing and give the truth back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ylosia_jax.ops import deltas, points
from ylosia_jax.ops.losses import binary_entropy
from ylosia_jax.tasks import fcos
from ylosia_jax.tasks.anchored import AnchoredBoxes
from ylosia_jax.tasks.fcos import CentreBoxes
from ylosia_jax.tasks.ssd import RATIOS, MultiBox
from ylosia_jax.types import Batch, DenseOutputs, Objects

K = 3
SURE = 14.0
PYRAMID = {"p3": 24, "p4": 12, "p5": 6, "p6": 3, "p7": 2}
SSD300 = {"p3": 38, "p4": 19, "p5": 10, "p6": 5, "p7": 3, "p8": 1}
TASKS = {
    "retinanet": (AnchoredBoxes(K), PYRAMID, (9,) * 5),
    "retinanet v2": (AnchoredBoxes(K, box_loss="giou"), PYRAMID, (9,) * 5),
    "fcos": (CentreBoxes(K), PYRAMID, (1,) * 5),
    "ssd": (MultiBox(K), SSD300, tuple(2 + 2 * len(ratios) for ratios in RATIOS)),
}
BOXES = [
    [[20, 30, 60, 80], [100, 40, 180, 160], [10, 100, 40, 130]],
    [[40, 40, 150, 150], [0, 0, 0, 0], [0, 0, 190, 60]],
]


@pytest.fixture(params=TASKS)
def case(request):
    return TASKS[request.param]


def batch(objects=True, **how):
    """Two images; in the second a row of padding, and a crowd."""
    boxes = jnp.array(BOXES, jnp.float32)
    valid = jnp.array([[True, True, True], [True, False, True]]) & objects
    crowd = jnp.array([[False] * 3, [False, False, True]])
    labels = jnp.array([[0, 2, 1], [2, 0, 0]])
    two = jnp.zeros((2, 2))
    return Batch(
        image=jnp.zeros((2, 8, 8, 3)),
        extent=two,
        size=two,
        index=jnp.arange(2),
        epoch=jnp.zeros(2, int),
        objects=Objects(boxes=boxes, labels=labels, valid=valid, crowd=crowd),
        **how,
    )


def outputs(shapes, anchors, depth, seed=None):
    """A head's outputs, all zeros or at random."""

    def maps(depth):
        return {
            level: jnp.zeros((2, side, side, count * depth))
            if seed is None
            else jax.random.normal(jax.random.key(seed + side), (2, side, side, count * depth))
            for (level, side), count in zip(shapes.items(), anchors, strict=True)
        }

    return {"box": DenseOutputs(logits=maps(depth), deltas=maps(4), quality=maps(1) if anchors[0] == 1 else None)}


def unflatten(flat, like):
    """The inverse of `points.flatten_levels`."""
    found, start = {}, 0
    for level, x in like.items():
        count = x[0].size // flat.shape[-1]
        found[level] = flat[:, start : start + count].reshape(x.shape)
        start += count
    return found


def perfect(task, shapes, anchors, truth):
    """What a network should answer, and the targets."""
    depth = K + isinstance(task, MultiBox)
    zeros = outputs(shapes, anchors, depth)
    dense = zeros["box"]
    asked = task.encode(zeros, truth, {})
    labels = asked.labels + isinstance(task, MultiBox)
    if isinstance(task, MultiBox):
        logits = SURE * jax.nn.one_hot(jnp.where(asked.positive, labels, 0), depth)
    else:
        logits = SURE * (2 * jax.nn.one_hot(labels, depth) * asked.positive[..., None] - 1)
    quality = None
    if isinstance(task, CentreBoxes):
        place, strides = fcos._points(dense)
        found = points.encode_distances(asked.boxes, place, strides)
        centred = jnp.clip(fcos.centreness(asked, place, strides), 1e-6, 1 - 1e-6)
        quality = unflatten((jnp.log(centred) - jnp.log1p(-centred))[..., None], dense.quality)
    else:
        weights = deltas.SECOND_STAGE if isinstance(task, MultiBox) else (1.0, 1.0, 1.0, 1.0)
        found = deltas.encode_deltas(asked.boxes, task._anchors(dense), weights)
    found = jnp.where(asked.positive[..., None], found, 0)
    dense = DenseOutputs(logits=unflatten(logits, dense.logits), deltas=unflatten(found, dense.deltas), quality=quality)
    return {"box": dense}, asked


def test_perfect_outputs_decode_to_the_truth_and_cost_nothing(case):
    task, shapes, anchors = case
    truth = batch()
    answered, asked = perfect(task, shapes, anchors, truth)
    assert set(np.unique(asked.kind)) == {-1, 0, 1}
    loss, parts = jax.jit(lambda o, t: task.loss(o, {"box": t}, truth))(answered, asked)
    least = 0.0
    if isinstance(task, CentreBoxes):
        centred = fcos.centreness(asked, *fcos._points(answered["box"]))
        least = binary_entropy(centred).sum() / asked.positive.sum()
        np.testing.assert_allclose(parts["centreness"], least, rtol=1e-5)
    np.testing.assert_allclose(loss, least, atol=1e-4)
    found = jax.jit(lambda o: task.decode(o, {}))(answered)
    for i, rows in enumerate(truth.objects.valid & ~truth.objects.crowd):
        sure = np.asarray(found.valid[i] & (found.scores[i] > 0.3))
        got = np.column_stack([found.labels[i][sure], found.boxes[i][sure]])
        expected = np.column_stack([truth.objects.labels[i][rows], truth.objects.boxes[i][rows]])
        # A box may be found by anchors that overlap less than suppression asks for: here all are equal.
        np.testing.assert_allclose(sorted(map(tuple, got)), sorted(map(tuple, expected)), atol=1e-3)


def test_padding_rows_change_nothing(case):
    task, shapes, anchors = case
    truth = batch()
    noisy = truth.replace(
        objects=truth.objects.replace(
            boxes=truth.objects.boxes.at[1, 1].set(jnp.array([30.0, 30, 90, 90])),
            labels=truth.objects.labels.at[1, 1].set(2),
        )
    )
    answered = outputs(shapes, anchors, K + isinstance(task, MultiBox), seed=0)
    run = jax.jit(lambda t: task.loss(answered, {"box": task.encode(answered, t, {})}, t)[0])
    np.testing.assert_array_equal(run(noisy), run(truth))


@pytest.mark.parametrize("objects", [True, False])
def test_gradients_are_finite_with_and_without_objects(case, objects):
    task, shapes, anchors = case
    truth = batch(objects)
    answered = outputs(shapes, anchors, K + isinstance(task, MultiBox), seed=1)
    loss, grads = jax.jit(jax.value_and_grad(lambda o: task.loss(o, {"box": task.encode(o, truth, {})}, truth)[0]))(
        answered
    )
    assert np.isfinite(loss)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))
    assert any(x.any() for x in grads["box"].deltas.values()) == objects
    # Hard negatives come with positives.
    assert any(x.any() for x in grads["box"].logits.values()) == (objects or not isinstance(task, MultiBox))


def test_a_class_without_labels_costs_nothing(case):
    task, shapes, anchors = case
    background = isinstance(task, MultiBox)
    known = jnp.array([[True, True, True], [False, True, True]])
    truth = batch(known=known)
    answered = outputs(shapes, anchors, K + background, seed=2)
    # Objects of such a class, which a mosaic or a merged class brings along, do not make the loss infinite.
    marked = truth.replace(objects=truth.objects.replace(labels=jnp.zeros_like(truth.objects.labels)))
    assert np.isfinite(jax.jit(lambda o: task.loss(o, {"box": task.encode(o, marked, {})}, marked)[0])(answered))
    grads = jax.jit(jax.grad(lambda o: task.loss(o, {"box": task.encode(o, truth, {})}, truth)[0]))(answered)
    for x, count in zip(grads["box"].logits.values(), anchors, strict=True):
        each = x.reshape(2, -1, count, K + background)[..., background:]
        assert not each[1, ..., 0].any()
        if x.shape[1] == 12:
            assert each[0, ..., 0].any()


def test_ssd_asks_for_its_own_canvas():
    answered = outputs({"p3": 40, "p4": 20}, (4, 6), K + 1)
    with pytest.raises(ValueError, match=r"has \(40, 40\) cells 8 pixels apart, which make no canvas of \(300, 300\)"):
        MultiBox(K).decode(answered, {})


def test_centreness_needs_a_head_that_tells_it():
    answered = {"box": outputs(PYRAMID, (1,) * 5, K)["box"].replace(quality=None)}
    with pytest.raises(ValueError, match="the head gives no quality"):
        CentreBoxes(K).decode(answered, {})
