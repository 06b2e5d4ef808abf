import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ylosia_jax.ops import heatmaps


def logit(p):
    p = np.clip(np.asarray(p, np.float64), 1e-7, 1 - 1e-6)
    return jnp.asarray(np.log(p / (1 - p)), jnp.float32)


def test_encode_heatmap_by_hand():
    places = jnp.array([[[1.5, 0.5], [0.0, 0.0]], [[3.5, 0.5], [2.0, 1.0]]])
    shown = jnp.array([[True, False], [True, True]])
    found = heatmaps.encode_heatmap(places, shown, 2, 4, spread=1.0)
    assert found.shape == (2, 4, 2)
    # Between two bumps of one kind the higher counts.
    np.testing.assert_allclose(found[0, :, 0], np.exp([-0.5, 0, -0.5, 0]), rtol=1e-6)
    np.testing.assert_allclose(found[1, :, 0], np.exp([-1, -0.5, -1, -0.5]), rtol=1e-6)
    # The point on the corner of four cells is as near to each of them.
    np.testing.assert_allclose(found[:, 1:3, 1], np.exp(-0.25), rtol=1e-6)


def test_encode_heatmap_without_points_is_empty():
    for count in (0, 3):
        found = heatmaps.encode_heatmap(jnp.ones((count, 2, 2)), jnp.zeros((count, 2), bool), 4, 5, spread=1.5)
        np.testing.assert_array_equal(found, np.zeros((4, 5, 2)))


def test_hidden_points_change_nothing():
    rng = np.random.default_rng(0)
    places, shown = rng.uniform(-3, 9, (4, 3, 2)).astype(np.float32), rng.random((4, 3)) < 0.6
    moved = np.where(shown[..., None], places, rng.uniform(0, 9, places.shape)).astype(np.float32)
    args = jnp.asarray(shown), 7, 8
    np.testing.assert_array_equal(
        heatmaps.encode_heatmap(jnp.asarray(places), *args, spread=1.0),
        heatmaps.encode_heatmap(jnp.asarray(moved), *args, spread=1.0),
    )


@pytest.mark.parametrize("spread", [1.0, 1.5, 3.0])
def test_decode_inverts_encode(spread):
    """A bump anywhere in the grid's inside is found where it was, to a hundredth of a cell."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        places = rng.uniform(1, [11, 9], (1, 5, 2)).astype(np.float32)
        heat = heatmaps.encode_heatmap(jnp.asarray(places), jnp.ones((1, 5), bool), 10, 12, spread=spread)
        found, heights = heatmaps.decode_heatmap(logit(heat), 3)
        np.testing.assert_allclose(found[:, 0], places[0], atol=0.01)
        assert heights.shape == (5, 3)
        assert (np.diff(heights, axis=1) <= 0).all()


def test_decode_by_loops():
    """Peaks are the cells that no neighbour exceeds, in falling order."""
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 3, (9, 7, 4)).astype(np.float32)
    found, heights = heatmaps.decode_heatmap(jnp.asarray(logits), 5)
    for kind in range(4):
        page = np.pad(logits[..., kind], 1, constant_values=-np.inf)
        peaks = [
            (page[i, j], j - 0.5, i - 0.5)
            for i in range(1, 10)
            for j in range(1, 8)
            if page[i, j] == page[i - 1 : i + 2, j - 1 : j + 2].max()
        ]
        peaks = sorted(peaks, reverse=True)[:5]
        np.testing.assert_allclose(heights[kind, : len(peaks)], 1 / (1 + np.exp([-p[0] for p in peaks])), rtol=1e-5)
        # The parabola's top lies in the cell.
        assert np.abs(np.asarray(found[kind, : len(peaks)]) - [p[1:] for p in peaks]).max() <= 0.5
        np.testing.assert_array_equal(heights[kind, len(peaks) :], 0)


def test_bumps_at_the_edge_and_flat_maps_are_finite():
    places = jnp.array([[[0.2, 0.1], [5.9, 3.95]]])
    heat = heatmaps.encode_heatmap(places, jnp.ones((1, 2), bool), 4, 6, spread=1.0)
    found, _ = heatmaps.decode_heatmap(logit(heat), 1)
    assert np.abs(np.asarray(found[:, 0]) - places[0]).max() <= 0.5
    found, heights = heatmaps.decode_heatmap(jnp.full((4, 6, 2), -2.0), 30)
    assert np.isfinite(found).all()
    assert np.isfinite(heights).all()


def test_nearest_peaks():
    places = jnp.array([[[2.0, 2.0], [6.0, 2.0], [9.0, 9.0]]])
    heights = jnp.array([[0.9, 0.5, 0.0]])
    near = jnp.array([[[5.0, 2.0]], [[4.0, 2.0]], [[60.0, 2.0]], [[9.0, 9.0]]])
    found = heatmaps.nearest_peaks(near, jnp.ones((4, 1)), places, heights, min_height=0.1)
    # The nearer one; at equal distances the higher; where none is near, the place itself, and none of height 0 either.
    np.testing.assert_array_equal(found[:, 0], [[6, 2], [2, 2], [60, 2], [9, 9]])
    far = heatmaps.nearest_peaks(near, jnp.full((4, 1), 100.0), places, heights, min_height=0.1)
    np.testing.assert_array_equal(far[:, 0], [[2, 2]] * 4)


def test_jit_equals_eager():
    rng = np.random.default_rng(3)
    logits = jnp.asarray(rng.normal(0, 3, (9, 7, 4)).astype(np.float32))
    near = jnp.asarray(rng.uniform(0, 9, (6, 4, 2)).astype(np.float32))

    def both(logits, near):
        return heatmaps.nearest_peaks(near, jnp.ones((6, 4)), *heatmaps.decode_heatmap(logits, 5), min_height=0.1)

    np.testing.assert_allclose(jax.jit(both)(logits, near), both(logits, near), rtol=1e-6)
