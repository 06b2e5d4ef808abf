"""Scores of categories: how often the truth is the best answer, or among the best five."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

BEST = 5  # answers among which top5 looks


@dataclasses.dataclass(frozen=True)
class Ranked:
    """One image's truth among the answers.

    Attributes:
      label: the true class.
      place: of the true class in the order of the scores, 0 for the best.
    """

    label: int
    place: int


def order_of(scores: Float[np.ndarray, " K"]) -> Int[np.ndarray, " K"]:
    """Classes, the best first; of equal scores the first class stands first, and what is no number stands last."""
    return np.argsort(-np.where(np.isnan(scores), -np.inf, scores), kind="stable")


def rank(scores: Float[np.ndarray, " K"], label: int) -> Ranked:
    """Where the scores of all classes put the true one, see `order_of`."""
    return Ranked(label, int(np.flatnonzero(order_of(scores) == label)[0]))


def classification_metrics(found: Sequence[Ranked], classes: Sequence[str]) -> dict[str, Any]:
    """What the ranks of a whole data set say.

    Returns:
      The `classification` entry of `metrics.json`: `top1` and `top5`, the share of the images whose class is the best
      answer, or among the best five (among all, where there are fewer classes); `per_class`, top1 of the images of
      each class. None where there is no image.
    """
    labels, places = np.array([(one.label, one.place) for one in found], np.int64).reshape(-1, 2).T

    def share(right: np.ndarray) -> float | None:
        return float(right.mean()) if len(right) else None

    return {
        "top1": share(places == 0),
        "top5": share(places < BEST),
        "per_class": {name: share(places[labels == k] == 0) for k, name in enumerate(classes)},
    }
