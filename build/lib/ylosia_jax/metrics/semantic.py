"""Scores of semantic maps, from one confusion matrix over the whole data set."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from hotcoco.semantic import SemanticEval
from jaxtyping import Bool, Int, UInt8

from ylosia_jax.types import VOID


def confusion(
    truth: Int[np.ndarray, "H W"] | UInt8[np.ndarray, "H W"],
    found: Int[np.ndarray, "H W"] | UInt8[np.ndarray, "H W"],
    known: Bool[np.ndarray, " S"],
) -> Int[np.ndarray, "S S1"]:
    """Pixels of one image by true class (rows) and class found (columns); the truth's VOID pixels count nowhere.

    Args:
      known: the classes that the image has labels for. What is found of others stands in one more column, the last: it
        is wrong, for the truth says otherwise, but speaks against no class that nobody looked for.
    """
    classes = len(known)
    counter = SemanticEval(classes + 1, ignore_index=VOID)
    counter.update(truth, np.where(known, np.arange(classes), classes).astype(np.uint8)[found])
    return counter.confusion()[:classes].astype(np.int64)


def semantic_metrics(confusion: Int[np.ndarray, "S S1"], classes: Sequence[str]) -> dict[str, Any]:
    """What the confusion matrix of a whole data set says.

    Returns:
      The `semantic` entry of `metrics.json`: `mIoU` and `dice`, means over the classes that occur in the truth or are
      found anywhere; `accuracy`, the share of pixels; `per_class`, the IoU of each class, None for one that does
      neither.
    """
    both = np.diag(confusion).astype(np.float64)
    true, found = confusion.sum(axis=1), confusion[:, : len(confusion)].sum(axis=0)
    occurs = true + found > 0
    iou = both / np.maximum(true + found - both, 1)
    dice = 2 * both / np.maximum(true + found, 1)
    return {
        "mIoU": float(iou[occurs].mean()) if occurs.any() else None,
        "accuracy": float(both.sum() / true.sum()) if true.sum() else None,
        "dice": float(dice[occurs].mean()) if occurs.any() else None,
        "per_class": {
            name: float(value) if there else None for name, value, there in zip(classes, iou, occurs, strict=True)
        },
    }
