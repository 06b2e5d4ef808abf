import math

import jax
import jax.numpy as jnp
import numpy as np

from ylosia_jax.ops import boxes as box_ops

KINDS = ("iou", "giou", "diou", "ciou")


def random_boxes(rng, *shape, size=40.0):
    low = rng.uniform(0, size, (*shape, 2))
    return np.concatenate([low, low + rng.uniform(0.5, size, (*shape, 2))], axis=-1).astype(np.float32)


def aspect_by_definition(a, b):
    """CIoU's difference of aspects, v, for one pair."""
    angles = [math.atan((x2 - x1) / (y2 - y1)) for x1, y1, x2, y2 in (map(float, a), map(float, b))]
    return 4 / math.pi**2 * (angles[0] - angles[1]) ** 2


def overlap_by_definition(a, b, kind, weight=None):
    """The papers' formulas for one pair, in Python floats; CIoU's trade-off weight may be given."""
    ax1, ay1, ax2, ay2 = map(float, a)
    bx1, by1, bx2, by2 = map(float, b)
    shared = max(0.0, min(ax2, bx2) - max(ax1, bx1)) * max(0.0, min(ay2, by2) - max(ay1, by1))
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - shared
    iou = shared / union
    hull_width, hull_height = max(ax2, bx2) - min(ax1, bx1), max(ay2, by2) - min(ay1, by1)
    if kind == "iou":
        return iou
    if kind == "giou":
        hull = hull_width * hull_height
        return iou - (hull - union) / hull
    distance = ((ax1 + ax2 - bx1 - bx2) / 2) ** 2 + ((ay1 + ay2 - by1 - by2) / 2) ** 2
    diou = iou - distance / (hull_width**2 + hull_height**2)
    if kind == "diou":
        return diou
    v = aspect_by_definition(a, b)
    if weight is None:
        weight = v / (1 - iou + v) if v else 0
    return diou - weight * v


def overlaps(a, b):
    return {kind: box_ops.iou(a, b, kind=kind) for kind in KINDS}


def test_conversions_by_hand():
    boxes = jnp.array([[1.0, 2, 5, 10]], jnp.float32)
    np.testing.assert_array_equal(box_ops.to_cxcywh(boxes), [[3, 6, 4, 8]])
    np.testing.assert_array_equal(box_ops.from_cxcywh(jnp.array([[3.0, 6, 4, 8]], jnp.float32)), boxes)


def test_conversions_are_inverse():
    boxes = jnp.asarray(random_boxes(np.random.default_rng(0), 3, 50))
    np.testing.assert_allclose(box_ops.from_cxcywh(box_ops.to_cxcywh(boxes)), boxes, atol=1e-5)


def test_area_by_hand():
    boxes = jnp.array([[0, 0, 3, 4], [1, 1, 1, 9], [2, 2, 2, 2], [5, 5, 1, 1], [5, 0, 1, 9]], jnp.float32)
    np.testing.assert_array_equal(box_ops.area(boxes), [12, 0, 0, 0, 0])


def test_clip_by_hand():
    boxes = jnp.array([[-5, -5, 3, 4], [1, 2, 90, 80], [-9, -9, -1, -1], [50, 60, 70, 80]], jnp.float32)
    expected = [[0, 0, 3, 4], [1, 2, 20, 10], [0, 0, 0, 0], [20, 10, 20, 10]]
    np.testing.assert_array_equal(box_ops.clip(boxes, 10.0, 20.0), expected)


def test_clip_takes_a_size_for_each_box():
    boxes = jnp.full((3, 4), 100, jnp.float32)
    clipped = box_ops.clip(boxes, jnp.array([1, 2, 3], jnp.float32), jnp.array([4, 5, 200], jnp.float32))
    np.testing.assert_array_equal(clipped, [[4, 1, 4, 1], [5, 2, 5, 2], [100, 3, 100, 3]])


def test_intersection_by_hand():
    a = jnp.array([[0, 0, 4, 4]] * 5, jnp.float32)
    b = jnp.array([[2, 1, 6, 3], [4, 0, 8, 4], [5, 5, 6, 6], [1, 1, 2, 2], [0, 0, 4, 4]], jnp.float32)
    np.testing.assert_array_equal(box_ops.intersection(a, b), [4, 0, 0, 1, 16])


def test_overlaps_by_hand():
    a = np.array([[0, 0, 1, 1], [0, 1.5, 4, 2.5]], np.float32)
    b = np.array([[2, 0, 3, 1], [1.5, 0, 2.5, 4]], np.float32)
    found = jax.jit(overlaps)(a, b)
    # Unit squares one apart, in a hull of 3 by 1: 1/3 of it is empty, centres 2 apart, diagonal squared 10.
    # Crossed bars: one centre, IoU 1/7, 9 of the hull's 16 empty, aspects 4 and 1/4.
    v = 4 / math.pi**2 * (math.atan(4) - math.atan(1 / 4)) ** 2
    np.testing.assert_allclose(found["iou"], [0, 1 / 7], atol=1e-6)
    np.testing.assert_allclose(found["giou"], [-1 / 3, 1 / 7 - 9 / 16], atol=1e-6)
    np.testing.assert_allclose(found["diou"], [-4 / 10, 1 / 7], atol=1e-6)
    np.testing.assert_allclose(found["ciou"], [-4 / 10, 1 / 7 - v * v / (6 / 7 + v)], atol=1e-6)


