"""Poses as points that every anchor point predicts beside its box (YOLO-Pose, arXiv:2204.06806).

Shape shorthand: B images, A anchor points over all levels, P trained points of an image, M detections, J points of a
pose.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from ylosia_jax.ops import boxes as box_ops
from ylosia_jax.ops import losses, points
from ylosia_jax.ops import poses as pose_ops
from ylosia_jax.types import Batch, Detections, Label, PoseOutputs, Poses


@struct.dataclass
class PoseTargets:
    """The anchor points whose poses are learned in this step, the best of every object first.

    Attributes:
      points: [B, P] anchor point.
      weight: [B, P] that of its box; 0 for padding, and where no point of the object is labelled.
      keypoints: [B, P, J, 3] the object's, x and y in pixels of the canvas, and v.
      area: [B, P] of the object, in square pixels.
    """

    points: Int[Array, "B P"]
    weight: Float[Array, "B P"]
    keypoints: Float[Array, "B P J 3"]
    area: Float[Array, "B P"]


@dataclasses.dataclass(frozen=True)
class DensePoses:
    """What a dense pose head's outputs mean, beside a `DenseBoxes` task.

    Attributes:
      sigmas: of the skeleton's J points, see `types.Skeleton`.
      gain: weight of the loss of places.
      visible_gain: weight of the loss of visibility.
      far: weight of the distance's logarithm within the loss of places. Object keypoint similarity is flat far from
        the truth; the logarithm still pulls there, and not more than that.
      area_share: what the mean object fills of its box: COCO measures by the object's area, training has its box.
      points: P, positives an image whose poses are trained in a step.
      boxes: name of the task whose targets and detections these poses belong to.
      head: whose outputs these are.
    """

    sigmas: tuple[float, ...]
    gain: float = 3.0
    visible_gain: float = 0.5
    far: float = 0.5
    area_share: float = 0.53
    points: int = 128
    boxes: str = "box"
    head: str = "keypoint"

    @property
    def needs(self) -> frozenset[Label]:
        """The labels without which this cannot be learned."""
        return frozenset({"box", "keypoint"})

    def encode(self, outputs: Mapping[str, Any], batch: Batch, targets: Mapping[str, Any]) -> PoseTargets:
        """Chooses the anchor points to train.

        Raises:
          ValueError: if the batch has no keypoints, or another number of them than there are sigmas.
        """
        dense, objects = targets[self.boxes], batch.objects
        keypoints = objects.keypoints
        if keypoints is None or keypoints.shape[2] != len(self.sigmas):
            found = 0 if keypoints is None else keypoints.shape[2]
            raise ValueError(f"the batch has poses of {found} points, the task has {len(self.sigmas)} sigmas")
        posed = (keypoints[..., 2] > 0).any(axis=-1) & objects.valid
        share, chosen = jax.lax.top_k(
            dense.share * jnp.take_along_axis(posed, dense.index, axis=1), min(self.points, dense.share.shape[1])
        )
        rows = jnp.take_along_axis(dense.index, chosen, axis=1)
        boxes = jnp.take_along_axis(objects.boxes, rows[..., None], axis=1)
        return PoseTargets(
            points=chosen,
            weight=jnp.take_along_axis(dense.score, chosen, axis=1) * (share > 0),
            keypoints=jnp.take_along_axis(keypoints, rows[..., None, None], axis=1),
            area=box_ops.area(boxes) * self.area_share,
        )

    def loss(
        self, outputs: Mapping[str, Any], targets: Mapping[str, Any], batch: Batch
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """1 - object keypoint similarity, point by point, and the cross entropy of being labelled at all.

        Points that are not labelled have no place to learn. All is weighted as the box's losses, and divided by the
        sum of weights over the global batch.
        """
        wanted: PoseTargets = targets[self.head]
        place, logits = self._places(outputs[self.head], wanted.points)
        labelled = (wanted.keypoints[..., 2] > 0).astype(jnp.float32)
        errors = pose_ops.point_errors(place, wanted.keypoints[..., :2], wanted.area, jnp.array(self.sigmas))
        # In units of the sigmas; sqrt at 0 has no gradient.
        distance = jnp.sqrt(errors + 1e-6) - 1e-3
        each = (1 - jnp.exp(-errors) + self.far * jnp.log1p(distance)) * labelled
        count = jnp.maximum(labelled.sum(axis=-1), 1)
        there = losses.binary_cross_entropy_loss(logits, labelled).mean(axis=-1)
        total = jnp.maximum(wanted.weight.sum(), 1)
        parts = {
            "place": self.gain * (each.sum(axis=-1) / count * wanted.weight).sum() / total,
            "visible": self.visible_gain * (there * wanted.weight).sum() / total,
        }
        return sum(parts.values(), start=jnp.zeros(())), parts

    def decode(self, outputs: Mapping[str, Any], answers: Mapping[str, Any]) -> Poses:
        """The poses of the detections, in their order."""
        detections: Detections = answers[self.boxes]
        place, logits = self._places(outputs[self.head], detections.index)
        keypoints = jnp.concatenate([place, jax.nn.sigmoid(logits)[..., None]], axis=-1)
        return Poses(keypoints=keypoints * detections.valid[..., None, None])

    def _places(
        self, outputs: PoseOutputs, chosen: Int[Array, "B P"]
    ) -> tuple[Float[Array, "B P J 2"], Float[Array, "B P J"]]:
        """Places in pixels and logits of some anchor points' poses."""
        anchors, strides = points.anchor_points({k: (x.shape[1], x.shape[2]) for k, x in outputs.points.items()})
        flat = points.flatten_levels(outputs.points)
        coded = jnp.take_along_axis(flat, chosen[..., None], axis=1)
        coded = coded.reshape(*chosen.shape, len(self.sigmas), 3)
        place = pose_ops.decode_points(coded[..., :2], jnp.asarray(anchors)[chosen], jnp.asarray(strides)[chosen])
        return place, coded[..., 2]
