import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ylosia_jax.ops.assign import assign_aligned, top_k_mask
from ylosia_jax.ops.boxes import iou
from ylosia_jax.ops.points import anchor_points

CLASSES = 3
POINTS, _ = anchor_points({"p3": (6, 6), "p4": (3, 3)})  # 45 points on 48 by 48 px


@jax.jit
def ciou(a, b):
    """The overlaps themselves have their own twin; here they are given."""
    return jnp.maximum(iou(a[:, None], b[None], kind="ciou"), 0)


def assign_by_loops(scores, predicted, points, boxes, labels, valid, top_k, alpha, beta):
    """TOOD's section 3.2 for one image, an object and a point at a time."""
    overlap = np.asarray(ciou(boxes, predicted), np.float64)
    alignment = np.zeros(overlap.shape)
    claims = [[] for _ in points]
    for n, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        inside = [a for a, (x, y) in enumerate(points) if valid[n] and box[0] < x < box[2] and box[1] < y < box[3]]
        for a in inside:
            alignment[n, a] = float(scores[a, label]) ** alpha * overlap[n, a] ** beta
        for a in sorted(inside, key=lambda a: (-alignment[n, a], a))[:top_k]:
            if alignment[n, a] > 0:
                claims[a].append(n)
    # A point that several objects claim goes to the one it overlaps most.
    owner = [max(objects, key=lambda n: overlap[n, a]) if objects else -1 for a, objects in enumerate(claims)]
    target = np.zeros(len(points))
    for n in range(len(boxes)):
        mine = [a for a in range(len(points)) if owner[a] == n]
        for a in mine:
            best = max(alignment[n, b] for b in mine)
            target[a] = alignment[n, a] / best * max(overlap[n, b] for b in mine)
    return np.array(owner), target


def random_case(rng, objects=6, images=4):
    """Objects of 10 to 40 px; a point's prediction is near one of the objects, well or badly."""
    centre, side = rng.uniform(8, 40, (images, objects, 2)), rng.uniform(10, 40, (images, objects, 2))
    boxes = np.concatenate([centre - side / 2, centre + side / 2], axis=-1)
    near = np.take_along_axis(boxes, rng.integers(0, objects, (images, len(POINTS), 1)), axis=1)
    predicted = near + rng.normal(0, 1, near.shape) * rng.uniform(0, 5, (images, len(POINTS), 1))
    return {
        "scores": rng.uniform(0.05, 1, (images, len(POINTS), CLASSES)).astype(np.float32),
        "predicted": predicted.astype(np.float32),
        "boxes": boxes.astype(np.float32),
        "labels": rng.integers(0, CLASSES, (images, objects)).astype(np.int32),
        "valid": rng.uniform(size=(images, objects)) < 0.8,
    }


@jax.jit
def assign(case):
    return assign_aligned(points=POINTS, top_k=4, **case)


def test_top_k_mask_equals_a_stable_sort():
    rng = np.random.default_rng(0)
    # Few values, so that most are tied.
    values = rng.integers(0, 4, (50, 12)).astype(np.float32)
    # With k beyond the end, all.
    for k in (1, 5, 12, 20):
        expected = np.zeros(values.shape, bool)
        np.put_along_axis(expected, np.argsort(-values, axis=1, kind="stable")[:, :k], True, axis=1)
        np.testing.assert_array_equal(jax.jit(top_k_mask, static_argnums=1)(values, k), expected)


def test_assignment_equals_loops():
    rng = np.random.default_rng(1)
    several = 0
    for _ in range(15):
        case = random_case(rng)
        found = assign(case)
        for i in range(4):
            image = {name: value[i] for name, value in case.items()}
            owner, target = assign_by_loops(points=POINTS, top_k=4, alpha=0.5, beta=6.0, **image)
            np.testing.assert_array_equal(found.positive[i], owner >= 0)
            np.testing.assert_array_equal(found.index[i], np.maximum(owner, 0))
            np.testing.assert_allclose(found.score[i], target, atol=1e-5)
            several += len(set(owner)) > 3
    assert several > 30


def test_other_exponents_equal_loops():
    case = random_case(np.random.default_rng(2), images=1)
    found = jax.jit(lambda case: assign_aligned(points=POINTS, top_k=30, alpha=1.0, beta=2.0, **case))(case)
    image = {name: value[0] for name, value in case.items()}
    owner, target = assign_by_loops(points=POINTS, top_k=30, alpha=1.0, beta=2.0, **image)
    np.testing.assert_array_equal(found.positive[0], owner >= 0)
    np.testing.assert_array_equal(found.index[0], np.maximum(owner, 0))
    np.testing.assert_allclose(found.score[0], target, atol=1e-5)


@pytest.mark.slow
def test_jit_equals_eager():
    case = random_case(np.random.default_rng(3))
    eager, jitted = assign_aligned(points=POINTS, top_k=4, **jax.tree.map(jnp.asarray, case)), assign(case)
    np.testing.assert_array_equal(eager.index, jitted.index)
    np.testing.assert_array_equal(eager.positive, jitted.positive)
    np.testing.assert_allclose(eager.score, jitted.score, atol=1e-6)


