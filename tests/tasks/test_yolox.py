import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ylosia_jax.ops.points import anchor_points
from ylosia_jax.tasks.yolox import YOLOXBoxes, decode_boxes, encode_boxes
from ylosia_jax.types import Batch, DenseOutputs, Objects

SHAPES = {"p3": (8, 8), "p4": (4, 4), "p5": (2, 2)}  # 64 by 64 px
POINTS, STRIDES = anchor_points(SHAPES)
TASK = YOLOXBoxes(num_classes=3, box_gain=2.0, max_detections=20, pre_nms=100, score_threshold=0.05)
IMAGES, ROWS = 3, 5

TRUTH = [
    [((4, 4, 28, 28), 0), ((36, 12, 60, 28), 2), ((12, 36, 44, 60), 1)],
    [((5.5, 3.25, 30, 31), 1), ((33, 33, 63.5, 50.75), 1)],
    [],
]


def objects_of(truth, rows=ROWS):
    """Padded objects; a third entry marks a crowd."""
    boxes, labels = np.zeros((len(truth), rows, 4), np.float32), np.zeros((len(truth), rows), np.int32)
    valid, crowd = np.zeros((len(truth), rows), bool), np.zeros((len(truth), rows), bool)
    for i, image in enumerate(truth):
        for j, (box, label, *group) in enumerate(image):
            boxes[i, j], labels[i, j], valid[i, j], crowd[i, j] = box, label, True, bool(group)
    return Objects(boxes=boxes, labels=labels, valid=valid, crowd=crowd)


def batch_of(objects):
    """A batch of which the task may only read the objects and the epochs."""
    index = np.arange(len(objects.valid), dtype=np.int32)
    side = np.full((len(index), 2), 64, np.float32)
    image = np.zeros((len(index), 64, 64, 3), np.uint8)
    return Batch(image=image, extent=side, size=side, index=index, epoch=index, objects=objects)


def outputs_of(logits, deltas, quality):
    """[B, A, D] arrays as maps."""
    ends = np.cumsum([height * width for height, width in SHAPES.values()])[:-1]

    def split(x):
        return {
            level: jnp.asarray(part.reshape(len(x), *SHAPES[level], -1))
            for level, part in zip(SHAPES, np.split(np.asarray(x, np.float32), ends, axis=1), strict=True)
        }

    return DenseOutputs(logits=split(logits), deltas=split(deltas), quality=split(quality))


def inside(box):
    return ((POINTS > np.array(box[:2])) & (POINTS < np.array(box[2:]))).all(axis=1)


def answering(box):
    """The first nine points of p3 in the middle of a box: one less than would be taken, so that no rounding matters."""
    centre = (np.array(box[:2]) + np.array(box[2:])) / 2
    near = (np.abs(POINTS - centre) < TASK.radius * 8).all(axis=1)
    return np.flatnonzero(inside(box) & near & (STRIDES == 8))[:9]


def perfect_outputs(truth):
    """Sure of every object at the points that answer for it, sure of background everywhere else."""
    logits = np.full((len(truth), len(POINTS), TASK.num_classes), -30.0)
    quality = np.full((len(truth), len(POINTS), 1), -30.0)
    boxes = np.tile(np.concatenate([POINTS - 1, POINTS + 1], axis=1), (len(truth), 1, 1))
    for i, image in enumerate(truth):
        for box, label, *_ in image:
            mine = answering(box)
            logits[i, mine, label] = quality[i, mine] = 30
            boxes[i, mine] = box
    return outputs_of(logits, encode_boxes(jnp.asarray(boxes), POINTS, STRIDES), quality)


def random_outputs(seed=0):
    """A network in the middle of its training: boxes of any size round the points, scores of any height."""
    rng = np.random.default_rng(seed)
    deltas = np.concatenate([rng.normal(0.5, 1, (IMAGES, 84, 2)), rng.normal(0.7, 0.5, (IMAGES, 84, 2))], axis=-1)
    return outputs_of(rng.normal(-1, 2, (IMAGES, 84, 3)), deltas, rng.normal(-1, 2, (IMAGES, 84, 1)))


# Small programs, which take longer to optimise than to run.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.partial(jit, static_argnames="task")
def loss_and_parts(outputs, batch, task=TASK):
    return task.loss({"box": outputs}, {"box": task.encode({"box": outputs}, batch)}, batch)


