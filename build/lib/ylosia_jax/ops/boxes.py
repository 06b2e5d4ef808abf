"""Box geometry: conversions, areas, overlaps.

Boxes are `xyxy` with continuous corners unless the name says otherwise; every function broadcasts over leading axes.
Degenerate boxes (no width or height) have area 0 and IoU 0 with everything, and every gradient at them is finite.
Padding rows are ordinary rows here: the caller masks what it makes of them.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Keeps 0/0 away; far below the area of any box that a pixel can hold.
EPS = 1e-9


def from_cxcywh(boxes_cxcywh: Float[Array, "*N 4"]) -> Float[Array, "*N 4"]:
    """Centre, width, height to corners."""
    centre, size = jnp.split(boxes_cxcywh, 2, axis=-1)
    return jnp.concatenate([centre - size / 2, centre + size / 2], axis=-1)


def to_cxcywh(boxes: Float[Array, "*N 4"]) -> Float[Array, "*N 4"]:
    """Corners to centre, width, height."""
    low, high = jnp.split(boxes, 2, axis=-1)
    return jnp.concatenate([(low + high) / 2, high - low], axis=-1)


def area(boxes: Float[Array, "*N 4"]) -> Float[Array, "*N"]:
    """Area in square pixels; 0 where a box is inside out."""
    x0, y0, x1, y1 = _sides(boxes)
    return jnp.maximum(x1 - x0, 0) * jnp.maximum(y1 - y0, 0)


def clip(boxes: Float[Array, "*N 4"], height: Float[Array, "*N"] | float, width: Float[Array, "*N"] | float) -> Array:
    """Clips boxes to the image (0, 0, width, height)."""
    limit = jnp.stack(jnp.broadcast_arrays(*map(jnp.asarray, (width, height, width, height))), axis=-1)
    return jnp.clip(boxes, 0, limit.astype(boxes.dtype))


def intersection(a: Float[Array, "*#N 4"], b: Float[Array, "*#N 4"]) -> Float[Array, "*#N"]:
    """Area that two boxes share, element by element (shapes broadcast)."""
    ax0, ay0, ax1, ay1 = _sides(a)
    bx0, by0, bx1, by1 = _sides(b)
    width = jnp.minimum(ax1, bx1) - jnp.maximum(ax0, bx0)
    height = jnp.minimum(ay1, by1) - jnp.maximum(ay0, by0)
    return jnp.maximum(width, 0) * jnp.maximum(height, 0)


def iou(
    a: Float[Array, "*#N 4"], b: Float[Array, "*#N 4"], *, kind: Literal["iou", "giou", "diou", "ciou"] = "iou"
) -> Float[Array, "*#N"]:
    """Intersection over union element by element (shapes broadcast), or one of its penalised forms.

    GIoU (arXiv:1902.09630) subtracts the empty share of the hull; DIoU and CIoU (arXiv:1911.08287, section 3) subtract
    the squared centre distance over the squared hull diagonal, CIoU also the difference of aspect ratios, whose
    trade-off weight takes no gradient.

    Returns:
      IoU in [0, 1]; the penalised forms reach down to -1 (CIoU a little below) for boxes whose corners are in order.
    """
    overlap = intersection(a, b)
    union = area(a) + area(b) - overlap
    value = overlap / (union + EPS)
    if kind == "iou":
        return value
    ax0, ay0, ax1, ay1 = _sides(a)
    bx0, by0, bx1, by1 = _sides(b)
    width = jnp.maximum(ax1, bx1) - jnp.minimum(ax0, bx0)
    height = jnp.maximum(ay1, by1) - jnp.minimum(ay0, by0)
    if kind == "giou":
        hull_area = width * height
        return value - (hull_area - union) / (hull_area + EPS)
    distance = ((ax0 + ax1 - bx0 - bx1) ** 2 + (ay0 + ay1 - by0 - by1) ** 2) / 4
    value_d = value - distance / (width**2 + height**2 + EPS)
    if kind == "diou":
        return value_d
    # The barrier keeps XLA from computing a box's arctan anew for each box that it is paired with.
    aspect_a, aspect_b = jax.lax.optimization_barrier((_aspect(a), _aspect(b)))
    difference = 4 / math.pi**2 * (aspect_a - aspect_b) ** 2
    weight = jax.lax.stop_gradient(difference / (1 - value + difference + EPS))
    return value_d - weight * difference


def pairwise_iou(
    a: Float[Array, "*B N 4"],
    b: Float[Array, "*B M 4"],
    *,
    kind: Literal["iou", "giou", "diou", "ciou"] = "iou",
) -> Float[Array, "*B N M"]:
    """`iou` of every box of `a` with every box of `b`."""
    return iou(a[..., :, None, :], b[..., None, :, :], kind=kind)


def contains(boxes: Float[Array, "*B N 4"], points: Float[Array, "*B A 2"]) -> Bool[Array, "*B N A"]:
    """Whether each point (x, y) lies strictly inside each box."""
    x0, y0, x1, y1 = (side[..., :, None] for side in _sides(boxes))
    x, y = points[..., None, :, 0], points[..., None, :, 1]
    return (x - x0 > EPS) & (y - y0 > EPS) & (x1 - x > EPS) & (y1 - y > EPS)


def _sides(boxes: Float[Array, "*N 4"]) -> tuple[Array, Array, Array, Array]:
    """The four coordinates as arrays of their own: a last axis of 2 or 4 leaves vector units idle."""
    return boxes[..., 0], boxes[..., 1], boxes[..., 2], boxes[..., 3]


def _aspect(boxes: Float[Array, "*N 4"]) -> Float[Array, "*N"]:
    x0, y0, x1, y1 = _sides(boxes)
    return jnp.arctan2(x1 - x0, y1 - y0 + EPS)
