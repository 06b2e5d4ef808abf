"""Anchor points of a feature pyramid, and boxes coded as distances from them."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ylosia_jax.ops.sample import luck
from ylosia_jax.types import stride


def anchor_points(shapes: Mapping[str, tuple[int, int]]) -> tuple[Float[np.ndarray, "A 2"], Float[np.ndarray, " A"]]:
    """Cell centres of every level, one after the other, row by row.

    Args:
      shapes: level -> (height, width) of its feature map.

    Returns:
      Points [A, 2] as (x, y) in input pixels, and the stride [A] of each. Both are constants of the shapes.
    """
    points: list[np.ndarray] = []
    strides: list[np.ndarray] = []
    for level, (height, width) in shapes.items():
        step = stride(level)
        y, x = np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing="ij")
        points.append(np.stack([x, y], axis=-1).reshape(-1, 2) * step)
        strides.append(np.full(height * width, step))
    return np.concatenate(points).astype(np.float32), np.concatenate(strides).astype(np.float32)


def flatten_levels(maps: Mapping[str, Float[Array, "B _ _ D"]], depth: int | None = None) -> Float[Array, "B A D"]:
    """Joins the levels' maps into one axis, in the order of `anchor_points`, or of `anchors.anchor_boxes`.

    Args:
      depth: D, numbers of each anchor; None where a cell has one anchor, or none but its point.
    """
    return jnp.concatenate([x.reshape(x.shape[0], -1, depth or x.shape[-1]) for x in maps.values()], axis=1)


def choose_points(
    share: Float[Array, "B A"],
    rows: Int[Array, "B A"],
    count: int,
    *,
    index: Int[Array, " B"],
    epoch: Int[Array, " B"],
) -> tuple[Float[Array, "B P"], Int[Array, "B P"]]:
    """The anchor points that learn what would be too much for all: the best of every object first.

    If even those are too many, chance decides, anew for every image and epoch.

    Args:
      share: how good the point is among its object's, 1 for the best, 0 for background and padding.
      rows: the object of each.
      count: P at most.
      index: of the images, which chance depends on.
      epoch: of the images, which it depends on too, and on nothing else.

    Returns:
      The points' shares, and which they are.
    """
    lucky = luck(rows, index[:, None], epoch[:, None])
    _, chosen = jax.lax.top_k(jnp.where(share >= 1, 1 + lucky, share), min(count, share.shape[1]))
    return jnp.take_along_axis(share, chosen, axis=1), chosen


def encode_distances(
    boxes: Float[Array, "*B A 4"], points: Float[Array | np.ndarray, "A 2"], strides: Float[Array | np.ndarray, " A"]
) -> Float[Array, "*B A 4"]:
    """Boxes to distances (left, top, right, bottom) from the points, in strides (FCOS, arXiv:1904.01355, eq. 1).

    A distance is negative where the point lies outside the box.
    """
    distances = jnp.concatenate([points - boxes[..., :2], boxes[..., 2:] - points], axis=-1)
    return distances / strides[:, None]


def decode_distances(
    distances: Float[Array, "*B A 4"],
    points: Float[Array | np.ndarray, "A 2"],
    strides: Float[Array | np.ndarray, " A"],
) -> Float[Array, "*B A 4"]:
    """Distances (left, top, right, bottom) in strides to boxes: the inverse of `encode_distances`."""
    distances = distances * strides[:, None]
    return jnp.concatenate([points - distances[..., :2], points + distances[..., 2:]], axis=-1)


def expect_distances(logits: Float[Array, "*A 4*{bins}"], bins: int) -> Float[Array, "*A 4"]:
    """Expected distance, in strides, under a distribution over 0, 1, …, bins - 1 a side (GFL, arXiv:2006.04388).

    Args:
      logits: the four sides one after the other, `bins` logits each.
      bins: R.
    """
    probabilities = jax.nn.softmax(logits.reshape(*logits.shape[:-1], 4, bins), axis=-1)
    return jnp.sum(probabilities * jnp.arange(bins, dtype=logits.dtype), axis=-1)