@jit
def loss_and_gradient(outputs, objects):
    def loss(outputs):
        batch = batch_of(objects)
        targets = jax.lax.stop_gradient(TASK.encode({"box": outputs}, batch))
        return TASK.loss({"box": outputs}, {"box": targets}, batch)

    return jax.value_and_grad(loss, has_aux=True)(outputs)


@jit
def encode(outputs, objects):
    return TASK.encode({"box": outputs}, batch_of(objects))


@jit
def decode(outputs):
    return TASK.decode({"box": outputs})


def loss_of(outputs, objects):
    """The loss, its parts and its gradient."""
    (loss, parts), gradient = loss_and_gradient(outputs, objects)
    return float(loss), {name: float(part) for name, part in parts.items()}, gradient


def largest(tree):
    return max(float(np.abs(x).max()) for x in jax.tree.leaves(tree))


def close(x, y):
    for left, right in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5, rtol=1e-5)


def flat(maps):
    return np.concatenate([x.reshape(len(x), -1, x.shape[-1]) for x in maps.values()], axis=1).astype(np.float64)


def test_boxes_are_coded_from_the_corners_of_cells():
    # A box round the middle of the cell (2, 1) of p3, and one whose centre is the corner of the cell (1, 0) of p4.
    boxes = jnp.array([[16.0, 4, 24, 20], [0, 8, 16, 24]])
    place, strides = np.float32([[20, 12], [8, 24]]), np.float32([8, 16])
    expected = np.array([[0.5, 0.5, 0, np.log(2)], [0.5, 0, 0, 0]])
    np.testing.assert_allclose(encode_boxes(boxes, place, strides), expected, atol=1e-6)
    np.testing.assert_allclose(decode_boxes(jnp.asarray(expected), place, strides), boxes, atol=1e-4)


def test_decode_inverts_encode_of_boxes():
    rng = np.random.default_rng(0)
    centre, side = rng.uniform(0, 64, (84, 2)), rng.uniform(0.1, 60, (84, 2))
    boxes = jnp.asarray(np.concatenate([centre - side / 2, centre + side / 2], axis=1), jnp.float32)
    np.testing.assert_allclose(decode_boxes(encode_boxes(boxes, POINTS, STRIDES), POINTS, STRIDES), boxes, atol=1e-4)


def test_decode_of_perfect_outputs_is_the_truth():
    found = decode(perfect_outputs(TRUTH))
    assert found.boxes.shape == (IMAGES, TASK.max_detections, 4)
    for i, image in enumerate(TRUTH):
        np.testing.assert_array_equal(found.valid[i], np.arange(TASK.max_detections) < len(image))
        np.testing.assert_allclose(found.scores[i][: len(image)], 1, atol=1e-5)
        rows = [(int(k), *box) for k, box in zip(found.labels[i], found.boxes[i].tolist(), strict=True)][: len(image)]
        expected = [(label, *box) for box, label in image]
        np.testing.assert_allclose(np.reshape(sorted(rows), (-1, 5)), np.reshape(sorted(expected), (-1, 5)), atol=1e-4)


def test_a_score_is_objectness_times_class():
    outputs = random_outputs()
    found = decode(outputs)
    index = np.asarray(found.index[0])
    objectness = 1 / (1 + np.exp(-flat(outputs.quality)[0, index, 0]))
    classes = 1 / (1 + np.exp(-flat(outputs.logits)[0, index, np.asarray(found.labels[0])]))
    valid = np.asarray(found.valid[0])
    assert valid.sum() > 3
    np.testing.assert_allclose(np.asarray(found.scores[0])[valid], (objectness * classes)[valid], rtol=1e-5)


def test_perfect_outputs_are_asked_for_what_they_say():
    targets = encode(perfect_outputs(TRUTH), objects_of(TRUTH))
    for i, image in enumerate(TRUTH):
        taken = np.zeros(len(POINTS), bool)
        for row, (box, label) in enumerate(image):
            mine = answering(box)
            taken[mine] = True
            np.testing.assert_array_equal(targets.labels[i][mine], label)
            np.testing.assert_array_equal(targets.index[i][mine], row)
            np.testing.assert_array_equal(targets.boxes[i][mine], [np.float32(box)] * len(mine))
            np.testing.assert_allclose(targets.score[i][mine], 1, atol=1e-5)
        np.testing.assert_array_equal(targets.positive[i], taken)
    assert not targets.ignore.any()


