"""Pooling of regions: values by hand, gradients, precision; hundreds of cases are in the parity tests."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ylosia_jax.ops import roi, roi_heatmaps
from ylosia_jax.ops.proposals import propose

# A map whose value is its column plus ten times its row.
RAMP = (10.0 * jnp.arange(8)[:, None] + jnp.arange(8))[None, :, :, None]


def test_aligned_means_of_a_ramp_are_the_bins_centres() -> None:
    found = roi.roi_align(RAMP, jnp.array([[[2.0, 1.0, 6.0, 5.0]]]), (2, 2), scale=1.0, aligned=True)
    # Cell (i, j) has its centre at (j + 0.5, i + 0.5).
    np.testing.assert_allclose(found[0, 0, :, :, 0], [[17.5, 19.5], [37.5, 39.5]], rtol=1e-6)


def test_without_alignment_all_lies_half_a_cell_further() -> None:
    found = roi.roi_align(RAMP, jnp.array([[[2.0, 1.0, 6.0, 5.0]]]), (2, 2), scale=1.0)
    np.testing.assert_allclose(found[0, 0, :, :, 0], [[23.0, 25.0], [43.0, 45.0]], rtol=1e-6)


def test_no_region_is_narrower_than_a_cell() -> None:
    found = roi.roi_align(RAMP, jnp.array([[[3.0, 3.0, 3.0, 3.0]]]), (1, 1), scale=1.0)
    assert float(found[0, 0, 0, 0, 0]) == pytest.approx(38.5)


def test_beyond_the_map_is_nothing() -> None:
    assert not roi.roi_align(RAMP + 1, jnp.array([[[20.0, 20.0, 30.0, 30.0]]]), (2, 2), scale=1.0).any()


def test_the_gradient_spreads_what_comes_back() -> None:
    boxes = jnp.array([[[0.0, 0.0, 4.0, 4.0], [1.5, 2.0, 1.5, 7.0]]])
    gradient = jax.grad(lambda x: roi.roi_align(x, boxes, (2, 2), scale=1.0).sum())(RAMP)
    # Each of two regions of four bins hands out one a bin.
    assert float(gradient.sum()) == pytest.approx(8.0, rel=1e-5)
    assert (gradient >= 0).all()


def test_bfloat16_keeps_places() -> None:
    """Where bfloat16 steps by two cells, the matrices are still made of float32."""
    features = jnp.zeros((1, 4, 400, 1)).at[0, :, 301].set(1.0)
    boxes = jnp.array([[[301.0, 0.0, 302.0, 4.0]]])
    exact = roi.roi_align(features, boxes, (1, 1), scale=1.0)
    rounded = roi.roi_align(features.astype(jnp.bfloat16), boxes.astype(jnp.float32), (1, 1), scale=1.0)
    assert rounded.dtype == jnp.bfloat16
    assert float(rounded[0, 0, 0, 0, 0]) == pytest.approx(float(exact[0, 0, 0, 0, 0]), abs=0.01)


def test_each_region_is_looked_into_on_its_own_level() -> None:
    features = {f"p{k}": jnp.full((1, 256 >> k, 256 >> k, 1), float(k)) for k in (2, 3, 4)}
    boxes = jnp.array([[[0.0, 0, 30, 30], [0, 0, 112, 112], [0, 0, 250, 250], [0, 0, 0, 0]]])
    found = roi.multilevel_roi_align(features, boxes, (3, 3))
    np.testing.assert_allclose(found[0, :, 1, 1, 0], [2, 3, 4, 2], rtol=1e-6)


def test_pooled_maxima() -> None:
    found = roi.roi_pool(RAMP, jnp.array([[[0.0, 0.0, 3.0, 3.0], [6.0, 6.0, 30.0, 30.0]]]), (2, 2), scale=1.0)
    np.testing.assert_array_equal(found[0, 0, :, :, 0], [[11, 13], [31, 33]])
    # The second region reaches beyond the map: what is there has no maximum.
    np.testing.assert_array_equal(found[0, 1, :, :, 0], [[77, 0], [0, 0]])


def test_a_gradient_of_pooled_maxima_goes_to_them() -> None:
    boxes = jnp.array([[[0.0, 0.0, 3.0, 3.0]]])
    gradient = jax.grad(lambda x: roi.roi_pool(x, boxes, (2, 2), scale=1.0).sum())(RAMP)[0, :, :, 0]
    assert {tuple(place) for place in np.argwhere(np.array(gradient)).tolist()} == {(1, 1), (1, 3), (3, 1), (3, 3)}


def test_a_cut_mask_is_a_share_of_each_bin() -> None:
    numbers = jnp.zeros((1, 8, 8), jnp.int32).at[0, :, :4].set(3)
    cut = roi.crop_numbers(numbers, jnp.array([[3, 2]]), jnp.array([[[0.0, 0, 8, 8], [0, 0, 8, 8]]]), (2, 4))
    np.testing.assert_allclose(cut[0, 0], [[1.0, 0.75, 0, 0]] * 2, atol=1e-6)
    assert not cut[0, 1].any()


def test_cells_are_found_again() -> None:
    # Cells of 1 x 1 and of 2 x 3 px.
    boxes = jnp.array([[10.0, 20.0, 66.0, 76.0], [0.0, 0.0, 112.0, 168.0]])
    points = jnp.array([[[30.2, 40.9, 2.0]], [[27.5, 0.1, 1.0]]])
    cells, inside = roi_heatmaps.encode_cells(points, boxes, (56, 56))
    assert inside.all()
    logits = jax.nn.one_hot(cells, 56 * 56).swapaxes(1, 2).reshape(2, 56, 56, 1)
    places, _ = roi_heatmaps.decode_cells(logits, boxes, (180, 180))
    assert (jnp.abs(places - points[..., :2]) <= jnp.array([[[1.0, 1.0]], [[2.0, 3.0]]])).all()


def test_proposals() -> None:
    boxes = jnp.array([[0.0, 0, 10, 10], [0, 0, 10, 9.5], [20, 20, 30, 30], [0, 0, 10, 10], [40, 40, 40, 50]])
    chosen, valid, index = propose(
        boxes, jnp.array([1.0, 2.0, 0.5, 3.0, 9.0]), [3, 2], pre_nms=3, post_nms=5, iou_threshold=0.7
    )
    # The first goes for the second; the fourth is of another level; the last has no width.
    assert index[:3].tolist() == [3, 1, 2]
    assert valid.tolist() == [True, True, True, False, False]
    np.testing.assert_array_equal(chosen[0], boxes[3])
    assert not chosen[3:].any()


def test_only_the_best_of_a_level_are_suppressed() -> None:
    boxes = jnp.stack([20.0 * jnp.arange(4), jnp.zeros(4), 20.0 * jnp.arange(4) + 10, jnp.full(4, 10.0)], axis=1)
    _, valid, index = propose(boxes, jnp.array([0.1, 0.4, 0.3, 0.2]), [3, 1], pre_nms=2, post_nms=4, iou_threshold=0.5)
    assert index[valid].tolist() == [1, 2, 3]
