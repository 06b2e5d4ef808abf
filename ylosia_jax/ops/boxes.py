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
    size = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return size[..., 0] * size[..., 1]


def clip(boxes: Float[Array, "*N 4"], height: Float[Array, "*N"] | float, width: Float[Array, "*N"] | float) -> Array:
    """Clips boxes to the image (0, 0, width, height)."""
    limit = jnp.stack(jnp.broadcast_arrays(*map(jnp.asarray, (width, height, width, height))), axis=-1)
    return jnp.clip(boxes, 0, limit.astype(boxes.dtype))


def intersection(a: Float[Array, "*#N 4"], b: Float[Array, "*#N 4"]) -> Float[Array, "*#N"]:
    """Area that two boxes share, element by element (shapes broadcast)."""
    size = jnp.maximum(jnp.minimum(a[..., 2:], b[..., 2:]) - jnp.maximum(a[..., :2], b[..., :2]), 0)
    return size[..., 0] * size[..., 1]


def iou(
    a: Float[Array, "*#N 4"], b: Float[Array, "*#N 4"], *, kind: Literal["iou", "giou", "diou", "ciou"] = "iou"
) -> Float[Array, "*#N"]:
    """Intersection over union element by element (shapes broadcast), or one of its penalised forms.

    GIoU (arXiv:1902.09630) subtracts the empty share of the hull; DIoU and CIoU (arXiv:1911.08287, section 3) subtract
    the squared centre distance over the squared hull diagonal, CIoU also the difference of aspect ratios, whose
    trade-off weight takes no gradient.

    Returns:
      IoU in [0, 1]; the penalised forms reach down to -1 (CIoU a little below).
    """
    overlap = intersection(a, b)
    union = area(a) + area(b) - overlap
    value = overlap / (union + EPS)
    if kind == "iou":
        return value
    hull = jnp.maximum(a[..., 2:], b[..., 2:]) - jnp.minimum(a[..., :2], b[..., :2])
    if kind == "giou":
        hull_area = hull[..., 0] * hull[..., 1]
        return value - (hull_area - union) / (hull_area + EPS)
    a_cxcywh, b_cxcywh = to_cxcywh(a), to_cxcywh(b)
    distance = jnp.sum((a_cxcywh[..., :2] - b_cxcywh[..., :2]) ** 2, axis=-1)
    value_d = value - distance / (jnp.sum(hull**2, axis=-1) + EPS)
    if kind == "diou":
        return value_d
    aspect_a = jnp.arctan2(a_cxcywh[..., 2], a_cxcywh[..., 3] + EPS)
    aspect_b = jnp.arctan2(b_cxcywh[..., 2], b_cxcywh[..., 3] + EPS)
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
    low = points[..., None, :, :] - boxes[..., :, None, :2]
    high = boxes[..., :, None, 2:] - points[..., None, :, :]
    return jnp.minimum(low, high).min(axis=-1) > EPS
