"""Panoptic maps from instances and a semantic map (Kirillov et al., arXiv:1801.00868, section 6), with static shapes.

Shape shorthand: M instances of an image (padded), h w cells of their masks' grid, H W pixels of the result, S classes.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ylosia_jax.ops import masks


def merge(
    logits: Float[Array, "M h w"],
    boxes: Float[Array, "M 4"],
    chosen: Bool[Array, " M"],
    semantic: Int[Array, "H W"],
    *,
    things: int,
    classes: int,
    min_visible: float,
    min_stuff_area: float,
) -> Int[Array, "H W"]:
    """Lays instances over each other from the best to the worst, and stuff into what remains.

    Args:
      logits: mask logits, best instance first; enlarged to pixels and cut at 0.
      boxes: xyxy in pixels; an instance has no pixel outside of its own.
      chosen: which instances take part; the others, padding among them, leave no trace.
      semantic: the class of each pixel.
      things: the number of classes that are things; the semantic map's pixels of those stay empty.
      classes: S, things included.
      min_visible: an instance that better ones leave less than this share of is left out.
      min_stuff_area: a class of stuff with fewer pixels than this is left out.

    Returns:
      0 for nothing, 1 + m for instance m, 1 + M + s for stuff of the semantic class s.

    Raises:
      ValueError: if the pixels are no whole multiple of the cells.
    """
    height, width = semantic.shape
    count, factor = logits.shape[0], height // logits.shape[1]
    if (height, width) != (factor * logits.shape[1], factor * logits.shape[2]):
        raise ValueError(f"{(height, width)} pixels are no whole multiple of the masks' {logits.shape[1:]} cells")
    logits, boxes, chosen = jnp.asarray(logits), jnp.asarray(boxes), jnp.asarray(chosen)

    def lay(i: Array, page: Array) -> Array:
        inside = masks.pixel_unshuffle(masks.inside_boxes(boxes[i], height, width), factor)
        mask = (masks.enlarged(logits[i], factor) > 0) & (inside > 0)
        free = mask & (page == 0)
        enough = free.sum() >= jnp.maximum(min_visible * mask.sum(), 1)
        return jnp.where(free & chosen[i] & enough, 1 + i, page)

    # Up to the last one chosen: of a hundred detections a few are good enough to be laid.
    last = jnp.max(jnp.where(chosen, 1 + jnp.arange(count), 0), initial=0)
    # Pixels stay sorted by their places in their cells until the last is laid: enlarging is cheap so.
    page = jnp.zeros((factor, factor, *logits.shape[1:]), jnp.int32)
    page = masks.pixel_shuffle(jax.lax.fori_loop(0, last, lay, page))

    # Class by class in one fused sum each: a pixel's own class looked up in a table would be a gather a pixel.
    labels = jnp.arange(things, classes)[:, None, None]
    left = (page == 0) & (semantic == labels)
    enough = left.sum(axis=(1, 2), keepdims=True) >= min_stuff_area
    return page + ((left & enough) * (1 + count + labels)).sum(axis=0)
