"""Regions in which a first stage sees an object, whatever it is.

Shape shorthand: A anchors over L levels, R proposals (padded).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ylosia_jax.ops import nms


def propose(
    boxes: Float[Array, "A 4"],
    logits: Float[Array, " A"],
    counts: Sequence[int],
    *,
    pre_nms: int,
    post_nms: int,
    iou_threshold: float,
    min_size: float = 1e-3,
) -> tuple[Float[Array, "R 4"], Bool[Array, " R"], Int[Array, " R"]]:
    """The best boxes of an image after suppression, level by level (Faster R-CNN, arXiv:1506.01497, 3.3; FPN).

    Args:
      boxes: of the anchors, level by level, clipped to the image.
      logits: of each being an object.
      counts: anchors of each level.
      pre_nms: the best of each level that enter the suppression.
      post_nms: R, proposals over all levels that are returned.
      iou_threshold: a box goes when its IoU with a better, kept one of its level is above this.
      min_size: boxes with a shorter side, in pixels, are none.

    Returns:
      Boxes, valid, and the anchor that each comes from, best first; rows past the last proposal are zeros.
    """
    starts = np.cumsum([0, *counts[:-1]])
    most = min(pre_nms, max(counts))

    def best(start: int, count: int) -> tuple[Array, Array]:
        top, index = jax.lax.top_k(logits[start : start + count], min(pre_nms, count))
        spare = most - top.shape[0]
        return jnp.pad(top, (0, spare), constant_values=-jnp.inf), jnp.pad(index + start, (0, spare))

    # Levels side by side, so that they are suppressed at once: a tile of one after the other costs an accelerator time.
    found = [best(int(start), count) for start, count in zip(starts, counts, strict=True)]
    top, index = (jnp.stack(parts) for parts in zip(*found, strict=True))
    picked = boxes[index]
    sides = picked[..., 2:] - picked[..., :2]
    alive = (top > -jnp.inf) & (sides >= min_size).all(axis=-1)
    keep = jax.vmap(lambda boxes, alive: nms.nms(boxes, alive, iou_threshold=iou_threshold))(picked, alive)
    kept, order = jax.lax.top_k(jnp.where(keep, top, -jnp.inf).reshape(-1), min(post_nms, top.size))
    valid = kept > -jnp.inf
    spare = post_nms - valid.shape[0]
    rows = picked.reshape(-1, 4)[order] * valid[:, None], valid, index.reshape(-1)[order] * valid
    chosen, valid, index = (jnp.pad(x, [(0, spare)] + [(0, 0)] * (x.ndim - 1)) for x in rows)
    return chosen, valid, index