def test_loss_of_perfect_outputs_is_zero():
    loss, parts, gradient = loss_of(perfect_outputs(TRUTH), objects_of(TRUTH))
    assert set(parts) == {"box", "class", "object"}
    np.testing.assert_allclose([loss, *parts.values()], 0, atol=1e-4)
    assert largest((gradient.logits, gradient.quality)) < 1e-5


def loss_by_loops(outputs, objects):
    """The parts from the targets, a point at a time, as section 2.1 and the released code have them."""
    targets = encode(outputs, objects)
    logits, deltas, quality = map(flat, (outputs.logits, outputs.deltas, outputs.quality))
    parts = dict.fromkeys(("box", "class", "object", "l1"), 0.0)
    count = max(int(np.asarray(targets.positive).sum()), 1)

    def entropy(x, t):
        p = 1 / (1 + np.exp(-x))
        return -t * np.log(p) - (1 - t) * np.log(1 - p)

    for i, a in np.ndindex(targets.positive.shape):
        positive = bool(targets.positive[i, a])
        parts["object"] += entropy(quality[i, a, 0], float(positive)) * (not targets.ignore[i, a])
        if not positive:
            continue
        box = np.asarray(targets.boxes[i, a], np.float64)
        stride, corner = float(STRIDES[a]), POINTS[a] / STRIDES[a] - 0.5
        centre, side = (deltas[i, a, :2] + corner) * stride, np.exp(deltas[i, a, 2:]) * stride
        found = np.concatenate([centre - side / 2, centre + side / 2])
        shared = np.prod(np.maximum(np.minimum(found[2:], box[2:]) - np.maximum(found[:2], box[:2]), 0))
        overlap = shared / (np.prod(side) + np.prod(box[2:] - box[:2]) - shared)
        np.testing.assert_allclose(targets.score[i, a], overlap, atol=1e-5)
        parts["box"] += TASK.box_gain * (1 - overlap**2)
        for k in range(TASK.num_classes):
            q = overlap if k == targets.labels[i, a] else 0.0
            least = -sum(x * np.log(x) for x in (q, 1 - q) if x > 0)
            parts["class"] += entropy(logits[i, a, k], q) - least
        wanted = [*((box[:2] + box[2:]) / 2 / stride - corner), *np.log((box[2:] - box[:2]) / stride)]
        parts["l1"] += np.abs(deltas[i, a] - wanted).sum() * (i >= 1)
    return {name: part / count for name, part in parts.items()}


def test_loss_equals_loops():
    objects = objects_of([*TRUTH[:2], [((2, 2, 40, 50), 1, "crowd"), ((10, 10, 30, 30), 0)]])
    outputs = random_outputs()
    loss, parts, gradient = loss_of(outputs, objects)
    expected = loss_by_loops(outputs, objects)
    np.testing.assert_allclose([parts[name] for name in parts], [expected[name] for name in parts], rtol=1e-4)
    np.testing.assert_allclose(loss, sum(expected[name] for name in parts), rtol=1e-4)
    assert np.isfinite(largest(gradient))
    # The batch's images are of the passes 0, 1 and 2.
    late = dataclasses.replace(TASK, l1_epoch=1)
    loss, parts = loss_and_parts(outputs, batch_of(objects), late)
    np.testing.assert_allclose(parts["l1"], expected["l1"], rtol=1e-4)
    np.testing.assert_allclose(loss, sum(expected.values()), rtol=1e-4)


def test_no_objects_leave_finite_loss_and_gradient_on_objectness_alone():
    outputs, objects = random_outputs(), objects_of([[], [], []])
    loss, parts, gradient = loss_of(outputs, objects)
    assert parts["box"] == parts["class"] == 0
    np.testing.assert_allclose(loss, np.logaddexp(0, flat(outputs.quality)).sum(), rtol=1e-5)
    assert largest((gradient.deltas, gradient.logits)) == 0
    assert largest(gradient.quality) > 0
    targets = encode(outputs, objects)
    assert not any(x.any() for x in jax.tree.leaves(targets))


