"""Which predictions answer for which object, as the cheapest of the ways to share them out.

Shape shorthand: B images, N objects (padded), A anchor points, K classes.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from ylosia_jax.ops import boxes as box_ops
from ylosia_jax.ops.assign import top_k_mask

FAR = 1e5  # what a point costs that is not in the middle of the object's box


@struct.dataclass
class OtaAssignment:
    """Assignment of anchor points to objects.

    Attributes:
      index: [B, A] the object of each positive point; 0 elsewhere.
      positive: [B, A] whether the point answers for an object.
      overlap: [B, A] IoU of the predicted box and the object's; 0 where not positive.
    """

    index: Int[Array, "B A"]
    positive: Bool[Array, "B A"]
    overlap: Float[Array, "B A"]


def assign_sim_ota(
    logits: Float[Array, "B A K"],
    quality: Float[Array, "B A"],
    predicted: Float[Array, "B A 4"],
    points: Float[Array | np.ndarray, "A 2"],
    strides: Float[Array | np.ndarray, " A"],
    boxes: Float[Array, "B N 4"],
    labels: Int[Array, "B N"],
    valid: Bool[Array, "B N"],
    *,
    radius: float = 2.5,
    top_k: int = 10,
    box_weight: float = 3.0,
) -> OtaAssignment:
    """SimOTA (YOLOX, arXiv:2107.08430, section 2.1): each object takes the points that answer for it at least cost.

    Candidates are the points inside some object's box, or less than `radius` strides from its centre both ways. One
    costs an object the cross entropy of its class scores (the roots of class score times objectness) plus
    `box_weight` times -log IoU; and FAR where it is not both in this object's box and near its centre. An object gets
    as many points as its `top_k` best IoUs with candidates add up to, rounded down, but one at least: the cheapest; of
    equal ones the first. A point that several took goes to the object that it costs least, whether or not that took it
    (as in the released code, of whose first versions the constants are too); of equal ones to the first.

    Boxes are xyxy in input pixels. Rows with `valid` False are padding: they claim nothing. No gradient flows: the
    result is a target.

    Args:
      quality: logits of objectness.
      predicted: the predicted boxes.
      points: (x, y) of the anchor points, in input pixels.
      strides: of the level of each point, in pixels.
    """
    logits, quality, predicted = jax.lax.stop_gradient((logits, quality, predicted))
    centre = (boxes[..., None, :2] + boxes[..., None, 2:]) / 2
    near = (jnp.abs(points - centre) < radius * jnp.asarray(strides)[:, None]).all(axis=-1) & valid[..., None]
    inside = box_ops.contains(boxes, jnp.broadcast_to(points, (boxes.shape[0], *points.shape))) & valid[..., None]
    candidate = (near | inside).any(axis=1)

    overlap = box_ops.pairwise_iou(boxes, predicted) * (candidate[:, None] & valid[..., None])
    cost = _class_cost(logits, quality, labels) - box_weight * jnp.log(overlap + 1e-8) + FAR * ~(near & inside)
    # Nothing costs more than what nobody may take.
    cost = jnp.where(candidate[:, None] & valid[..., None], cost, jnp.inf)

    best, _ = jax.lax.optimization_barrier(jax.lax.top_k(overlap, min(top_k, overlap.shape[-1])))
    count = jnp.maximum(best.sum(axis=-1).astype(jnp.int32), 1)
    taken = top_k_mask(-cost, top_k, count) & jnp.isfinite(cost)
    contested = taken.sum(axis=1) > 1
    owner = jnp.where(contested, jnp.argmin(cost, axis=1), jnp.argmax(taken, axis=1))
    positive = taken.any(axis=1)
    index = jnp.where(positive, owner, 0)
    overlap = jnp.take_along_axis(overlap, index[:, None], axis=1)[:, 0]
    return OtaAssignment(index=index, positive=positive, overlap=overlap * positive)


def _class_cost(
    logits: Float[Array, "B A K"], quality: Float[Array, "B A"], labels: Int[Array, "B N"]
) -> Float[Array, "B N A"]:
    """Cross entropy of each point's class scores against each object's class, without an array of N * A * K."""
    log_score = (jax.nn.log_sigmoid(logits) + jax.nn.log_sigmoid(quality)[..., None]) / 2
    # A score that rounds to 1 is as wrong as a score of 0 is elsewhere: by 100, PyTorch's bound.
    hit, miss = -jnp.maximum(log_score, -100), -jnp.maximum(jnp.log(-jnp.expm1(log_score)), -100)
    one_hot = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    own = jnp.einsum("bnk,bak->bna", one_hot, hit - miss, precision=jax.lax.Precision.HIGHEST)
    return own + miss.sum(axis=-1)[:, None]
