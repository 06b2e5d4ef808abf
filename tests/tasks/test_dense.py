import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ylosia_jax.ops.boxes import iou
from ylosia_jax.ops.points import anchor_points
from ylosia_jax.tasks.dense import DenseBoxes
from ylosia_jax.types import Batch, DenseOutputs, Objects

SHAPES = {"p3": (8, 8), "p4": (4, 4), "p5": (2, 2)}  # 64 by 64 px
POINTS, STRIDES = anchor_points(SHAPES)
TASK = DenseBoxes(
    num_classes=3, box_gain=2.0, class_gain=3.0, dfl_gain=5.0, max_detections=20, pre_nms=100, score_threshold=0.05
)
IMAGES, ROWS = 3, 5

TRUTH = [
    # Every edge of image 0 is a whole number of strides from p3's points, every edge of image 1 a fraction.
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
    """A batch of which the task may only read the objects."""
    count = len(objects.valid)
    index = np.arange(count, dtype=np.int32)
    side = np.full((count, 2), 64, np.float32)
    return Batch(
        image=np.zeros((count, 64, 64, 3), np.uint8), extent=side, size=side, index=index, epoch=index, objects=objects
    )


def outputs_of(logits, deltas):
    """[B, A, D] arrays as maps."""
    ends = np.cumsum([height * width for height, width in SHAPES.values()])[:-1]

    def split(x):
        return {
            level: jnp.asarray(part.reshape(len(x), *SHAPES[level], -1))
            for level, part in zip(SHAPES, np.split(np.asarray(x, np.float32), ends, axis=1), strict=True)
        }

    return DenseOutputs(logits=split(logits), deltas=split(deltas))


def coded(boxes):
    """Distribution logits [.., A, 4 R] whose expected distances give just these boxes: two neighbouring bins a side."""
    distances = np.concatenate([POINTS - boxes[..., :2], boxes[..., 2:] - POINTS], axis=-1) / STRIDES[:, None]
    weights = np.maximum(0, 1 - np.abs(np.arange(TASK.bins) - distances[..., None]))
    return np.log(weights + 1e-30).reshape(*boxes.shape[:-1], -1)


def inside(box):
    return ((POINTS > np.array(box[:2])) & (POINTS < np.array(box[2:]))).all(axis=1)


def perfect_outputs(truth, level="p3"):
    """Sure of every object at the points of one level inside it, sure of background everywhere else."""
    at_level = STRIDES == 2 ** int(level[1:])
    logits = np.full((len(truth), len(POINTS), TASK.num_classes), -30.0)
    boxes = np.tile(np.concatenate([POINTS - 1, POINTS + 1], axis=1), (len(truth), 1, 1))
    for i, image in enumerate(truth):
        for box, label, *_ in image:
            mine = np.flatnonzero(inside(box) & at_level)[: TASK.top_k]
            logits[i, mine, label] = 30
            boxes[i, mine] = box
    return outputs_of(logits, coded(boxes))


def random_outputs(seed=0):
    """A network in the middle of its training: near the truth at some points, far from it at others."""
    rng = np.random.default_rng(seed)
    boxes = np.concatenate([POINTS, POINTS], axis=1) + rng.uniform(1, 30, (IMAGES, len(POINTS), 4)) * [-1, -1, 1, 1]
    noise = rng.normal(0, 1, (IMAGES, len(POINTS), 4 * TASK.bins))
    return outputs_of(rng.normal(-1, 2, (IMAGES, len(POINTS), 3)), np.maximum(coded(boxes), -6) + noise)


def loss_and_parts(outputs, batch):
    targets = {"box": TASK.encode({"box": outputs}, batch)}
    return TASK.loss({"box": outputs}, targets, batch)


@jax.jit
def loss_and_gradient(outputs, objects):
    return jax.value_and_grad(lambda outputs: loss_and_parts(outputs, batch_of(objects)), has_aux=True)(outputs)


@jax.jit
def encode(outputs, objects):
    return TASK.encode({"box": outputs}, batch_of(objects))


@jax.jit
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


@pytest.mark.parametrize("level", ["p3", "p4"])
def test_decode_of_perfect_outputs_is_the_truth(level):
    found = decode(perfect_outputs(TRUTH, level))
    assert found.boxes.shape == (IMAGES, TASK.max_detections, 4)
    for i, image in enumerate(TRUTH):
        assert found.valid[i].sum() == len(image)
        assert found.valid[i][: len(image)].all()
        np.testing.assert_allclose(found.scores[i][: len(image)], 1, atol=1e-5)
        rows = sorted((int(label), *box) for label, box in zip(found.labels[i], found.boxes[i].tolist(), strict=True))
        rows = [row for row in rows if row[3] > 0]
        np.testing.assert_allclose(rows, sorted((label, *box) for box, label in image) or np.zeros((0,)), atol=1e-4)


def test_decode_inverts_encode():
    """Outputs made of the targets decode to the truth."""
    objects = objects_of(TRUTH)
    targets = encode(perfect_outputs(TRUTH), objects)
    one_hot = np.eye(3)[np.asarray(targets.labels)] * np.asarray(targets.score)[..., None]
    # Points that answer for nothing get a box that they can express.
    boxes = np.where(
        np.asarray(targets.score)[..., None] > 0, targets.boxes, np.concatenate([POINTS - 1, POINTS + 1], 1)
    )
    found = decode(outputs_of(np.log(one_hot + 1e-9) - np.log(1 - one_hot + 1e-9), coded(boxes)))
    for i, image in enumerate(TRUTH):
        order = np.lexsort(np.asarray(found.boxes[i][: len(image)]).T[::-1])
        expected = sorted(image)
        np.testing.assert_allclose(found.boxes[i][order], np.reshape([box for box, _ in expected], (-1, 4)), atol=1e-3)
        np.testing.assert_array_equal(found.labels[i][order], [label for _, label in expected])
        np.testing.assert_array_equal(found.valid[i], np.arange(TASK.max_detections) < len(image))


def test_perfect_outputs_are_asked_for_what_they_say():
    targets = encode(perfect_outputs(TRUTH), objects_of(TRUTH))
    for i, image in enumerate(TRUTH):
        taken = np.zeros(len(POINTS), bool)
        for box, label in image:
            mine = np.flatnonzero(inside(box) & (STRIDES == 8))[: TASK.top_k]
            taken[mine] = True
            np.testing.assert_allclose(targets.score[i][mine], 1, atol=1e-5)
            np.testing.assert_array_equal(targets.labels[i][mine], label)
            np.testing.assert_array_equal(targets.boxes[i][mine], [np.float32(box)] * len(mine))
        # A point of another level may answer too, but for next to nothing.
        assert np.asarray(targets.score[i])[~taken].max() < 1e-6
    assert not targets.ignore.any()


def test_loss_of_perfect_outputs_is_zero():
    loss, parts, gradient = loss_of(perfect_outputs(TRUTH), objects_of(TRUTH))
    assert set(parts) == {"box", "class", "dfl"}
    np.testing.assert_allclose(list(parts.values()), 0, atol=1e-4)
    np.testing.assert_allclose(loss, 0, atol=1e-4)
    # The overlap has a kink at its maximum; the classes have come to rest.
    assert largest(gradient.logits) < 1e-6


def test_each_part_sees_its_own_mistake():
    truth = [[((4, 4, 28, 28), 0)]] * IMAGES
    objects, perfect = objects_of(truth), perfect_outputs(truth)
    _, parts, _ = loss_of(perfect.replace(logits=jax.tree.map(lambda x: x / 20, perfect.logits)), objects)
    assert parts["class"] > 0.1
    assert parts["box"] < 1e-4
    moved = perfect_outputs([[((4, 4, 28, 36), 0)]] * IMAGES)
    _, parts, _ = loss_of(perfect.replace(deltas=moved.deltas), objects)
    assert parts["box"] > 0.1
    assert parts["dfl"] > 0.1


def loss_by_loops(outputs, objects):
    """The parts from the targets, a point at a time; GFL's and TOOD's formulas as the papers write them."""
    targets = encode(outputs, objects)
    logits, deltas = (
        np.concatenate([x.reshape(len(x), -1, x.shape[-1]) for x in maps.values()], axis=1).astype(np.float64)
        for maps in (outputs.logits, outputs.deltas)
    )
    box_loss = class_loss = dfl_loss = total = 0.0
    for i, a in np.ndindex(targets.score.shape):
        weight = float(targets.score[i, a])
        total += weight
        for k in range(TASK.num_classes):
            q = weight if k == targets.labels[i, a] else 0.0
            p = 1 / (1 + np.exp(-logits[i, a, k]))
            # The entropy of the target is what no prediction can get below.
            entropy = sum(x * np.log(x) for x in (q, 1 - q) if x > 0)
            class_loss += (entropy - q * np.log(p) - (1 - q) * np.log(1 - p)) * (not targets.ignore[i, a])
        if weight == 0:
            continue
        log_p = deltas[i, a].reshape(4, TASK.bins)
        log_p = log_p - np.log(np.exp(log_p).sum(axis=1, keepdims=True))
        distances = np.exp(log_p) @ np.arange(TASK.bins) * STRIDES[a]
        found = np.concatenate([POINTS[a] - distances[:2], POINTS[a] + distances[2:]])
        box = np.asarray(targets.boxes[i, a], np.float64)
        box_loss += (1 - float(ciou(found.astype(np.float32), box.astype(np.float32)))) * weight
        wanted = np.concatenate([POINTS[a] - box[:2], box[2:] - POINTS[a]]) / STRIDES[a]
        for side, y in enumerate(np.clip(wanted, 0, TASK.bins - 1.01)):
            left = int(y)
            for j, q in ((left, left + 1 - y), (left + 1, y - left)):
                dfl_loss += (q * np.log(q) - q * log_p[side, j]) / 4 * weight if q > 0 else 0
    return {
        "box": TASK.box_gain * box_loss / max(total, 1),
        "class": TASK.class_gain * class_loss / max(total, 1),
        "dfl": TASK.dfl_gain * dfl_loss / max(total, 1),
    }


@jax.jit
def ciou(a, b):
    return iou(a, b, kind="ciou")


def test_loss_equals_loops():
    objects = objects_of([*TRUTH[:2], [((2, 2, 40, 50), 1, "crowd"), ((10, 10, 30, 30), 0)]])
    outputs = random_outputs()
    loss, parts, gradient = loss_of(outputs, objects)
    expected = loss_by_loops(outputs, objects)
    np.testing.assert_allclose([parts[name] for name in expected], list(expected.values()), rtol=1e-4)
    np.testing.assert_allclose(loss, sum(expected.values()), rtol=1e-4)
    assert np.isfinite(largest(gradient))


def test_no_objects_leave_finite_loss_and_gradient_on_the_classes_alone():
    outputs, objects = random_outputs(), objects_of([[], [], []])
    loss, parts, gradient = loss_of(outputs, objects)
    assert parts["box"] == parts["dfl"] == 0
    # All is background: the cross entropy of every logit against 0, over a total of 1.
    expected = TASK.class_gain * sum(np.logaddexp(0, np.asarray(x, np.float64)).sum() for x in outputs.logits.values())
    np.testing.assert_allclose([loss, parts["class"]], expected, rtol=1e-5)
    assert largest(gradient.deltas) == 0
    assert 0 < largest(gradient.logits) <= TASK.class_gain
    targets = encode(outputs, objects)
    assert not any(x.any() for x in (targets.boxes, targets.score, targets.ignore))


def test_degenerate_objects_leave_finite_gradients():
    truth = [[((10, 10, 10, 30), 0)], [((0, 0, 64, 64), 1), ((20, 20, 20.5, 20.5), 1)], [((-40, -40, 200, 200), 2)]]
    for outputs in (random_outputs(), outputs_of(np.full((3, 84, 3), -9), np.zeros((3, 84, 64)))):
        loss, _, gradient = loss_of(outputs, objects_of(truth))
        assert np.isfinite(loss)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


def test_padding_changes_nothing():
    outputs, objects = random_outputs(), objects_of(TRUTH)
    expected = loss_of(outputs, objects)
    hidden = ~objects.valid
    noisy = objects.replace(
        boxes=np.where(hidden[..., None], np.float32([0, 0, 64, 64]), objects.boxes),
        labels=np.where(hidden, 2, objects.labels).astype(np.int32),
        crowd=hidden,
    )
    close(loss_of(outputs, noisy), expected)
    close(encode(outputs, objects_of(TRUTH, rows=9)), encode(outputs, objects))


def test_order_of_objects_changes_nothing():
    truth = [*TRUTH[:2], [((2, 2, 40, 50), 1, "crowd"), ((10, 10, 30, 30), 0)]]
    outputs = random_outputs()
    close(loss_of(outputs, objects_of([image[::-1] for image in truth])), loss_of(outputs, objects_of(truth)))


def test_the_loss_is_normalised_over_the_whole_batch():
    """Each image weighs as its target scores do; repeating an image changes nothing."""
    outputs, objects = random_outputs(), objects_of([TRUTH[0], TRUTH[1], TRUTH[0]])
    loss, _, _ = loss_of(outputs, objects)
    totals = np.asarray(encode(outputs, objects).score.sum(axis=1))
    assert totals.min() > 1
    each = [loss_of(*jax.tree.map(lambda x, i=i: x[np.full(IMAGES, i)], (outputs, objects)))[0] for i in range(IMAGES)]
    np.testing.assert_allclose(loss, np.average(each, weights=totals), rtol=1e-5)
    one = jax.jit(lambda outputs, objects: loss_and_parts(outputs, batch_of(objects))[0])
    np.testing.assert_allclose(one(*jax.tree.map(lambda x: x[:1], (outputs, objects))), each[0], rtol=1e-5)


def test_the_loss_of_a_mixture_is_the_mean_of_its_sets():
    """However many objects an image of each has: every set's loss is its own, and weighs as much as its images."""
    outputs, objects = random_outputs(6), objects_of(TRUTH)
    source = np.arange(IMAGES) == 0

    def alone(rows):
        some = jax.tree.map(lambda x: x[rows], (outputs, objects))
        return loss_and_parts(some[0], batch_of(some[1]))[0]

    expected = (alone(source) + (IMAGES - 1) * alone(~source)) / IMAGES
    batch = batch_of(objects).replace(source=np.stack([source, ~source], axis=1))
    np.testing.assert_allclose(loss_and_parts(outputs, batch)[0], expected, rtol=1e-5)


def test_what_a_crowd_covers_is_neither_object_nor_background():
    crowd, single = ((2, 2, 54, 50), 1, "crowd"), ((34, 34, 62, 62), 0)
    outputs = random_outputs()
    objects = objects_of([[crowd, single], *TRUTH[:2]])
    targets = encode(outputs, objects)
    positive = np.asarray(targets.score[0]) > 0
    covered = inside(crowd[0])
    # Some points answer for the single object although the crowd covers them.
    assert (positive & covered).any()
    assert inside(single[0])[positive].all()
    np.testing.assert_array_equal(targets.ignore[0], covered & ~positive)
    _, _, gradient = loss_of(outputs, objects)
    slopes = np.concatenate([x[0].reshape(-1, 3) for x in gradient.logits.values()])
    assert not slopes[covered & ~positive].any()
    assert slopes[~covered].all()
    assert slopes[positive].all()


def test_a_crowd_without_objects_is_left_out_of_the_loss():
    outputs = random_outputs()
    objects = objects_of([[((0, 0, 64, 64), 1, "crowd")]] * IMAGES)
    loss, parts, gradient = loss_of(outputs, objects)
    assert loss == 0
    assert set(parts.values()) == {0.0}
    assert largest(gradient) == 0
    # A crowd that is only padding covers nothing.
    hidden = objects.replace(valid=np.zeros_like(objects.valid))
    close(loss_of(outputs, hidden), loss_of(outputs, objects_of([[]] * IMAGES)))


def test_decode_selects_by_class():
    """Two classes over one box are two detections; a second, slightly moved box of one class is none."""
    logits = np.full((1, len(POINTS), 3), -30.0)
    boxes = np.tile(np.concatenate([POINTS - 1, POINTS + 1], axis=1), (1, 1, 1))
    logits[0, 9], logits[0, 10] = [2, 1, -30], [0, -30, -30]
    boxes[0, 9], boxes[0, 10] = [4, 4, 28, 28], [4, 4, 28, 30]
    found = decode(outputs_of(logits, coded(boxes)))
    assert found.valid[0].sum() == 2
    np.testing.assert_array_equal(found.labels[0, :2], [0, 1])
    np.testing.assert_allclose(found.scores[0, :3], [1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-1)), 0], atol=1e-6)
    np.testing.assert_allclose(found.boxes[0, :2], [[4, 4, 28, 28]] * 2, atol=1e-4)
    assert not found.boxes[0, 2:].any()


