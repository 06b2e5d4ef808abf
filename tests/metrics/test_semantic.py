import numpy as np
import pytest

from ylosia_jax.metrics.semantic import confusion, semantic_metrics
from ylosia_jax.types import VOID


def test_confusion_counts_and_leaves_void_out():
    truth = np.array([[0, 1, 1], [2, VOID, 0]], np.uint8)
    found = np.array([[0, 1, 2], [2, 1, 1]], np.uint8)
    np.testing.assert_array_equal(confusion(truth, found, np.ones(3, bool)), [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0]])


def test_scores_by_hand():
    # Class 3 neither occurs nor is found; class 2 is found alone.
    matrix = np.array([[6, 2, 0, 0], [1, 3, 4, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    found = semantic_metrics(matrix, "abcd")
    np.testing.assert_allclose(found["per_class"]["a"], 6 / 9)
    np.testing.assert_allclose(found["per_class"]["b"], 3 / 10)
    assert found["per_class"]["c"] == 0
    assert found["per_class"]["d"] is None
    np.testing.assert_allclose(found["mIoU"], (6 / 9 + 3 / 10 + 0) / 3)
    np.testing.assert_allclose(found["dice"], (12 / 15 + 6 / 13 + 0) / 3)
    np.testing.assert_allclose(found["accuracy"], 9 / 16)


def test_nothing_to_score():
    found = semantic_metrics(np.zeros((2, 2), int), "ab")
    assert found["mIoU"] is None
    assert found["accuracy"] is None


@pytest.mark.parametrize("seed", range(10))
def test_scores_by_loops(seed):
    """A thousand data sets of two images, with void, absent classes, and classes of which an image knows nothing."""
    rng = np.random.default_rng(seed)
    for _ in range(100):
        classes = int(rng.integers(1, 6))
        same, either, both_sizes = np.zeros((3, classes))
        pages, pixels = [], 0
        for _ in range(2):
            truth, found = rng.integers(0, classes, (2, 4, 5)).astype(np.uint8)
            known = rng.random(classes) < 0.8
            known[truth] = True
            truth[rng.random(truth.shape) < 0.2] = VOID
            pages.append(confusion(truth, found, known))
            for t, f in zip(truth.ravel().tolist(), found.ravel().tolist(), strict=True):
                if t == VOID:
                    continue
                pixels += 1
                same[t] += t == f
                both_sizes[t] += 1
                either[t] += 1
                if known[f]:
                    both_sizes[f] += 1
                    either[f] += t != f
        scores = semantic_metrics(np.sum(pages, axis=0), [str(k) for k in range(classes)])
        there = either > 0
        assert [value is None for value in scores["per_class"].values()] == (~there).tolist()
        if pixels:
            np.testing.assert_allclose(scores["accuracy"], same.sum() / pixels)
            np.testing.assert_allclose(scores["mIoU"], (same[there] / either[there]).mean())
            np.testing.assert_allclose(scores["dice"], (2 * same[there] / both_sizes[there]).mean())
