"""Points of poses: their coding at anchor points, and how COCO measures them.

Shape shorthand: A anchor points, J points of a pose. Points that are not labelled are ordinary rows: the caller weighs
what it makes of them by their visibility.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def encode_points(
    points: Float[Array, "*B A J 2"], anchors: Float[Array | np.ndarray, "*#B A 2"], strides: Float[Array, "*#B A"]
) -> Float[Array, "*B A J 2"]:
    """Places of a pose's points as seen from an anchor point, in strides."""
    return (points - anchors[..., None, :]) / strides[..., None, None]


def decode_points(
    offsets: Float[Array, "*B A J 2"], anchors: Float[Array | np.ndarray, "*#B A 2"], strides: Float[Array, "*#B A"]
) -> Float[Array, "*B A J 2"]:
    """Places in pixels: the inverse of `encode_points`."""
    return offsets * strides[..., None, None] + anchors[..., None, :]


def point_errors(
    points: Float[Array, "*B J 2"],
    truth: Float[Array, "*B J 2"],
    area: Float[Array, "*B"],
    sigmas: Float[Array | np.ndarray, " J"],
) -> Float[Array, "*B J"]:
    """Squared distances in units of what annotators differ by: the exponent of object keypoint similarity.

    COCO's evaluation, d**2 / (2 * area * (2 sigma)**2); the similarity of a point is exp(-error).

    Args:
      area: of the object, in square pixels; below one pixel it counts as one.
    """
    squared = ((points - truth) ** 2).sum(axis=-1)
    return squared / (2 * jnp.maximum(area, 1)[..., None] * (2 * jnp.asarray(sigmas)) ** 2)


def similarity(errors: Float[Array, "*B J"], labelled: Float[Array, "*B J"]) -> Float[Array, "*B"]:
    """Object keypoint similarity: the mean of exp(-error) over the labelled points; 0 where none is."""
    return (jnp.exp(-errors) * labelled).sum(axis=-1) / jnp.maximum(labelled.sum(axis=-1), 1)