def test_padding_changes_nothing():
    rng = np.random.default_rng(4)
    case = random_case(rng)
    found = assign(case)
    # What stands in an invalid row must not matter.
    invalid = ~case["valid"]
    noisy = case | {
        "boxes": np.where(invalid[..., None], [0, 0, 48, 48], case["boxes"]).astype(np.float32),
        "labels": np.where(invalid, 1, case["labels"]).astype(np.int32),
    }
    for name in ("index", "positive", "score"):
        np.testing.assert_array_equal(getattr(assign(noisy), name), getattr(found, name))
    longer = case | {
        "boxes": np.pad(case["boxes"], ((0, 0), (0, 3), (0, 0))),
        "labels": np.pad(case["labels"], ((0, 0), (0, 3))),
        "valid": np.pad(case["valid"], ((0, 0), (0, 3))),
    }
    padded = assign(longer)
    np.testing.assert_array_equal(padded.index, found.index)
    np.testing.assert_array_equal(padded.positive, found.positive)
    np.testing.assert_allclose(padded.score, found.score, atol=1e-6)


def test_order_of_objects_changes_nothing():
    case = random_case(np.random.default_rng(5))
    order = np.array([3, 0, 5, 1, 4, 2])
    found = assign(case)
    moved = assign(case | {name: case[name][:, order] for name in ("boxes", "labels", "valid")})
    np.testing.assert_array_equal(moved.positive, found.positive)
    np.testing.assert_array_equal(np.where(moved.positive, order[moved.index], 0), found.index)
    np.testing.assert_allclose(moved.score, found.score, atol=1e-6)


def test_no_objects():
    case = random_case(np.random.default_rng(6))
    found = assign(case | {"valid": np.zeros((4, 6), bool)})
    assert not found.positive.any()
    assert not found.index.any()
    assert not found.score.any()


@pytest.fixture(scope="module")
def one_object():
    """An object of class 1 over 4 by 4 points of p3 and 2 by 2 of p4; every prediction is exact."""
    box = np.array([0, 0, 32, 32], np.float32)
    return {
        "scores": np.full((1, len(POINTS), CLASSES), 0.5, np.float32),
        "predicted": np.tile(box, (1, len(POINTS), 1)),
        "boxes": np.tile(box, (1, 6, 1)),
        "labels": np.ones((1, 6), np.int32),
        "valid": np.arange(6)[None] == 0,
    }


def test_ties_go_to_the_first_points(one_object):
    found = assign(one_object)
    # The first four of p3's first row lie in the object, and are as good as any.
    np.testing.assert_array_equal(np.flatnonzero(found.positive[0]), [0, 1, 2, 3])
    np.testing.assert_allclose(found.score[0, :4], np.ones(4), atol=1e-5)


def test_ties_go_to_the_first_of_equal_objects(one_object):
    found = assign(one_object | {"valid": np.arange(6)[None] >= 2})
    assert found.positive.sum() == 4
    np.testing.assert_array_equal(found.index[found.positive], [2] * 4)


def test_only_the_score_of_the_own_class_counts(one_object):
    scores = np.full((1, len(POINTS), CLASSES), 1.0, np.float32)
    scores[..., 1] = 0.01
    scores[0, [7, 14, 37], 1] = [0.9, 0.4, 0.8]
    found = assign(one_object | {"scores": scores})
    np.testing.assert_array_equal(np.flatnonzero(found.positive[0]), [0, 7, 14, 37])
    # Alignments are the roots of the scores; the best is asked for the best IoU, 1.
    np.testing.assert_allclose(
        found.score[0, [0, 7, 14, 37]], np.sqrt([0.01 / 0.9, 1, 0.4 / 0.9, 0.8 / 0.9]), atol=1e-5
    )


def test_a_point_without_overlap_answers_for_nothing(one_object):
    predicted = np.zeros((1, len(POINTS), 4), np.float32)
    predicted[0, 13] = [0, 0, 32, 32]
    found = assign(one_object | {"predicted": predicted})
    np.testing.assert_array_equal(np.flatnonzero(found.positive[0]), [13])
    np.testing.assert_allclose(found.score[0, 13], 1, atol=1e-5)


def test_an_object_between_the_points_has_none(one_object):
    small = np.array([5, 5, 7, 7], np.float32)
    found = assign(one_object | {"boxes": np.tile(small, (1, 6, 1)), "predicted": np.tile(small, (1, len(POINTS), 1))})
    assert not found.positive.any()


def test_a_shared_point_goes_to_the_object_it_overlaps_most(one_object):
    boxes = np.tile(np.array([0, 0, 32, 32], np.float32), (1, 6, 1))
    boxes[0, 1] = [0, 0, 32, 20]
    predicted = np.tile(np.array([0, 0, 32, 21], np.float32), (1, len(POINTS), 1))
    found = assign(one_object | {"boxes": boxes, "predicted": predicted, "valid": np.arange(6)[None] < 2})
    np.testing.assert_array_equal(found.index[found.positive], [1] * 4)
    np.testing.assert_allclose(
        found.score[found.positive], [ciou(boxes[0, 1:2], predicted[0, :1])[0, 0]] * 4, atol=1e-5
    )


def test_no_gradient_flows():
    case = random_case(np.random.default_rng(7))

    def total(scores, predicted):
        changed = jax.tree.map(jnp.asarray, case) | {"scores": scores, "predicted": predicted}
        return assign_aligned(points=POINTS, top_k=4, **changed).score.sum()

    value, gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(case["scores"], case["predicted"])
    assert value > 0
    assert not any(gradient.any() for gradient in gradients)
