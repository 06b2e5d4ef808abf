import numpy as np

from ylosia_jax.metrics.semantic import confusion, semantic_metrics
from ylosia_jax.types import VOID


def test_confusion_counts_and_leaves_void_out():
    truth = np.array([[0, 1, 1], [2, VOID, 0]], np.uint8)
    found = np.array([[0, 1, 2], [2, 1, 1]], np.uint8)
    np.testing.assert_array_equal(confusion(truth, found, 3), [[1, 1, 0], [0, 1, 1], [0, 0, 1]])


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
