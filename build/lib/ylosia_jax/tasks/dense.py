"""Boxes from a dense anchor-free head: task-aligned targets, their losses, and decoding.

Shape shorthand: B images, N objects (padded), A anchor points over all levels, K classes, R bins a side.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from ylosia_jax.ops import assign, losses, nms, points, sources
from ylosia_jax.ops import boxes as box_ops
from ylosia_jax.types import Batch, DenseOutputs, Detections, Label, Objects


@struct.dataclass
class DenseTargets:
    """What every anchor point is asked for.

    Attributes:
      boxes: [B, A, 4] the object's box; zeros where there is none.
      labels: [B, A] its class.
      index: [B, A] its row among the image's objects; 0 where there is none.
      share: [B, A] how well the point fits it, as a share of its best point's fit; 0 where there is none.
      score: [B, A] soft target of that class's score; the weight of the box losses too.
      ignore: [B, A] points inside a crowd box that answer for no object: asked nothing.
      once: what the twin is asked for, if there is one.
    """

    boxes: Float[Array, "B A 4"]
    labels: Int[Array, "B A"]
    index: Int[Array, "B A"]
    share: Float[Array, "B A"]
    score: Float[Array, "B A"]
    ignore: Bool[Array, "B A"]
    once: "DenseTargets | None" = None


@dataclasses.dataclass(frozen=True)
class DenseBoxes:
    """Anchor-free boxes with distributional sides (GFL, arXiv:2006.04388) and task-aligned targets (TOOD, 2108.07755).

    Attributes:
      num_classes: K.
      bins: R.
      top_k: positives an object claims at most.
      alpha: weight of the class score in the alignment.
      beta: weight of the overlap in the alignment.
      box_gain: weight of the CIoU loss.
      class_gain: weight of the class loss.
      dfl_gain: weight of the distribution loss.
      score_threshold: detections below this are dropped. Low by default: AP needs the tail, drawings cut it off.
      iou_threshold: of the class-wise suppression.
      nms_free: beside the scores of which every object claims many, learn the head's twin, of which it claims one
        (YOLOv10, arXiv:2405.14458, section 3.1); decode with the twin's alone, and without suppression.
      once_alpha: the power of a twin's score in the choice of its one point, as alpha is among the many. More, so that
        an object rather stays with the point that it has.
      pre_nms: candidates that enter the suppression.
      max_detections: M, detections an image. COCO's evaluation looks at the best 100 of each class; where hundreds of
        objects or many classes meet in an image, more than 100 in all cost time and gain a little.
      head: whose outputs these are, and the task's name.
    """

    num_classes: int
    bins: int = 16
    top_k: int = 10
    alpha: float = 0.5
    beta: float = 6.0
    box_gain: float = 7.5
    class_gain: float = 0.5
    dfl_gain: float = 1.5
    score_threshold: float = 0.001
    iou_threshold: float = 0.7
    nms_free: bool = False
    once_alpha: float = 1.5
    pre_nms: int = 1024
    max_detections: int = 100
    head: str = "box"

    @property
    def needs(self) -> frozenset[Label]:
        """The labels without which this cannot be learned."""
        return frozenset({"box"})

    def encode(
        self, outputs: Mapping[str, Any], batch: Batch, targets: Mapping[str, Any] | None = None
    ) -> DenseTargets:
        """Targets of every point, from the truth and from how well the network does now."""
        dense: DenseOutputs = outputs[self.head]
        found = self._assign(dense, dense.logits, batch.objects, self.top_k, self.alpha)
        if self.nms_free:
            once = self._assign(dense, self._once(dense), batch.objects, 1, self.once_alpha)
            found = dataclasses.replace(found, once=once)
        return jax.lax.stop_gradient(found)

    def _assign(
        self, outputs: DenseOutputs, logits: Mapping[str, Array], objects: Objects, top_k: int, alpha: float
    ) -> DenseTargets:
        place, _ = _points(outputs)
        boxes = self._decode_boxes(outputs)
        assigned = assign.assign_aligned(
            jax.nn.sigmoid(points.flatten_levels(logits)),
            boxes,
            place,
            objects.boxes,
            objects.labels,
            objects.valid & ~objects.crowd,
            top_k=top_k,
            alpha=alpha,
            beta=self.beta,
        )
        places = jnp.broadcast_to(place, (boxes.shape[0], *place.shape))
        crowded = box_ops.contains(objects.boxes, places) & (objects.valid & objects.crowd)[..., None]
        picked = jnp.take_along_axis(objects.boxes, assigned.index[..., None], axis=1)
        return DenseTargets(
            boxes=picked * assigned.positive[..., None],
            labels=jnp.take_along_axis(objects.labels, assigned.index, axis=1),
            index=assigned.index,
            share=assigned.share,
            score=assigned.score,
            ignore=crowded.any(axis=1) & ~assigned.positive,
        )

    def loss(
        self, outputs: Mapping[str, Any], targets: Mapping[str, Any], batch: Batch
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Sum of the weighted losses, each divided by the sum of target scores over the global batch, set by set.

        Soft targets have an entropy that no prediction can get below. It is taken off, which changes no gradient, so
        that perfect outputs have loss 0. Where the image's labels do not cover a class, its scores cost nothing.

        Returns:
          The loss, and its parts by name after their gains.
        """
        return self._loss(outputs[self.head], targets[self.head], batch)

    def _loss(
        self, outputs: DenseOutputs, targets: DenseTargets, batch: Batch
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        place, strides = _points(outputs)
        deltas = points.flatten_levels(outputs.deltas)
        boxes = self._decode_boxes(outputs)
        # Overlaps are scale-free, and in strides the coordinates stay small.
        box_loss = 1 - box_ops.iou(boxes / strides[:, None], targets.boxes / strides[:, None], kind="ciou")
        distances = points.encode_distances(targets.boxes, place, strides)
        dfl_loss = losses.distribution_focal_loss(deltas, distances, self.bins)
        dfl_loss = (dfl_loss - losses.distribution_entropy(distances, self.bins)).mean(axis=-1)

        def mean(each: Array) -> Array:
            return sources.mean_over_batch(each.sum(axis=1), targets.score.sum(axis=1), batch.source)

        parts = {
            "box": self.box_gain * mean(box_loss * targets.score),
            "class": self._class_loss(outputs.logits, targets, batch),
            "dfl": self.dfl_gain * mean(dfl_loss * targets.score),
        }
        if targets.once is not None:
            parts["once"] = self._class_loss(self._once(outputs), targets.once, batch)
        return sum(parts.values(), start=jnp.zeros(())), parts

    def _class_loss(self, logits: Mapping[str, Array], targets: DenseTargets, batch: Batch) -> Float[Array, ""]:
        wanted = jax.nn.one_hot(targets.labels, self.num_classes) * targets.score[..., None]
        loss = losses.binary_cross_entropy_loss(points.flatten_levels(logits), wanted) - losses.binary_entropy(wanted)
        loss = loss * ~targets.ignore[..., None]
        if batch.known is not None:
            loss = loss * batch.known[:, None]
        weight = targets.score.sum(axis=1)
        return self.class_gain * sources.mean_over_batch(loss.sum(axis=(1, 2)), weight, batch.source)

    def decode(self, outputs: Mapping[str, Any], answers: Mapping[str, Any] | None = None) -> Detections:
        """The detections of each image, best first, after class-wise suppression, of which a twin has no need."""
        dense: DenseOutputs = outputs[self.head]
        logits = self._once(dense) if self.nms_free else dense.logits
        boxes, scores, labels, valid, index = nms.select_detections(
            self._decode_boxes(dense),
            jax.nn.sigmoid(points.flatten_levels(logits)),
            score_threshold=self.score_threshold,
            iou_threshold=None if self.nms_free else self.iou_threshold,
            pre_nms=self.pre_nms,
            max_detections=self.max_detections,
        )
        return Detections(boxes=boxes, scores=scores, labels=labels, valid=valid, index=index)

    def _once(self, outputs: DenseOutputs) -> Mapping[str, Float[Array, "B _ _ K"]]:
        if outputs.once is None:
            raise ValueError(f"nms_free asks for a twin, and the head {self.head!r} has none: set its twin too")
        return outputs.once

    def _decode_boxes(self, outputs: DenseOutputs) -> Float[Array, "B A 4"]:
        place, strides = _points(outputs)
        distances = points.expect_distances(points.flatten_levels(outputs.deltas), self.bins)
        return points.decode_distances(distances, place, strides)


def _points(outputs: DenseOutputs) -> tuple[Any, Any]:
    return points.anchor_points(outputs.shapes)
