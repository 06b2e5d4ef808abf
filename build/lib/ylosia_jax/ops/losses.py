"""Losses: arrays in, one value per element out. Tasks reduce, weight and normalise."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int


def binary_cross_entropy_loss(logits: Float[Array, "*A"], targets: Float[Array, "*A"]) -> Float[Array, "*A"]:
    """Cross entropy of sigmoid(logits) against soft targets in [0, 1]; finite for any logit, exact to its rounding."""
    # One exponential and one logarithm. Not with max(x, 0) in softplus's place: its gradient at 0 is off by 1/2.
    return jax.nn.softplus(logits) - targets * logits


def binary_entropy(targets: Float[Array, "*A"]) -> Float[Array, "*A"]:
    """The least that `binary_cross_entropy_loss` can be against soft targets: 0 at 0 and 1, log 2 at one half."""
    return jax.scipy.special.entr(targets) + jax.scipy.special.entr(1 - targets)


def softmax_divergence_loss(logits: Float[Array, "*A K"], shares: Float[Array, "*A K"]) -> Float[Array, "*A"]:
    """Cross entropy of softmax(logits) against shares, less the least that it can be.

    Shares that add up to less than 1 count for as much as they are; without any there is no loss.
    """
    known = shares.sum(axis=-1)
    floor = jax.scipy.special.entr(shares).sum(axis=-1) - jax.scipy.special.entr(known)
    return optax.softmax_cross_entropy(logits, shares) - floor


def sigmoid_focal_loss(
    logits: Float[Array, "*A"], targets: Float[Array, "*A"], *, alpha: float = 0.25, gamma: float = 2.0
) -> Float[Array, "*A"]:
    """Cross entropy that well-classified elements have little part in (RetinaNet, arXiv:1708.02002, eq. 5).

    Args:
      targets: 0 or 1.
      alpha: weight of the positives, 1 - alpha that of the others.
      gamma: the power of the error that each is weighted with.
    """
    scores = jax.nn.sigmoid(logits)
    error = scores * (1 - targets) + (1 - scores) * targets
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return weight * error**gamma * binary_cross_entropy_loss(logits, targets)


def smooth_l1_loss(found: Float[Array, "*A"], wanted: Float[Array, "*A"], beta: float = 1.0) -> Float[Array, "*A"]:
    """Absolute difference less beta / 2; below `beta` half its square over beta (Fast R-CNN, arXiv:1504.08083, eq. 3).

    Args:
      beta: 0 for the absolute difference alone.
    """
    difference = jnp.abs(found - wanted)
    if beta == 0:
        return difference
    return jnp.where(difference < beta, difference**2 / (2 * beta), difference - beta / 2)


def softmax_cross_entropy_loss(logits: Float[Array, "*A K"], labels: Int[Array, "*A"]) -> Float[Array, "*A"]:
    """Cross entropy of softmax(logits) against one class an element; a label that is not in [0, K) costs nothing."""
    # A comparison with every class instead of a gather, whose gradient would be a scatter.
    return optax.softmax_cross_entropy(logits, jax.nn.one_hot(labels, logits.shape[-1]))


def of_known_classes(
    logits: Float[Array, "B A K1"], labels: Int[Array, "B A"], known: Bool[Array, "B K"] | None
) -> Float[Array, "B A K1"]:
    """Logits of a softmax with the background first, without those classes that an image's labels do not cover.

    What is background there may be of such a class, so that it is left out of the softmax: its logit is -1e9, and gets
    no gradient. An element's own class stays, or its loss would have no end.

    Args:
      labels: the class of each element, 0 for the background.
      known: which classes the labels of each image cover; all of them without it.
    """
    if known is None:
        return logits
    own = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    covered = jnp.pad(known, ((0, 0), (1, 0)), constant_values=True)
    return jnp.where(covered[:, None] | own, logits, -1e9)


def distribution_focal_loss(
    logits: Float[Array, "*A 4*{bins}"], distances: Float[Array, "*A 4"], bins: int
) -> Float[Array, "*A 4"]:
    """Distribution focal loss (GFL, arXiv:2006.04388, eq. 6): cross entropy shared between the two nearest bins.

    Args:
      logits: the four sides one after the other, `bins` logits each.
      distances: targets in strides; clipped to what the bins can express, [0, bins - 1).
      bins: R.
    """
    log_p = jax.nn.log_softmax(logits.reshape(*logits.shape[:-1], 4, bins), axis=-1)
    return -jnp.sum(two_hot(distances, bins) * log_p, axis=-1)


def distribution_entropy(distances: Float[Array, "*A"], bins: int) -> Float[Array, "*A"]:
    """The least that `distribution_focal_loss` can be: 0 at whole distances, log 2 half way between two."""
    return jax.scipy.special.entr(two_hot(distances, bins)).sum(axis=-1)


def two_hot(values: Float[Array, "*A"], bins: int) -> Float[Array, "*A {bins}"]:
    """Weights of the two bins next to each value, whose expectation is the value; clipped to [0, bins - 1)."""
    # 0.01 below the last bin, so that a left and a right neighbour always exist.
    clipped = jnp.clip(values, 0, bins - 1 - 0.01)
    # A triangle of height 1 at the value holds both neighbours' weights at once, without a gather.
    return jnp.maximum(0, 1 - jnp.abs(jnp.arange(bins, dtype=clipped.dtype) - clipped[..., None]))
