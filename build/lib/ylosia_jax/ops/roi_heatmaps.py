"""Points of poses as cells of a heatmap over a region.

Shape shorthand: R regions, J points of a pose, h w cells of a region's grid, H W pixels of the largest region.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

_CUBIC = -0.75  # the slope of PyTorch's and OpenCV's bicubic interpolation


def encode_cells(
    keypoints: Float[Array, "*R J 3"], boxes: Float[Array, "*R 4"], size: tuple[int, int]
) -> tuple[Int[Array, "*R J"], Bool[Array, "*R J"]]:
    """The cell that each point lies in (Mask R-CNN, arXiv:1703.06870, section 5).

    Args:
      keypoints: x and y in the pixels of the boxes, and v, 0 for what is not labelled.
      size: h and w.

    Returns:
      The number of the cell, row by row, and whether the point is labelled and lies in its region; the number is 0
      where not.
    """
    low, high = boxes[..., None, :2], boxes[..., None, 2:]
    cells = jnp.array([size[1], size[0]])
    place = keypoints[..., :2]
    side = jnp.maximum(high - low, 1e-6)
    # The far edges belong to the last cells.
    x, y = jnp.moveaxis(jnp.where(place == high, cells - 1, jnp.floor((place - low) * (cells / side))), -1, 0)
    inside = (x >= 0) & (y >= 0) & (x < size[1]) & (y < size[0]) & (keypoints[..., 2] > 0)
    return jnp.where(inside, y * size[1] + x, 0).astype(jnp.int32), inside


def decode_cells(
    logits: Float[Array, "R h w J"], boxes: Float[Array, "R 4"], canvas: tuple[int, int]
) -> tuple[Float[Array, "R J 2"], Float[Array, "R J"]]:
    """Where the heatmaps, enlarged bicubically to their regions' pixels, are highest.

    The inverse of `encode_cells` up to half a pixel. A region has as many pixels as its sides, rounded up, and at
    least one; what comes after them, up to the canvas, does not count.

    Args:
      boxes: xyxy in pixels, none of them larger than the canvas.
      canvas: H and W.

    Returns:
      x and y in the pixels of the boxes, and the height.
    """
    height, width = canvas
    sides = jnp.maximum(boxes[:, 2:] - boxes[:, :2], 1)

    def one(region: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        logits, low, side = region
        count = jnp.ceil(side)
        rows, columns = (
            _bicubic(cells, most, n)
            for cells, most, n in zip(logits.shape[:2], (height, width), (count[1], count[0]), strict=True)
        )
        enlarged = jnp.einsum("ph,qw,hwj->jpq", rows, columns, logits, precision=jax.lax.Precision.HIGHEST)
        counted = (jnp.arange(height) < count[1])[:, None] & (jnp.arange(width) < count[0])
        flat = jnp.where(counted, enlarged, -jnp.inf).reshape(logits.shape[-1], -1)
        best = jnp.argmax(flat, axis=1)
        pixel = jnp.stack([best % width, best // width], axis=-1)
        return (pixel + 0.5) * (side / count) + low, flat.max(axis=1)

    # One region after the other: their enlarged heatmaps would fill the memory.
    return jax.lax.map(one, (logits, boxes[:, :2], sides))


def _bicubic(cells: int, most: int, count: Float[Array, ""]) -> Float[Array, "{most} {cells}"]:
    """How `count` pixels, of `most` that are returned, are mixed of cells; edges are repeated."""
    place = (jnp.arange(most) + 0.5) * (cells / count) - 0.5
    first = jnp.floor(place)
    near = place - first

    def inner(x: Array) -> Array:
        return ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1

    def outer(x: Array) -> Array:
        return ((_CUBIC * x - 5 * _CUBIC) * x + 8 * _CUBIC) * x - 4 * _CUBIC

    weights = outer(near + 1), inner(near), inner(1 - near), outer(2 - near)
    each = [
        weight[:, None] * (jnp.clip(first + tap, 0, cells - 1)[:, None] == jnp.arange(cells))
        for tap, weight in zip((-1, 0, 1, 2), weights, strict=True)
    ]
    return sum(each[1:], start=each[0])
