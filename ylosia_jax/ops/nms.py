"""Non-maximum suppression with static shapes."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ylosia_jax.ops import boxes as box_ops


def _suppress_tile(overlaps: Bool[Array, "T T"], alive: Bool[Array, " T"]) -> Bool[Array, " T"]:
    """Greedy suppression inside one tile, where `overlaps[i, j]` says that i (better) would remove j."""

    def step(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        keep, _ = carry
        # A box stays unless a box that stays removes it. Iterated from "all stay", box i is settled after at most i
        # rounds (its betters are), so the fixed point is the greedy answer; chains are short, so few rounds are run.
        again = alive & ~jnp.any(overlaps & keep[:, None], axis=0)
        return again, jnp.any(again != keep)

    keep, _ = jax.lax.while_loop(lambda carry: carry[1], step, (alive, jnp.any(alive)))
    return keep


def nms(
    boxes: Float[Array, "N 4"],
    valid: Bool[Array, " N"],
    *,
    iou_threshold: Float[Array, ""] | float,
    groups: Int[Array, " N"] | None = None,
    tile: int = 256,
) -> Bool[Array, " N"]:
    """Greedy non-maximum suppression of boxes that are sorted by falling score.

    Works in tiles, the way of the MLPerf SSD submissions for TPU: a tile is first thinned by the survivors before it,
    then by itself. Memory is N * tile instead of N * N, shapes are static, the answer is that of the sequential loop.

    Args:
      boxes: xyxy, best first.
      valid: False marks padding: never kept, removes nothing.
      iou_threshold: a box goes when its IoU with a better, kept one is above this.
      groups: boxes remove each other only within a group (the class index for class-wise suppression); default one.
      tile: boxes a tile.

    Returns:
      Which boxes are kept.
    """
    count = boxes.shape[0]
    if count == 0:
        return valid
    tile = min(tile, count)
    padding = -count % tile
    padded = jnp.pad(boxes, ((0, padding), (0, 0)))
    group = jnp.pad(jnp.zeros(count, jnp.int32) if groups is None else groups, (0, padding))
    rank = jnp.arange(count + padding)
    if count == tile:
        close = (box_ops.pairwise_iou(boxes, boxes) > iou_threshold) & (group[:, None] == group)
        return _suppress_tile(close & jnp.triu(jnp.ones((tile, tile), bool), k=1), valid)

    def body(i: Array, keep: Bool[Array, " P"]) -> Bool[Array, " P"]:
        start = i * tile
        own = jax.lax.dynamic_slice_in_dim(padded, start, tile)
        own_group = jax.lax.dynamic_slice_in_dim(group, start, tile)
        alive = jax.lax.dynamic_slice_in_dim(keep, start, tile)
        close = (box_ops.pairwise_iou(padded, own) > iou_threshold) & (group[:, None] == own_group)
        alive &= ~jnp.any(close & (keep & (rank < start))[:, None], axis=0)
        inner = jax.lax.dynamic_slice_in_dim(close, start, tile) & jnp.triu(jnp.ones((tile, tile), bool), k=1)
        return jax.lax.dynamic_update_slice_in_dim(keep, _suppress_tile(inner, alive), start, 0)

    return jax.lax.fori_loop(0, (count + padding) // tile, body, jnp.pad(valid, (0, padding)))[:count]


def select_detections(
    boxes: Float[Array, "B A 4"] | Float[Array, "B A K 4"],
    scores: Float[Array, "B A K"],
    *,
    score_threshold: float,
    iou_threshold: float | None,
    pre_nms: int,
    max_detections: int,
    class_agnostic: bool = False,
) -> tuple[Float[Array, "B M 4"], Float[Array, "B M"], Int[Array, "B M"], Bool[Array, "B M"], Int[Array, "B M"]]:
    """The best (box, class) pairs of each image after class-wise suppression.

    Every pair of a point and a class is a candidate (COCO's AP gains from second-best classes); the `pre_nms` best of
    them above `score_threshold` are suppressed class by class.

    Args:
      boxes: one of each point for all classes, or one for each.
      iou_threshold: None for no suppression: of scores that name every object once.
      max_detections: M, rows that are returned an image.
      class_agnostic: suppress across classes.

    Returns:
      Boxes, scores, labels, valid, and the point that each comes from, best first; rows past the last detection are
      zeros and not valid.
    """
    classes = scores.shape[-1]

    def one(boxes: Array, scores: Array) -> list[Array]:
        flat = scores.reshape(-1)
        top, index = jax.lax.top_k(flat, min(pre_nms, flat.shape[0]))
        labels, points = index % classes, index // classes
        candidates = boxes[points] if boxes.ndim == 2 else boxes[points, labels]
        keep = top > score_threshold
        if iou_threshold is not None:
            groups = None if class_agnostic else labels
            keep = nms(candidates, keep, iou_threshold=iou_threshold, groups=groups)
        kept, order = jax.lax.top_k(jnp.where(keep, top, -1.0), min(max_detections, top.shape[0]))
        valid = kept > score_threshold
        found = candidates[order] * valid[:, None], kept * valid, labels[order] * valid, valid, points[order] * valid
        spare = max_detections - valid.shape[0]
        return [jnp.pad(x, [(0, spare)] + [(0, 0)] * (x.ndim - 1)) for x in found]

    found, kept, labels, valid, points = jax.vmap(one)(boxes, scores)
    return found, kept, labels, valid, points
