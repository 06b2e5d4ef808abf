import jax
import numpy as np
import pytest

from ylosia_jax.ops.assign import top_k_mask
from ylosia_jax.ops.assign_ota import FAR, assign_sim_ota
from ylosia_jax.ops.points import anchor_points

CLASSES = 3
POINTS, STRIDES = anchor_points({"p3": (6, 6), "p4": (3, 3)})  # 45 points on 48 by 48 px
FIELDS = ("index", "positive", "overlap")


def iou(a, b):
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = np.prod(np.maximum(high - low, 0))
    union = np.prod(np.maximum(a[2:] - a[:2], 0)) + np.prod(np.maximum(b[2:] - b[:2], 0)) - shared
    return shared / union if union > 0 else 0.0


def sigmoid(x):
    return 1 / (1 + np.exp(-np.float64(x)))


def assign_by_loops(logits, quality, predicted, boxes, labels, valid, radius, top_k, box_weight):
    """One image, an object and a point at a time, in float64; as the released code's comments describe it."""
    objects = [n for n in range(len(boxes)) if valid[n]]
    boxes, predicted = boxes.astype(np.float64), predicted.astype(np.float64)
    inside, near = np.zeros((len(boxes), len(POINTS)), bool), np.zeros((len(boxes), len(POINTS)), bool)
    for n in objects:
        x0, y0, x1, y1 = boxes[n]
        for a, ((x, y), stride) in enumerate(zip(POINTS, STRIDES, strict=True)):
            inside[n, a] = x0 < x < x1 and y0 < y < y1
            near[n, a] = max(abs(x - (x0 + x1) / 2), abs(y - (y0 + y1) / 2)) < radius * stride
    candidates = [a for a in range(len(POINTS)) if (inside | near)[:, a].any()]
    cost, overlap = np.full(inside.shape, np.inf), np.zeros(inside.shape)
    for n in objects:
        for a in candidates:
            score = np.sqrt(sigmoid(logits[a]) * sigmoid(quality[a]))
            wanted = np.arange(CLASSES) == labels[n]
            entropy = -np.log(np.where(wanted, score, 1 - score)).sum()
            overlap[n, a] = iou(boxes[n], predicted[a])
            cost[n, a] = entropy - box_weight * np.log(overlap[n, a] + 1e-8) + FAR * (not (inside & near)[n, a])
    claims = [[] for _ in POINTS]
    for n in objects:
        count = max(int(np.sort(overlap[n])[::-1][:top_k].sum()), 1)
        for a in sorted(candidates, key=lambda a: (cost[n, a], a))[:count]:
            claims[a].append(n)
    index = np.zeros(len(POINTS), int)
    for a, claim in enumerate(claims):
        index[a] = np.argmin(cost[:, a]) if len(claim) > 1 else claim[0] if claim else 0
    positive = np.array([bool(claim) for claim in claims])
    return index, positive, overlap[index, np.arange(len(POINTS))] * positive


def random_case(rng, objects=6, images=4):
    """Objects of 6 to 40 px; a point's prediction is near one of the objects, well or badly."""
    centre, side = rng.uniform(8, 40, (images, objects, 2)), rng.uniform(6, 40, (images, objects, 2))
    boxes = np.concatenate([centre - side / 2, centre + side / 2], axis=-1)
    near = np.take_along_axis(boxes, rng.integers(0, objects, (images, len(POINTS), 1)), axis=1)
    predicted = near + rng.normal(0, 1, near.shape) * rng.uniform(0, 5, (images, len(POINTS), 1))
    return {
        "logits": rng.normal(0, 2, (images, len(POINTS), CLASSES)).astype(np.float32),
        "quality": rng.normal(0, 2, (images, len(POINTS))).astype(np.float32),
        "predicted": predicted.astype(np.float32),
        "boxes": boxes.astype(np.float32),
        "labels": rng.integers(0, CLASSES, (images, objects)).astype(np.int32),
        "valid": rng.uniform(size=(images, objects)) < 0.8,
    }


@jax.jit
def assign(case):
    return assign_sim_ota(points=POINTS, strides=STRIDES, radius=1.0, top_k=4, **case)


def test_assignment_equals_loops():
    rng = np.random.default_rng(1)
    contested = several = 0
    for _ in range(60):
        case = random_case(rng)
        found = assign(case)
        for i in range(4):
            image = {name: value[i] for name, value in case.items()}
            index, positive, overlap = assign_by_loops(**image, radius=1.0, top_k=4, box_weight=3.0)
            np.testing.assert_array_equal(found.positive[i], positive)
            np.testing.assert_array_equal(found.index[i], index)
            np.testing.assert_allclose(found.overlap[i], overlap, atol=1e-5)
            several += int(np.bincount(index[positive], minlength=6).max() > 1)
            contested += int(len(set(index[positive])) < case["valid"][i].sum())
    assert several > 100
    assert contested > 10


def test_jit_equals_eager():
    case = random_case(np.random.default_rng(2))
    eager = assign_sim_ota(points=POINTS, strides=STRIDES, radius=1.0, top_k=4, **case)
    for name in FIELDS:
        np.testing.assert_allclose(getattr(assign(case), name), getattr(eager, name), atol=1e-6)


def test_padding_changes_nothing():
    case = random_case(np.random.default_rng(4))
    found = assign(case)
    invalid = ~case["valid"]
    noisy = case | {
        "boxes": np.where(invalid[..., None], [0, 0, 48, 48], case["boxes"]).astype(np.float32),
        "labels": np.where(invalid, 1, case["labels"]).astype(np.int32),
    }
    longer = {
        name: np.pad(value, ((0, 0), (0, 3), (0, 0))[: value.ndim]) if name in ("boxes", "labels", "valid") else value
        for name, value in case.items()
    }
    for other in (noisy, longer):
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(assign(other), name), getattr(found, name))