@pytest.mark.slow
def test_classes_that_an_image_does_not_label_cost_nothing():
    outputs, objects = random_outputs(4), objects_of(TRUTH)
    known = np.ones((IMAGES, TASK.num_classes), bool)
    known[0, 1] = False

    def loss(outputs):
        return loss_and_parts(outputs, batch_of(objects).replace(known=known))[0]

    gradient = jax.jit(jax.grad(loss))(outputs)
    whole = loss_of(outputs, objects)[2]
    for level in outputs.logits:
        np.testing.assert_array_equal(gradient.logits[level][0, ..., 1], 0)
        np.testing.assert_allclose(gradient.logits[level][..., 0], whole.logits[level][..., 0], atol=1e-6)
        np.testing.assert_allclose(gradient.logits[level][1:], whole.logits[level][1:], atol=1e-6)
        assert np.abs(whole.logits[level][0, ..., 1]).max() > 0


@pytest.mark.parametrize(("alpha", "kept"), [(0.5, 1), (1.5, 0)])
def test_whom_the_twin_asks(alpha, kept):
    """One point an object: where its own score counts more, the surer one before the one with the better box."""
    task = DenseBoxes(num_classes=3, nms_free=True, once_alpha=alpha)
    truth = [[((4, 4, 28, 28), 0)]]
    points = np.flatnonzero(inside(truth[0][0][0]))[:2]
    boxes = np.tile(np.concatenate([POINTS - 1, POINTS + 1], axis=1), (1, 1, 1))
    half = 12 * 0.8**0.5
    boxes[0, points] = [16 - half, 16 - half, 16 + half, 16 + half], [4, 4, 28, 28]  # IoU 0.8 and 1
    logits = np.full((1, len(POINTS), 3), -30.0)
    logits[0, points, 0] = np.log([9, 3 / 7])  # scores 0.9 and 0.3
    outputs = outputs_of(logits, coded(boxes))
    outputs = outputs.replace(once=outputs.logits)
    asked = task.encode({"box": outputs}, batch_of(objects_of(truth))).once.score[0]
    assert np.flatnonzero(asked).tolist() == [points[kept]]
    np.testing.assert_allclose(asked[points[kept]], [0.8, 1][kept], atol=1e-4)
