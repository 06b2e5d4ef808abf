import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ylosia_jax.ops import points as point_ops

SHAPES = {"p3": (4, 6), "p4": (2, 3), "p5": (1, 2)}


def test_anchor_points_by_hand():
    points, strides = point_ops.anchor_points({"p3": (2, 3), "p4": (1, 2)})
    expected = [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12], [8, 8], [24, 8]]
    np.testing.assert_array_equal(points, expected)
    np.testing.assert_array_equal(strides, [8] * 6 + [16] * 2)
    assert points.dtype == strides.dtype == np.float32


def test_flatten_levels_keeps_the_order_of_the_points():
    # Each cell of each map holds its own place and stride.
    maps = {}
    for level, (height, width) in SHAPES.items():
        step = 2 ** int(level[1:])
        cells = [[((x + 0.5) * step, (y + 0.5) * step, step) for x in range(width)] for y in range(height)]
        maps[level] = jnp.asarray(cells, jnp.float32)[None].repeat(2, axis=0)
    points, strides = point_ops.anchor_points(SHAPES)
    flat = point_ops.flatten_levels(maps)
    assert flat.shape == (2, 32, 3)
    for image in flat:
        np.testing.assert_array_equal(image, np.column_stack([points, strides]))


def test_distances_by_hand():
    points, strides = point_ops.anchor_points({"p3": (1, 2)})  # (4, 4) and (12, 4)
    boxes = jnp.array([[0, 2, 20, 12], [0, 2, 8, 12]], jnp.float32)
    # In units of 8 px; the second point lies right of its box.
    expected = [[0.5, 0.25, 2, 1], [1.5, 0.25, -0.5, 1]]
    np.testing.assert_array_equal(point_ops.encode_distances(boxes, points, strides), expected)


def test_decode_inverts_encode():
    rng = np.random.default_rng(0)
    points, strides = point_ops.anchor_points(SHAPES)
    low = rng.uniform(-10, 40, (3, len(points), 2))
    boxes = jnp.asarray(np.concatenate([low, low + rng.uniform(0, 60, low.shape)], axis=-1), jnp.float32)
    there = jax.jit(point_ops.encode_distances)(boxes, points, strides)
    np.testing.assert_allclose(jax.jit(point_ops.decode_distances)(there, points, strides), boxes, atol=1e-5)
    np.testing.assert_allclose(point_ops.encode_distances(boxes, points, strides), there, atol=1e-6)


expect = jax.jit(point_ops.expect_distances, static_argnums=1)


def test_expected_distance_by_hand():
    peak = np.zeros((4, 8), np.float32)
    peak[range(4), [0, 3, 5, 7]] = 200
    np.testing.assert_allclose(expect(peak.reshape(32), 8), [0, 3, 5, 7], atol=1e-5)
    np.testing.assert_allclose(expect(np.zeros(32, np.float32), 8), [3.5] * 4, atol=1e-5)
    # A quarter on bin 2, three quarters on bin 3.
    shared = np.full((4, 8), -200, np.float32)
    shared[:, 2:4] = np.log([0.25, 0.75])
    np.testing.assert_allclose(expect(shared.reshape(32), 8), [2.75] * 4, atol=1e-5)


@pytest.mark.parametrize("bins", [2, 16])
def test_expected_distance_equals_loops(bins):
    logits = np.random.default_rng(1).normal(0, 4, (3, 5, 4 * bins)).astype(np.float32)
    found = expect(logits, bins)
    assert found.shape == (3, 5, 4)
    for i, j, side in np.ndindex(3, 5, 4):
        weights = np.exp(logits[i, j, side * bins : (side + 1) * bins].astype(np.float64))
        expected = sum(k * w for k, w in enumerate(weights)) / weights.sum()
        np.testing.assert_allclose(found[i, j, side], expected, atol=1e-5)
    np.testing.assert_allclose(point_ops.expect_distances(jnp.asarray(logits), bins), found, atol=1e-5)


def test_chance_decides_which_objects_learn_where_there_are_too_many():
    """Six objects with two points each, the better one with share 1; three are chosen, in the end each of them."""
    share = jnp.asarray([[1, 0.9] * 6 + [0.0]])
    rows = jnp.asarray([[0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 0]])

    def chosen(count, index, epoch):
        place = jnp.array([index]), jnp.array([epoch])
        found, points = point_ops.choose_points(share, rows, count, index=place[0], epoch=place[1])
        np.testing.assert_array_equal(found[0], share[0, points[0]])
        return set(np.asarray(rows[0, points[0]]).tolist()), np.asarray(found[0])

    seen = [chosen(3, 5, epoch) for epoch in range(20)]
    assert all(len(objects) == 3 and (shares == 1).all() for objects, shares in seen)
    assert set().union(*(objects for objects, _ in seen)) == {0, 1, 2, 3, 4, 5}
    assert chosen(3, 5, 7)[0] == chosen(3, 5, 7)[0]
    # With room for all, the best of every object come before any second one, and padding comes last.
    _, shares = chosen(100, 0, 0)
    np.testing.assert_array_equal(shares, np.float32([1] * 6 + [0.9] * 6 + [0]))