def test_order_of_objects_changes_nothing():
    case = random_case(np.random.default_rng(5))
    order = np.array([3, 0, 5, 1, 4, 2])
    found = assign(case)
    moved = assign(case | {name: case[name][:, order] for name in ("boxes", "labels", "valid")})
    np.testing.assert_array_equal(moved.positive, found.positive)
    np.testing.assert_array_equal(np.where(moved.positive, order[moved.index], 0), found.index)


def test_no_objects():
    case = random_case(np.random.default_rng(6))
    found = assign(case | {"valid": np.zeros((4, 6), bool)})
    assert not any(np.asarray(getattr(found, name)).any() for name in FIELDS)


@pytest.fixture
def one_object():
    """An object of 16 px in the middle; every prediction is exact and every score the same."""
    box = np.array([16, 16, 32, 32], np.float32)
    return {
        "logits": np.zeros((1, len(POINTS), CLASSES), np.float32),
        "quality": np.zeros((1, len(POINTS)), np.float32),
        "predicted": np.tile(box, (1, len(POINTS), 1)),
        "boxes": np.tile(box, (1, 6, 1)),
        "labels": np.ones((1, 6), np.int32),
        "valid": np.arange(6)[None] == 0,
    }


def test_ties_go_to_the_first_points(one_object):
    # Four cells of p3 and one of p4 have their middles in the box and near its centre: fewer than the ten candidates
    # whose boxes overlap, so that others make up the number, the first in order.
    found = assign_sim_ota(points=POINTS, strides=STRIDES, **one_object)
    middle = [14, 15, 20, 21, 36 + 4]
    rest = [a for a in range(len(POINTS)) if a not in middle]
    reach = [a for a in rest if np.abs(POINTS[a] - 24).max() < 2.5 * STRIDES[a]]
    np.testing.assert_array_equal(np.flatnonzero(found.positive[0]), sorted(middle + reach[:5]))
    np.testing.assert_allclose(found.overlap[0][found.positive[0]], 1, atol=1e-6)


def test_as_many_points_as_the_overlaps_add_up_to(one_object):
    predicted = np.zeros((1, len(POINTS), 4), np.float32)
    predicted[0, [14, 15, 20]] = [[16, 16, 32, 32], [16, 16, 32, 28], [16, 16, 32, 24]]  # IoU 1, 3/4, 1/2
    found = assign(one_object | {"predicted": predicted})
    np.testing.assert_array_equal(np.flatnonzero(found.positive[0]), [14, 15])
    np.testing.assert_allclose(found.overlap[0, [14, 15]], [1, 0.75], rtol=1e-6)


def test_without_any_overlap_one_point_answers(one_object):
    predicted = np.zeros((1, len(POINTS), 4), np.float32)
    found = assign(one_object | {"predicted": predicted})
    np.testing.assert_array_equal(np.flatnonzero(found.positive[0]), [14])
    assert found.overlap.max() == 0


def test_an_object_between_the_points_has_some_by_its_centre(one_object):
    small = np.array([21, 21, 22, 22], np.float32)
    found = assign(one_object | {"boxes": np.tile(small, (1, 6, 1))})
    assert found.positive.sum() == 1
    assert np.abs(POINTS[np.flatnonzero(found.positive[0])] - 21.5).max() < 8


def test_only_the_score_of_the_own_class_speaks_for_a_point(one_object):
    logits = np.full((1, len(POINTS), CLASSES), -4, np.float32)
    logits[0, 15, 1] = logits[0, 20, 2] = 4
    predicted = np.zeros((1, len(POINTS), 4), np.float32)
    found = assign(one_object | {"logits": logits, "predicted": predicted})
    np.testing.assert_array_equal(np.flatnonzero(found.positive[0]), [15])


def test_equal_objects_share_nothing(one_object):
    found = assign(one_object | {"valid": np.arange(6)[None] >= 2})
    np.testing.assert_array_equal(np.unique(found.index[found.positive]), [2])


def test_extreme_scores_and_degenerate_boxes_are_assigned_finitely(one_object):
    case = one_object | {
        "logits": np.where(np.arange(CLASSES) == 1, 200, -200) * np.ones((1, len(POINTS), 1), np.float32),
        "quality": np.full((1, len(POINTS)), 200, np.float32),
        "boxes": np.tile(np.array([20, 20, 20, 30], np.float32), (1, 6, 1)),
    }
    found = assign(jax.tree.map(lambda x: x.astype(np.float32) if x.dtype == np.float64 else x, case))
    assert found.positive.sum() == 1
    assert np.isfinite(found.overlap).all()


def test_no_gradient_flows():
    case = random_case(np.random.default_rng(7))

    def total(logits, quality, predicted):
        changed = case | {"logits": logits, "quality": quality, "predicted": predicted}
        return assign_sim_ota(points=POINTS, strides=STRIDES, **changed).overlap.sum()

    arguments = case["logits"], case["quality"], case["predicted"]
    value, gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))(*arguments)
    assert value > 0
    assert not any(gradient.any() for gradient in gradients)


def test_top_k_mask_of_as_many_as_each_row_asks_for():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 4, (50, 12)).astype(np.float32)
    count = rng.integers(1, 6, 50).astype(np.int32)
    found = jax.jit(top_k_mask, static_argnums=1)(values, 5, count)
    ranks = np.argsort(np.argsort(-values, axis=1, kind="stable"), axis=1)
    np.testing.assert_array_equal(found, ranks < count[:, None])
