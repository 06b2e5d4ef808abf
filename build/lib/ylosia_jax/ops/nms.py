"""Non-maximum suppression with static shapes."""

from collections.abc import Sequence
from typing import Literal

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


def soft_nms(
    boxes: Float[Array, "N 4"],
    scores: Float[Array, " N"],
    valid: Bool[Array, " N"],
    *,
    count: int,
    decay: Literal["linear", "gaussian"] = "gaussian",
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    groups: Int[Array, " N"] | None = None,
) -> tuple[Int[Array, " M"], Float[Array, " M"], Bool[Array, " M"]]:
    """Suppression that lowers the scores of what overlaps a better box, and removes nothing (arXiv:1704.04503, sec. 3).

    The best box is taken, the scores of the others fall by how much they overlap it, and so on.

    Args:
      boxes: xyxy, in any order.
      scores: in [0, 1].
      valid: False marks padding: never taken, lowers nothing.
      count: M, boxes that are taken.
      decay: times 1 - IoU where that is above `iou_threshold`, or times exp(-IoU**2 / `sigma`).
      groups: boxes lower each other only within a group; default one.

    Returns:
      Which boxes, their lowered scores, best first, and which rows there are; a box whose score fell to 0 is none. The
      rest are zeros.
    """
    size = boxes.shape[0]
    if size == 0:
        return jnp.zeros(count, jnp.int32), jnp.zeros(count), jnp.zeros(count, bool)

    def take(left: Float[Array, " N"], _: None) -> tuple[Array, tuple[Array, Array]]:
        index = jnp.argmax(left)
        overlap = box_ops.iou(boxes[index], boxes)
        if decay == "linear":
            factor = jnp.where(overlap > iou_threshold, 1 - overlap, 1.0)
        else:
            factor = jnp.exp(-(overlap**2) / sigma)
        if groups is not None:
            factor = jnp.where(groups == groups[index], factor, 1.0)
        # What is taken, and padding, stands at -1, where no factor brings it back.
        lowered = jnp.where((jnp.arange(size) == index) | (left < 0), -1.0, left * factor)
        return lowered, (index, left[index])

    _, (index, found) = jax.lax.scan(take, jnp.where(valid, scores, -1.0), length=count)
    kept = found > 0
    return index * kept, found * kept, kept


def top_pairs(scores: Float[Array, "A K"], count: int) -> tuple[Float[Array, " P"], Int[Array, " P"], Int[Array, " P"]]:
    """The `count` best of all pairs of a point and a class, best first: their scores, points and classes.

    All of them where there are fewer. Of equal ones the first, row by row.
    """
    points, classes = scores.shape
    # They lie in the `count` rows with the largest maxima: two short searches instead of one through all pairs.
    _, rows = jax.lax.top_k(scores.max(axis=1), min(count, points))
    rows = jnp.sort(rows)
    top, index = jax.lax.top_k(scores[rows].reshape(-1), min(count, rows.shape[0] * classes))
    return top, rows[index // classes], index % classes


Selection = tuple[Float[Array, "B M 4"], Float[Array, "B M"], Int[Array, "B M"], Bool[Array, "B M"], Int[Array, "B M"]]


def select_detections(
    boxes: Float[Array, "B A 4"] | Float[Array, "B A K 4"],
    scores: Float[Array, "B A K"],
    *,
    score_threshold: float,
    iou_threshold: float | None,
    pre_nms: int,
    max_detections: int,
    class_agnostic: bool = False,
    levels: Sequence[int] | None = None,
) -> Selection:
    """The best (box, class) pairs of each image after class-wise suppression.

    Every pair of a point and a class is a candidate (COCO's AP gains from second-best classes); the `pre_nms` best of
    them above `score_threshold` are suppressed class by class.

    Args:
      boxes: one of each point for all classes, or one for each.
      iou_threshold: None for no suppression: of scores that name every object once.
      max_detections: M, rows that are returned an image.
      class_agnostic: suppress across classes.
      levels: how many of the points, in their order, each level has, if the `pre_nms` best of each are candidates
        (RetinaNet, arXiv:1708.02002, section 4.1); None for the best of all.

    Returns:
      Boxes, scores, labels, valid, and the point that each comes from, best first; rows past the last detection are
      zeros and not valid.
    """

    def one(boxes: Array, scores: Array) -> list[Array]:
        parts: list[tuple[Array, Array, Array]] = []
        start = 0
        for size in levels or (scores.shape[0],):
            top, points, labels = top_pairs(scores[start : start + size], pre_nms)
            parts.append((top, points + start, labels))
            start += size
        top, points, labels = (jnp.concatenate(part) for part in zip(*parts, strict=True))
        if len(parts) > 1:
            top, order = jax.lax.top_k(top, top.shape[0])
            points, labels = points[order], labels[order]
        candidates = boxes[points] if boxes.ndim == 2 else boxes[points, labels]
        keep = top > score_threshold
        if iou_threshold is not None:
            groups = None if class_agnostic else labels
            keep = nms(candidates, keep, iou_threshold=iou_threshold, groups=groups)
        return _best(candidates, jnp.where(keep, top, 0.0), labels, points, max_detections)

    found, kept, labels, valid, points = jax.vmap(one)(boxes, scores)
    return found, kept, labels, valid, points


def select_of_each_class(
    boxes: Float[Array, "B A 4"],
    scores: Float[Array, "B A K"],
    *,
    score_threshold: float,
    iou_threshold: float,
    pre_nms: int,
    max_detections: int,
) -> Selection:
    """As `select_detections`, but the `pre_nms` best of each class are its candidates (SSD, arXiv:1512.02325, 3.1)."""
    classes = scores.shape[-1]

    def one_class(boxes: Array, scores: Array) -> tuple[Array, Array, Array]:
        top, points = jax.lax.top_k(scores, min(pre_nms, scores.shape[0]))
        keep = nms(boxes[points], top > score_threshold, iou_threshold=iou_threshold)
        return boxes[points], jnp.where(keep, top, 0.0), points

    def one(boxes: Array, scores: Array) -> list[Array]:
        candidates, top, points = jax.vmap(one_class, in_axes=(None, 1))(boxes, scores)
        labels = jnp.broadcast_to(jnp.arange(classes)[:, None], top.shape)
        return _best(candidates.reshape(-1, 4), top.reshape(-1), labels.reshape(-1), points.reshape(-1), max_detections)

    found, kept, labels, valid, points = jax.vmap(one)(boxes, scores)
    return found, kept, labels, valid, points


def _best(
    boxes: Float[Array, "N 4"],
    scores: Float[Array, " N"],
    labels: Int[Array, " N"],
    index: Int[Array, " N"],
    count: int,
) -> list[Array]:
    """The best of those whose score is above 0, padded to `count`, in the order of `Selection`."""
    kept, order = jax.lax.top_k(scores, min(count, scores.shape[0]))
    valid = kept > 0
    found = jnp.where(valid[:, None], boxes[order], 0), kept * valid, labels[order] * valid, valid, index[order] * valid
    return [jnp.pad(x, [(0, count - valid.shape[0])] + [(0, 0)] * (x.ndim - 1)) for x in found]
