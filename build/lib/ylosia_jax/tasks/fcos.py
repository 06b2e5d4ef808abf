"""Boxes from a dense head without anchors: FCOS's targets, losses and decoding.

Shape shorthand: B images, N objects (padded), A anchor points over all levels, K classes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ylosia_jax.ops import anchors, losses, points, sources
from ylosia_jax.ops import boxes as box_ops
from ylosia_jax.ops.assign import Assignment, assign_centres
from ylosia_jax.tasks.anchored import AnchoredTargets, focal_losses, match, select_by_level
from ylosia_jax.types import Batch, DenseOutputs, Detections, Label, stride


@dataclasses.dataclass(frozen=True)
class CentreBoxes:
    """Boxes as distances from points near an object's centre, with centre-ness (FCOS, arXiv:1904.01355, 2006.09214).

    A cell's point is its upper left corner, and cells are as far apart as in `anchors.anchor_boxes`: as in torchvision.
    In the paper it is the cell's centre.

    Attributes:
      num_classes: K.
      radius: how far in strides from an object's centre points answer for it, in x and in y.
      reach: the farthest side of a point's object lies more than the one and less than the other of these, in strides;
        on the finest level it may be nearer, on the last farther.
      alpha, gamma: of the focal loss.
      score_threshold: detections at or below this are dropped.
      iou_threshold: of the class-wise suppression.
      pre_nms: candidates of each level that enter the suppression.
      max_detections: M, detections an image.
      head: whose outputs these are, and the task's name.
    """

    num_classes: int
    radius: float = 1.5
    reach: tuple[float, float] = (4.0, 8.0)
    alpha: float = 0.25
    gamma: float = 2.0
    score_threshold: float = 0.2
    iou_threshold: float = 0.6
    pre_nms: int = 1000
    max_detections: int = 100
    head: str = "box"

    @property
    def needs(self) -> frozenset[Label]:
        """The labels without which this cannot be learned."""
        return frozenset({"box"})

    def encode(
        self, outputs: Mapping[str, Any], batch: Batch, targets: Mapping[str, Any] | None = None
    ) -> AnchoredTargets:
        """Targets of every point."""
        place, strides = _points(outputs[self.head])
        reach = strides[:, None] * np.array(self.reach)
        reach[strides == strides[0], 0] = 0
        reach[strides == strides[-1], 1] = np.inf

        def assign(boxes: Array, valid: Array, crowd: Array) -> Assignment:
            return assign_centres(boxes, valid, place, strides, reach, radius=self.radius, crowd=crowd)

        return match(batch.objects, assign)

    def loss(
        self, outputs: Mapping[str, Any], targets: Mapping[str, Any], batch: Batch
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Sum of the three losses, each divided by the positives of the global batch, set by set.

        Centre-ness is a soft target, whose entropy no prediction can get below.

        Returns:
          The loss, and its parts by name.
        """
        dense: DenseOutputs = outputs[self.head]
        asked: AnchoredTargets = targets[self.head]
        place, strides = _points(dense)
        boxes = points.decode_distances(points.flatten_levels(dense.deltas), place, strides)
        box_loss = 1 - box_ops.iou(boxes, asked.boxes, kind="giou")
        centred = centreness(asked, place, strides)
        quality_loss = losses.binary_cross_entropy_loss(points.flatten_levels(_quality(dense))[..., 0], centred)

        def mean(sums: Float[Array, " B"]) -> Float[Array, ""]:
            return sources.mean_over_batch(sums, asked.positive.sum(axis=1), batch.source)

        logits = points.flatten_levels(dense.logits)
        parts = {
            "class": mean(focal_losses(logits, asked, batch, alpha=self.alpha, gamma=self.gamma)),
            "box": mean(jnp.where(asked.positive, box_loss, 0).sum(axis=1)),
            "centreness": mean(jnp.where(asked.positive, quality_loss, 0).sum(axis=1)),
        }
        return sum(parts.values(), start=jnp.zeros(())), parts

    def decode(self, outputs: Mapping[str, Any], answers: Mapping[str, Any] | None = None) -> Detections:
        """The detections of each image, best first, cut to the canvas, after class-wise suppression.

        A score is the root of the class's score times the centre-ness.
        """
        dense: DenseOutputs = outputs[self.head]
        quality = jax.nn.sigmoid(points.flatten_levels(_quality(dense)))
        return select_by_level(
            dense,
            points.decode_distances(points.flatten_levels(dense.deltas), *_points(dense)),
            jnp.sqrt(jax.nn.sigmoid(points.flatten_levels(dense.logits)) * quality),
            score_threshold=self.score_threshold,
            iou_threshold=self.iou_threshold,
            pre_nms=self.pre_nms,
            max_detections=self.max_detections,
        )


def centreness(
    targets: AnchoredTargets, place: Float[np.ndarray, "A 2"], strides: Float[np.ndarray, " A"]
) -> Float[Array, "B A"]:
    """1 at the centre of a point's object, 0 at its sides (FCOS, arXiv:1904.01355, eq. 3); 0 where there is none."""
    sides = points.encode_distances(targets.boxes, place, strides)
    pairs = jnp.stack([sides[..., :2], sides[..., 2:]])
    pairs = jnp.where(targets.positive[..., None], pairs, 1.0)
    return jnp.sqrt((pairs.min(axis=0) / pairs.max(axis=0)).prod(axis=-1)) * targets.positive


def _points(outputs: DenseOutputs) -> tuple[Float[np.ndarray, "A 2"], Float[np.ndarray, " A"]]:
    shapes = outputs.shapes
    cells = anchors.anchor_boxes(shapes, [(stride(level),) for level in shapes], (1.0,))
    return (cells[:, :2] + cells[:, 2:]) / 2, cells[:, 2] - cells[:, 0]


def _quality(outputs: DenseOutputs) -> Mapping[str, Float[Array, "B _ _ 1"]]:
    if outputs.quality is None:
        raise ValueError("centre-ness is asked for, and the head gives no quality: give it one, such as FCOSHead")
    return outputs.quality
