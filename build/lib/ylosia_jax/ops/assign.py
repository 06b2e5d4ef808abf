"""Which prediction answers for which object.

Shape shorthand: B images, N objects (padded), A anchor points, K classes.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from ylosia_jax.ops import boxes as box_ops


@struct.dataclass
class AlignedAssignment:
    """Soft assignment of anchor points to objects.

    Attributes:
      index: [B, A] the object of each positive point; 0 elsewhere.
      positive: [B, A] whether the point answers for an object.
      score: [B, A] target of the object's class score, in [0, 1]; 0 where not positive.
      share: [B, A] alignment as a share of that of the object's best point, in [0, 1]; 0 where not positive.
    """

    index: Int[Array, "B A"]
    positive: Bool[Array, "B A"]
    score: Float[Array, "B A"]
    share: Float[Array, "B A"]


def top_k_mask(values: Float[Array, "*B A"], k: int, count: Int[Array, "*B"] | None = None) -> Bool[Array, "*B A"]:
    """Marks the k largest entries along the last axis; of equal ones the first. All of them where k exceeds A.

    Args:
      count: how many of the k each row gets, at least 1; None for all.
    """
    size = values.shape[-1]
    # Without the barrier XLA's CPU backend sees that only one column is used and sorts whole rows: 40 times slower.
    top, index = jax.lax.optimization_barrier(jax.lax.top_k(values, min(k, size)))
    if count is None:
        last, last_index = top[..., -1:], index[..., -1:]
    else:
        place = jnp.minimum(count, min(k, size))[..., None] - 1
        last, last_index = (jnp.take_along_axis(x, place, axis=-1) for x in (top, index))
    # top_k is stable, so its last entry splits equal values by position: two comparisons instead of a scatter.
    return (values > last) | ((values == last) & (jnp.arange(size) <= last_index))


def assign_aligned(
    scores: Float[Array, "B A K"],
    predicted: Float[Array, "B A 4"],
    points: Float[Array | np.ndarray, "A 2"],
    boxes: Float[Array, "B N 4"],
    labels: Int[Array, "B N"],
    valid: Bool[Array, "B N"],
    *,
    top_k: int = 10,
    alpha: float = 0.5,
    beta: float = 6.0,
) -> AlignedAssignment:
    """Task-aligned assignment (TOOD, arXiv:2108.07755, section 3.2).

    Among the points inside an object, the `top_k` with the best score**alpha * IoU**beta are its positives; a point
    that several objects claim goes to the one it overlaps most. A positive's target score is its alignment, scaled so
    that an object's best point is asked for that object's best IoU. IoU is CIoU clipped at 0.

    Boxes are xyxy in input pixels. Rows with `valid` False are padding: they claim nothing. No gradient flows: the
    result is a target.

    Args:
      scores: class scores in [0, 1].
      predicted: the predicted boxes.
      points: (x, y) of the anchor points, in input pixels.
    """
    scores, predicted = jax.lax.stop_gradient((scores, predicted))
    inside = box_ops.contains(boxes, jnp.broadcast_to(points, (boxes.shape[0], *points.shape))) & valid[..., None]
    overlap = jnp.maximum(box_ops.pairwise_iou(boxes, predicted, kind="ciou"), 0) * inside
    # A one-hot product instead of a gather by label: exact, and a matmul is what accelerators are fast at.
    one_hot = jax.nn.one_hot(labels, scores.shape[-1], dtype=scores.dtype)
    weight = jnp.einsum("bnk,bak->bna", one_hot, scores**alpha, precision=jax.lax.Precision.HIGHEST)
    alignment = weight * overlap**beta * inside

    # Where fewer than k points align, the k best hold points that do not: those answer for nothing.
    claimed = top_k_mask(alignment, top_k) & (alignment > 0)
    # Ties, which only exact duplicates reach, go to the first object.
    owner = jnp.argmax(jnp.where(claimed, overlap, -1.0), axis=1)
    owned = claimed & (owner[:, None, :] == jnp.arange(boxes.shape[1])[:, None])

    alignment, overlap = alignment * owned, overlap * owned
    best_overlap = overlap.max(axis=-1, keepdims=True)
    best_alignment = alignment.max(axis=-1, keepdims=True)
    # The least float, not EPS: beta = 6 makes the alignment of a small overlap smaller than that.
    share = alignment / jnp.maximum(best_alignment, jnp.finfo(alignment.dtype).tiny)
    # Rounding may lift a perfect overlap a little above 1, where an entropy is not defined.
    target = jnp.minimum((share * best_overlap).max(axis=1), 1)
    positive = owned.any(axis=1)
    return AlignedAssignment(
        index=jnp.where(positive, owner, 0), positive=positive, score=target, share=share.max(axis=1)
    )


@struct.dataclass
class Assignment:
    """Which object each anchor or region answers for.

    Attributes:
      index: [A] the object; 0 where there is none.
      kind: [A] 1 where it answers for an object, 0 for background, -1 where it is asked nothing.
    """

    index: Int[Array, " A"]
    kind: Int[Array, " A"]


def assign_max_iou(
    boxes: Float[Array, "N 4"],
    valid: Bool[Array, " N"],
    anchors: Float[Array | np.ndarray, "A 4"],
    *,
    positive: float,
    negative: float,
    background: float = 0.0,
    force_match: bool = False,
    bipartite: bool = False,
    crowd: Bool[Array, " N"] | None = None,
) -> Assignment:
    """Each anchor answers for the object that it overlaps most (Faster R-CNN, arXiv:1506.01497, section 3.1.2).

    Boxes and anchors are xyxy in the same pixels; rows with `valid` False are padding: nothing answers for them, and
    without any valid row all anchors are background.

    Args:
      positive: an anchor with IoU at or above this is a positive.
      negative: below this it is background; between the two it is asked nothing.
      background: but not below this, where there is an object: what is near to one teaches more (Fast R-CNN,
        arXiv:1504.08083, section 2.3).
      force_match: also every anchor that has the highest overlap that any has with some object, ties included, is a
        positive, of the object that it overlaps most itself. An object that no anchor overlaps forces nothing.
      bipartite: also the anchor that overlaps an object most, of equal ones the first, answers for that object, even
        if it overlaps another more; what two objects ask for goes to the later one (SSD, 1512.02325, section 2.2).
      crowd: groups: no anchor answers for them, and one whose centre lies in one is no background.

    Raises:
      ValueError: if `negative` exceeds `positive`.
    """
    if negative > positive:
        raise ValueError(f"negative is {negative}, above positive, which is {positive}: swap them")
    single = valid if crowd is None else valid & ~crowd
    overlap = jnp.where(single[:, None], box_ops.pairwise_iou(boxes, jnp.asarray(anchors)), -1.0)
    best = overlap.max(axis=0)
    kind = jnp.where(best >= positive, 1, jnp.where(best < negative, 0, -1))
    index = jnp.argmax(overlap, axis=0)
    most = overlap.max(axis=1, keepdims=True)
    if background:
        kind = jnp.where((best < background) & single.any(), -1, kind)
    if force_match:
        forced = ((overlap == most) & (most > 0)).any(axis=0)
        kind = jnp.where(forced, 1, kind)
    if bipartite:
        rows, columns = jnp.arange(overlap.shape[0])[:, None], jnp.arange(overlap.shape[1])
        claims = (jnp.argmax(overlap, axis=1)[:, None] == columns) & (most > 0)
        owner = jnp.where(claims, rows, -1).max(axis=0)
        kind, index = jnp.where(owner >= 0, 1, kind), jnp.where(owner >= 0, owner, index)
    if crowd is not None:
        centres = (jnp.asarray(anchors)[:, :2] + jnp.asarray(anchors)[:, 2:]) / 2
        covered = (box_ops.contains(boxes, centres) & (valid & crowd)[:, None]).any(axis=0)
        kind = jnp.where(covered & (kind == 0), -1, kind)
    return Assignment(index=jnp.where(kind == 1, index, 0), kind=kind)


def assign_centres(
    boxes: Float[Array, "N 4"],
    valid: Bool[Array, " N"],
    points: Float[Array | np.ndarray, "A 2"],
    strides: Float[Array | np.ndarray, " A"],
    reach: Float[Array | np.ndarray, "A 2"],
    *,
    radius: float = 1.5,
    crowd: Bool[Array, " N"] | None = None,
) -> Assignment:
    """Points near an object's centre answer for it, on the level that its size belongs to (FCOS, 1904.01355, 3.1, 3.2).

    A point answers for an object if it lies inside its box, less than `radius` strides from its centre in x and in y,
    and if the box's farthest side is within the point's reach; of several for the smallest, of equal ones the first.

    Boxes are xyxy in input pixels; rows with `valid` False are padding: nothing answers for them.

    Args:
      points: (x, y) in input pixels.
      strides: of the points' levels, in pixels.
      reach: pixels from a point to the farthest side of its object's box: more than the one, less than the other.
      crowd: groups: no point answers for them, and one inside of one is no background.
    """
    points, strides, reach = jnp.asarray(points), jnp.asarray(strides), jnp.asarray(reach)
    single = valid if crowd is None else valid & ~crowd
    centres = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    near = jnp.abs(points - centres).max(axis=-1) < radius * strides
    sides = jnp.concatenate([points - boxes[:, None, :2], boxes[:, None, 2:] - points], axis=-1)
    far = sides.max(axis=-1)
    match = near & (sides.min(axis=-1) > 0) & (far > reach[:, 0]) & (far < reach[:, 1]) & single[:, None]
    index = jnp.argmin(jnp.where(match, box_ops.area(boxes)[:, None], jnp.inf), axis=0)
    kind = match.any(axis=0).astype(jnp.int32)
    if crowd is not None:
        covered = (box_ops.contains(boxes, points) & (valid & crowd)[:, None]).any(axis=0)
        kind = jnp.where(covered & (kind == 0), -1, kind)
    return Assignment(index=jnp.where(kind == 1, index, 0), kind=kind)