def test_degenerate_objects_leave_finite_gradients():
    truth = [[((10, 10, 10, 30), 0)], [((0, 0, 64, 64), 1), ((20, 20, 20.5, 20.5), 1)], [((-40, -40, 200, 200), 2)]]
    task = dataclasses.replace(TASK, l1_epoch=0)

    def loss(outputs):
        batch = batch_of(objects_of(truth))
        targets = jax.lax.stop_gradient(task.encode({"box": outputs}, batch))
        return task.loss({"box": outputs}, {"box": targets}, batch)[0]

    outputs = random_outputs()
    # A point far from all objects may say that its box has no end.
    deltas = dict(outputs.deltas)
    deltas["p3"] = deltas["p3"].at[:, 7, 0, 2:].set(100.0)
    value, gradient = jit(jax.value_and_grad(loss))(outputs.replace(deltas=deltas))
    assert np.isfinite(value)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


def test_padding_changes_nothing():
    outputs, objects = random_outputs(), objects_of(TRUTH)
    hidden = ~objects.valid
    noisy = objects.replace(
        boxes=np.where(hidden[..., None], np.float32([0, 0, 64, 64]), objects.boxes),
        labels=np.where(hidden, 2, objects.labels).astype(np.int32),
        crowd=hidden,
    )
    close(loss_of(outputs, noisy), loss_of(outputs, objects))
    close(encode(outputs, objects_of(TRUTH, rows=9)), encode(outputs, objects))


def test_the_loss_is_normalised_over_the_whole_batch():
    """Each image weighs as its positives do."""
    outputs, objects = random_outputs(), objects_of([TRUTH[0], TRUTH[1], TRUTH[0]])
    loss, _, _ = loss_of(outputs, objects)
    counts = np.asarray(encode(outputs, objects).positive.sum(axis=1))
    each = [loss_of(*jax.tree.map(lambda x, i=i: x[np.full(IMAGES, i)], (outputs, objects)))[0] for i in range(IMAGES)]
    np.testing.assert_allclose(loss, np.average(each, weights=counts), rtol=1e-5)


def test_the_loss_of_a_mixture_is_the_mean_of_its_sets():
    outputs, objects = random_outputs(6), objects_of(TRUTH)
    source = np.arange(IMAGES) == 0

    def alone(rows):
        some = jax.tree.map(lambda x: x[rows], (outputs, objects))
        return loss_and_parts(some[0], batch_of(some[1]))[0]

    expected = (alone(source) + (IMAGES - 1) * alone(~source)) / IMAGES
    batch = batch_of(objects).replace(source=np.stack([source, ~source], axis=1))
    np.testing.assert_allclose(loss_and_parts(outputs, batch)[0], expected, rtol=1e-5)


def test_classes_without_labels_cost_nothing():
    outputs, objects = random_outputs(), objects_of(TRUTH)
    known = np.array([[True, True, True], [True, True, False], [True, True, True]])
    batch = batch_of(objects).replace(known=known)
    gradient = jit(jax.grad(lambda outputs: loss_and_parts.__wrapped__(outputs, batch)[0]))(outputs)
    slopes = flat(gradient.logits)
    assert not slopes[1, :, 2].any()
    assert slopes[1, :, 1].any()


def test_what_a_crowd_covers_is_neither_object_nor_background():
    crowd, single = ((2, 2, 54, 50), 1, "crowd"), ((16, 18, 48, 46), 0)
    outputs = random_outputs()
    objects = objects_of([[crowd, single], *TRUTH[:2]])
    targets = encode(outputs, objects)
    positive, covered = np.asarray(targets.positive[0]), inside(crowd[0])
    assert (positive & covered).any()
    assert set(np.asarray(targets.index[0])[positive]) == {1}
    np.testing.assert_array_equal(targets.ignore[0], covered & ~positive)
    _, _, gradient = loss_of(outputs, objects)
    slopes = flat(gradient.quality)[0, :, 0]
    assert not slopes[covered & ~positive].any()
    assert slopes[~covered | positive].all()


def test_a_head_without_objectness_is_refused():
    outputs = random_outputs().replace(quality=None)
    with pytest.raises(ValueError, match="answers no objectness: give it one that does"):
        TASK.decode({"box": outputs})
