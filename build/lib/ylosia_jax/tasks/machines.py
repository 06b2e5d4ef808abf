"""Linear support vector machines with hard negatives, and ridge regression, on a network's features. Host NumPy.

Shape shorthand: n rows, K classes, D features.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

HARD = -1.0001  # a negative above this margin is one that a machine could learn from
EASY = -1.2  # one below it is forgotten
FIRST = 20  # negatives of an image that the first machines see
REFIT = 2000  # new negatives of a class after which its machine is fitted again


class Machines:
    """One machine a class, against everything that is not of it (R-CNN, arXiv:1311.2524, section 2.3 and B).

    Of the negatives only those are kept that a machine could still learn from, and of a class without a machine yet
    `REFIT`; all positives are.

    Args:
      classes: K.
      c: weight of the errors; those of positives count twice.
      norm: the mean length that features are scaled to, as that of the first image's are.
    """

    def __init__(self, classes: int, *, c: float, norm: float) -> None:
        self._c, self._norm, self._scale = c, norm, 0.0
        self._positives: list[list[np.ndarray]] = [[] for _ in range(classes)]
        self._negatives: list[list[np.ndarray]] = [[] for _ in range(classes)]
        self._fresh = [0] * classes
        self._fitted: list[tuple[np.ndarray, float] | None] = [None] * classes
        self._chance = np.random.default_rng(0)

    def add(
        self, features: Float[np.ndarray, "n D"], truth: Int[np.ndarray, " n"], negative: Bool[np.ndarray, "n K"]
    ) -> None:
        """Collects an image's positives and, by chance, a few of its negatives.

        Args:
          truth: the class that a row is a positive of, -1 for none.
          negative: of which classes it is a negative.
        """
        features = self._scaled(features)
        for k in range(len(self._positives)):
            self._positives[k].append(features[truth == k])
            rows = np.flatnonzero(negative[:, k])
            self._keep(k, features[self._chance.permutation(rows)[:FIRST]])

    def mine(self, features: Float[np.ndarray, "n D"], negative: Bool[np.ndarray, "n K"]) -> None:
        """Keeps the negatives of an image that a machine takes for objects, or nearly so."""
        features = self._scaled(features)
        for k, fitted in enumerate(self._fitted):
            if fitted is None:
                continue
            kernel, bias = fitted
            hard = features[(features @ kernel + bias > HARD) & negative[:, k]]
            self._keep(k, hard)

    def refit(self) -> None:
        """Fits every machine to what is collected so far."""
        for k in range(len(self._positives)):
            self._refit(k)

    def weights(self) -> tuple[Float[np.ndarray, "D K"], Float[np.ndarray, " K"]]:
        """Kernel and bias for features as they are; a class without positives is never found, its margin is -100."""
        width = next(rows[0].shape[1] for rows in (*self._positives, *self._negatives) if rows)
        found = [fitted or (np.zeros(width), -100.0) for fitted in self._fitted]
        kernel = np.stack([kernel * self._scale for kernel, _ in found], axis=1)
        return kernel.astype(np.float32), np.array([bias for _, bias in found], np.float32)

    def _keep(self, k: int, negatives: np.ndarray) -> None:
        self._negatives[k].append(negatives)
        self._fresh[k] += len(negatives)
        if self._fresh[k] > REFIT:
            self._refit(k)

    def _scaled(self, features: np.ndarray) -> np.ndarray:
        if not self._scale and len(features):
            self._scale = self._norm / max(float(np.linalg.norm(features, axis=1).mean()), 1e-12)
        return features * self._scale

    def _refit(self, k: int) -> None:
        from sklearn.svm import LinearSVC

        # What was mined again counts once.
        positives, negatives = np.concatenate(self._positives[k]), np.unique(np.concatenate(self._negatives[k]), axis=0)
        self._fresh[k] = 0
        if not len(positives) or not len(negatives):
            self._negatives[k] = [self._chance.permutation(negatives)[:REFIT]]
            return
        # Hinge loss is liblinear's dual form; the scaling makes the bias hardly cost anything.
        machine: Any = LinearSVC(
            C=self._c,
            loss="hinge",
            intercept_scaling=10,
            class_weight={1: 2.0},
            max_iter=20_000,
            random_state=0,
        )
        machine.fit(
            np.concatenate([positives, negatives]),
            np.concatenate([np.ones(len(positives), int), np.zeros(len(negatives), int)]),
        )
        kernel, bias = machine.coef_[0], float(machine.intercept_[0])
        self._fitted[k] = kernel, bias
        # Keeps those only that could still become support vectors.
        self._negatives[k] = [negatives[negatives @ kernel + bias > EASY]]


def ridge(
    features: Float[np.ndarray, "n D"],
    wanted: Float[np.ndarray, "n 4"],
    labels: Int[np.ndarray, " n"],
    classes: int,
    *,
    weight: float,
    norm: float,
) -> tuple[Float[np.ndarray, "D K4"], Float[np.ndarray, " K4"]]:
    """A linear regression of coded boxes for each class (R-CNN, arXiv:1311.2524, C).

    Args:
      weight: of the coefficients' squares.
      norm: the mean length that features are scaled to.

    Returns:
      Kernel and bias for features as they are, a class's four numbers after the other's; zeros for one without rows.
    """
    from sklearn.linear_model import Ridge

    scale = norm / max(float(np.linalg.norm(features, axis=1).mean()), 1e-12) if len(features) else 1.0
    kernel, bias = np.zeros((features.shape[1], classes, 4)), np.zeros((classes, 4))
    for k in range(classes):
        own = labels == k
        if own.any():
            fitted: Any = Ridge(alpha=weight).fit(features[own] * scale, wanted[own])
            kernel[:, k], bias[k] = fitted.coef_.T * scale, fitted.intercept_
    flat = kernel.reshape(features.shape[1], -1), bias.reshape(-1)
    return flat[0].astype(np.float32), flat[1].astype(np.float32)
