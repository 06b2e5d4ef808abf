"""Boxes coded as differences from reference boxes: anchors, or regions of interest.

Shape shorthand: N boxes. Padding rows are ordinary rows; whatever they hold, the result is finite.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from ylosia_jax.ops import boxes as box_ops

Weights = tuple[float, float, float, float]

# Of the R-CNN line's second stage and of SSD, whose "variances" 0.1 and 0.2 they are the inverse of.
SECOND_STAGE: Weights = (10.0, 10.0, 5.0, 5.0)
# The longest side that a box of 16 px may be stretched to: more is noise, whose exponential would overflow.
CLIP = math.log(1000 / 16)


def encode_deltas(
    boxes: Float[Array, "*N 4"], references: Float[Array, "*#N 4"], weights: Weights = (1.0, 1.0, 1.0, 1.0)
) -> Float[Array, "*N 4"]:
    """Shift of the centre in sides of the reference, and logarithm of the ratio of sides (R-CNN, 1311.2524, C).

    Args:
      boxes: xyxy in pixels.
      references: xyxy in the same pixels.
      weights: of x, y, width and height: what each is multiplied by, the inverse of its spread.
    """
    centre, size = jnp.split(box_ops.to_cxcywh(boxes), 2, axis=-1)
    origin, unit = jnp.split(box_ops.to_cxcywh(references), 2, axis=-1)
    unit = jnp.maximum(unit, box_ops.EPS)
    deltas = [(centre - origin) / unit, jnp.log(jnp.maximum(size, box_ops.EPS) / unit)]
    return jnp.concatenate(deltas, axis=-1) * jnp.array(weights, boxes.dtype)


def decode_deltas(
    deltas: Float[Array, "*N 4"],
    references: Float[Array, "*#N 4"],
    weights: Weights = (1.0, 1.0, 1.0, 1.0),
    *,
    clip: float = CLIP,
) -> Float[Array, "*N 4"]:
    """The inverse of `encode_deltas`; a side grows by a factor of at most exp(`clip`)."""
    shift, stretch = jnp.split(deltas / jnp.array(weights, deltas.dtype), 2, axis=-1)
    origin, unit = jnp.split(box_ops.to_cxcywh(references), 2, axis=-1)
    size = jnp.exp(jnp.minimum(stretch, clip)) * unit
    return box_ops.from_cxcywh(jnp.concatenate([shift * unit + origin, size], axis=-1))
