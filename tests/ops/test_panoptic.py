import jax
import numpy as np
import pytest

from ylosia_jax.ops.panoptic import kept_by_comparison, kept_by_table, merge

SETTING = {"things": 2, "classes": 5, "min_visible": 0.5, "min_stuff_area": 4}


def twin(logits, boxes, chosen, semantic, things, classes, min_visible, min_stuff_area):
    """The same by loops; the masks' grid is that of the pixels."""
    page = np.zeros(semantic.shape, int)
    y, x = np.mgrid[: semantic.shape[0], : semantic.shape[1]] + 0.5
    for i, (logit, box) in enumerate(zip(logits, boxes, strict=True)):
        mask = (logit > 0) & (x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3])
        free = mask & (page == 0)
        if chosen[i] and free.any() and free.sum() >= min_visible * mask.sum():
            page[free] = 1 + i
    for label in range(things, classes):
        left = (page == 0) & (semantic == label)
        if left.sum() >= min_stuff_area:
            page[left] = 1 + len(logits) + label
    return page


def test_equals_loops():
    rng = np.random.default_rng(0)
    run = jax.jit(lambda *args: merge(*args, **SETTING))
    seen = set()
    for _ in range(60):
        logits = rng.normal(0.3, 1, (6, 9, 12)).astype(np.float32)
        low = rng.uniform(0, 8, (6, 2))
        boxes = np.concatenate([low, low + rng.uniform(0, 8, (6, 2))], 1).astype(np.float32)
        chosen, semantic = rng.random(6) < 0.8, rng.integers(0, 5, (9, 12)) * (rng.random((9, 12)) < 0.4)
        found = np.asarray(run(logits, boxes, chosen, semantic))
        np.testing.assert_array_equal(found, twin(logits, boxes, chosen, semantic, **SETTING))
        seen |= set(np.unique(found).tolist())
    assert {0, 1, 2, 6, 9, 10, 11} <= seen


def test_masks_are_enlarged_to_the_pixels():
    logits = np.array([[[5.0, -5.0], [5.0, -5.0]]], np.float32)
    found = merge(
        logits,
        np.array([[0, 0, 8, 8]], np.float32),
        np.array([True]),
        np.full((8, 8), 3),
        **SETTING | {"min_visible": 0},
    )
    np.testing.assert_array_equal(found, np.where(np.arange(8) < 4, 1, 5) * np.ones((8, 1), int))


def test_pixels_that_are_no_whole_multiple_of_the_cells_are_refused():
    with pytest.raises(ValueError, match="no whole multiple"):
        merge(np.zeros((1, 4, 4)), np.zeros((1, 4)), np.array([True]), np.zeros((9, 8), int), **SETTING)


def test_both_ways_of_keeping_large_stuff_agree():
    labels = np.random.default_rng(0).integers(0, 8, (9, 12)).astype(np.int32)
    areas = np.bincount(labels.ravel(), minlength=8)
    least = np.median(areas[:7])
    # The class past the last counts for nothing.
    expected = np.where((labels < 7) & (areas[labels] >= least), 1 + labels, 0)
    assert 0 < len(np.unique(expected)) < 8
    for keep in (kept_by_table, kept_by_comparison):
        np.testing.assert_array_equal(keep(jax.numpy.asarray(labels), 7, least), expected)