def test_overlaps_equal_their_definitions():
    rng = np.random.default_rng(1)
    a, b = random_boxes(rng, 300), random_boxes(rng, 300)
    b[:100] = a[:100] + rng.normal(0, 2, (100, 4)).clip(-0.2, 0.2)
    b[100:150] = a[100:150]
    for kind, found in jax.jit(overlaps)(a, b).items():
        expected = [overlap_by_definition(x, y, kind) for x, y in zip(a, b, strict=True)]
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=kind)
        np.testing.assert_allclose(found[100:150], np.ones(50), atol=1e-5, err_msg=kind)


def test_pairwise_is_every_pair():
    rng = np.random.default_rng(3)
    a, b = random_boxes(rng, 2, 5), random_boxes(rng, 2, 7)
    jitted = jax.jit(lambda a, b: {kind: box_ops.pairwise_iou(a, b, kind=kind) for kind in KINDS})(a, b)
    for kind, found in jitted.items():
        assert found.shape == (2, 5, 7)
        expected = [[[overlap_by_definition(x, y, kind) for y in b[i]] for x in a[i]] for i in range(2)]
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=kind)
    # The last kind runs through all of the code.
    np.testing.assert_allclose(box_ops.pairwise_iou(*map(jnp.asarray, (a, b)), kind="ciou"), jitted["ciou"], atol=1e-6)


def test_pairwise_of_no_boxes():
    assert jax.eval_shape(box_ops.pairwise_iou, jnp.zeros((0, 4)), jnp.ones((3, 4))).shape == (0, 3)


DEGENERATE = {
    "both points": ([3, 3, 3, 3], [3, 3, 3, 3]),
    "zeros": ([0, 0, 0, 0], [0, 0, 0, 0]),
    "point in a box": ([3, 3, 3, 3], [0, 0, 8, 8]),
    "line in a box": ([3, 0, 3, 8], [0, 0, 8, 8]),
    "box against padding": ([10, 20, 30, 60], [0, 0, 0, 0]),
    "identical": ([10, 20, 30, 60], [10, 20, 30, 60]),
    "touching": ([0, 0, 8, 8], [8, 0, 16, 8]),
    "far apart": ([0, 0, 1, 1], [1e5, 1e5, 1e5 + 1, 1e5 + 1]),
    "huge": ([-1e6, -1e6, 1e6, 1e6], [0, 0, 1, 1]),
    "inside out": ([8, 8, 3, 3], [0, 0, 8, 8]),
}


@jax.jit
def gradients(a, b):
    """Of every kind by both boxes, pair by pair."""
    return {
        kind: jax.vmap(jax.grad(lambda a, b, kind=kind: box_ops.iou(a, b, kind=kind), argnums=(0, 1)))(a, b)
        for kind in KINDS
    }


def test_values_and_gradients_are_finite_at_degenerate_boxes():
    a, b = np.array(list(DEGENERATE.values()), np.float32).swapaxes(0, 1)
    values, slopes = jax.jit(overlaps)(a, b), gradients(a, b)
    for kind in KINDS:
        for name, value, by_a, by_b in zip(DEGENERATE, values[kind], *slopes[kind], strict=True):
            assert np.isfinite(value), (kind, name)
            assert np.isfinite(by_a).all(), (kind, name)
            assert np.isfinite(by_b).all(), (kind, name)


def test_degenerate_boxes_overlap_nothing():
    point, line, box = ([3, 3, 3, 3], [3, 0, 3, 8], [0, 0, 8, 8])
    pairs = np.array([(point, point), (point, box), (line, line), (line, box)], np.float32)
    np.testing.assert_array_equal(jax.jit(overlaps)(pairs[:, 0], pairs[:, 1])["iou"], np.zeros(4))


def test_gradients_equal_differences_of_the_definition():
    rng = np.random.default_rng(4)
    a, b = random_boxes(rng, 10), random_boxes(rng, 10)
    # Far apart: IoU gives no direction, the others do.
    a[0], b[0] = [0, 0, 10, 10], [40, 60, 50, 90]
    found = gradients(a, b)
    assert not found["iou"][0][0].any()

    for kind in KINDS:
        for i, side in np.ndindex(10, 4):
            v = aspect_by_definition(a[i], b[i])
            # CIoU's weight takes no gradient: both differences use the one in the middle.
            weight = v / (1 - overlap_by_definition(a[i], b[i], "iou") + v)
            step = 1e-4 * np.eye(4)[side]
            after, before = (overlap_by_definition(a[i] + sign * step, b[i], kind, weight) for sign in (1, -1))
            np.testing.assert_allclose(found[kind][0][i, side], (after - before) / 2e-4, atol=1e-5, err_msg=kind)


def test_contains_is_strict():
    boxes = jnp.array([[0, 0, 4, 2], [1, 1, 1, 1], [0, 0, 0, 0]], jnp.float32)
    points = jnp.array([[2, 1], [0, 1], [4, 1], [2, 0], [2, 2], [1, 1], [0, 0], [-1, 1], [5, 1], [1, 3]], jnp.float32)
    inside = [True, False, False, False, False, True, False, False, False, False]
    np.testing.assert_array_equal(box_ops.contains(boxes, points), [inside, [False] * 10, [False] * 10])


def test_contains_pairs_boxes_and_points_of_one_image():
    boxes = jnp.array([[[0, 0, 2, 2]], [[4, 4, 6, 6]]], jnp.float32)
    points = jnp.array([[[1, 1], [5, 5]], [[1, 1], [5, 5]]], jnp.float32)
    np.testing.assert_array_equal(box_ops.contains(boxes, points), [[[True, False]], [[False, True]]])
