"""Boxes of a second stage: the regions that it learns from, their classes and refined boxes.

Shape shorthand: B images, N objects (padded), R regions an image (padded), K classes, M detections.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from ylosia_jax.ops import assign, deltas, losses, nms, sample, sources
from ylosia_jax.ops import boxes as box_ops
from ylosia_jax.types import Batch, Detections, Label, RoiOutputs, Rois


@struct.dataclass
class RoiTargets:
    """What every region is asked for; padding is told by its `Rois`.

    Attributes:
      labels: [B, R] 1 + the object's class, 0 for background.
      boxes: [B, R, 4] the object's box.
    """

    labels: Int[Array, "B R"]
    boxes: Float[Array, "B R 4"]


@dataclasses.dataclass(frozen=True)
class RoiBoxes:
    """Classes and boxes of regions (Fast R-CNN, arXiv:1504.08083, section 2.3). Constants are torchvision's.

    Attributes:
      num_classes: K.
      positive: regions with at least this IoU answer for an object.
      negative: those below are background,
      background: if they overlap some object by at least this.
      samples: regions an image that learn in a step.
      positive_share: of them at most.
      weights: of the coded boxes.
      beta: below it the loss of boxes is quadratic.
      score_threshold: detections below this are dropped.
      iou_threshold: of the class-wise suppression.
      min_size: shortest side of a detection, in pixels.
      pre_nms: candidates that enter the suppression.
      max_detections: M.
      head: whose outputs these are, and the task's name.
    """

    num_classes: int
    positive: float = 0.5
    negative: float = 0.5
    background: float = 0.0
    samples: int = 512
    positive_share: float = 0.25
    weights: deltas.Weights = deltas.SECOND_STAGE
    beta: float = 1 / 9
    score_threshold: float = 0.05
    iou_threshold: float = 0.5
    min_size: float = 1e-2
    pre_nms: int = 4096
    max_detections: int = 100
    head: str = "box"

    @property
    def needs(self) -> frozenset[Label]:
        """The labels without which this cannot be learned."""
        return frozenset({"box"})

    def select(self, outputs: Mapping[str, Any], answers: Mapping[str, Any], batch: Batch | None) -> Rois:
        """In prediction the proposals; in training some of them and of the objects' own boxes, positives first."""
        proposed: Rois = outputs["proposals"]
        if batch is None:
            return proposed
        objects = batch.objects
        boxes = jnp.concatenate([proposed.boxes, objects.boxes], axis=1)
        valid = jnp.concatenate([proposed.valid, objects.valid & ~objects.crowd], axis=1)
        lucky = sample.luck(batch.index[:, None], batch.epoch[:, None], jnp.arange(boxes.shape[1])[None])

        def one(boxes: Array, valid: Array, truth: Array, real: Array, crowd: Array, lucky: Array) -> tuple[Array, ...]:
            found = assign.assign_max_iou(
                truth,
                real,
                boxes,
                positive=self.positive,
                negative=self.negative,
                background=self.background,
                crowd=crowd,
            )
            kind = jnp.where(valid, found.kind, -1)
            chosen = sample.sample_balanced(kind, lucky, count=self.samples, positive_share=self.positive_share)
            rows = found.index[chosen.index] * chosen.positive
            return boxes[chosen.index] * chosen.valid[:, None], chosen.valid, rows, chosen.positive.astype(jnp.int32)

        chosen, valid, index, kind = jax.vmap(one)(boxes, valid, objects.boxes, objects.valid, objects.crowd, lucky)
        return Rois(boxes=chosen, valid=valid, index=index, kind=kind, canvas=proposed.canvas)

    def encode(self, outputs: Mapping[str, Any], batch: Batch, targets: Mapping[str, Any]) -> RoiTargets:
        """The class and the box of each region's object."""
        rois: Rois = outputs[self.head].rois
        labels = 1 + jnp.take_along_axis(batch.objects.labels, rois.index, axis=1)
        return RoiTargets(
            labels=jnp.where(rois.kind == 1, labels, 0),
            boxes=jnp.take_along_axis(batch.objects.boxes, rois.index[..., None], axis=1),
        )

    def loss(
        self, outputs: Mapping[str, Any], targets: Mapping[str, Any], batch: Batch
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Cross entropy of the regions' classes, and the loss of the boxes of those that answer for an object.

        Both are divided by the number of regions of the global batch, set by set. Where the image's labels do not
        cover a class, background may be of it: it is left out of the softmax, but of its own objects.
        """
        found: RoiOutputs = outputs[self.head]
        wanted: RoiTargets = targets[self.head]
        rois = found.rois
        own = jax.nn.one_hot(wanted.labels, self.num_classes + 1, dtype=bool)
        logits = losses.of_known_classes(found.logits, wanted.labels, batch.known)
        label = losses.softmax_cross_entropy_loss(logits, wanted.labels) * rois.valid
        coded = deltas.encode_deltas(wanted.boxes, rois.boxes, self.weights)
        moved = (found.deltas * own[..., None]).sum(axis=2)
        box = losses.smooth_l1_loss(moved, coded, self.beta).sum(axis=-1)
        box = jnp.where(wanted.labels > 0, box, 0)
        count = rois.valid.sum(axis=1)
        parts = {
            "class": sources.mean_over_batch(label.sum(axis=1), count, batch.source),
            "box": sources.mean_over_batch(box.sum(axis=1), count, batch.source),
        }
        return parts["class"] + parts["box"], parts

    def decode(self, outputs: Mapping[str, Any], answers: Mapping[str, Any]) -> Detections:
        """The detections of each image, best first, after class-wise suppression; `index` is their region's row."""
        found: RoiOutputs = outputs[self.head]
        rois = found.rois
        # Row 0 is the background's.
        boxes = deltas.decode_deltas(found.deltas[:, :, 1:], rois.boxes[:, :, None], self.weights)
        boxes = box_ops.clip(boxes, *rois.canvas)
        scores = jax.nn.softmax(found.logits, axis=-1)[..., 1:]
        large = ((boxes[..., 2:] - boxes[..., :2]) >= self.min_size).all(axis=-1)
        boxes, scores, labels, valid, index = nms.select_detections(
            boxes,
            scores * (large & rois.valid[..., None]),
            score_threshold=self.score_threshold,
            iou_threshold=self.iou_threshold,
            pre_nms=self.pre_nms,
            max_detections=self.max_detections,
        )
        return Detections(boxes=boxes, scores=scores, labels=labels, valid=valid, index=index)
