"""Regions cut out of an image and warped to one size.

Shape shorthand: B images, R regions (padded), H W canvas, S side of a crop.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ylosia_jax.ops.image import interpolation_matrix, resample


def warp_regions(
    image: Float[Array, "B H W C"], boxes: Float[Array, "B R 4"], size: int, *, context: int = 16
) -> Float[Array, "B R S S C"]:
    """Warps each region to a square, whatever its shape, with a rim of what is around it (R-CNN, 1311.2524, A).

    The region itself fills all but `context` pixels on every side of the crop; zeros fill what lies beyond the canvas,
    which is the mean where the image's mean was taken off. Interpolation averages where it shrinks. A region without
    area is zeros, as those of padding are.

    Args:
      boxes: xyxy in pixels of the canvas.
      size: S.

    Raises:
      ValueError: if the rim leaves nothing of the crop.
    """
    if 2 * context >= size:
        raise ValueError(f"context is {context} on every side of a crop of {size} pixels: give less than half of it")
    inner = size - 2 * context
    height, width = image.shape[1:3]

    def along(low: Array, high: Array, side: int) -> Array:
        length = high - low
        scale = inner / jnp.maximum(length, 1e-3)
        matrix = interpolation_matrix(size, side, side, scale=scale, offset=context - low * scale)
        return jnp.where(length > 0, matrix, 0)

    def one(image: Array, box: Array) -> Array:
        rows, columns = along(box[1], box[3], height), along(box[0], box[2], width)
        return resample(image, rows.astype(image.dtype), columns.astype(image.dtype))

    return jax.vmap(lambda image, boxes: jax.vmap(lambda box: one(image, box))(boxes))(image, boxes)
