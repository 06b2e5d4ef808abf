"""Boxes from a dense anchor-free head with objectness: YOLOX's targets, losses and decoding.

Shape shorthand: B images, N objects (padded), A anchor points over all levels, K classes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from ylosia_jax.ops import assign_ota, losses, nms, points, sources
from ylosia_jax.ops import boxes as box_ops
from ylosia_jax.types import Batch, DenseOutputs, Detections, Label


@struct.dataclass
class YOLOXTargets:
    """What every anchor point is asked for.

    Attributes:
      boxes: [B, A, 4] the object's box; zeros where there is none.
      labels: [B, A] its class.
      index: [B, A] its row among the image's objects; 0 where there is none.
      positive: [B, A] whether there is one.
      score: [B, A] soft target of that class's score: the IoU with the box that the network found there.
      ignore: [B, A] points inside a crowd box that answer for no object: not asked for objectness.
    """

    boxes: Float[Array, "B A 4"]
    labels: Int[Array, "B A"]
    index: Int[Array, "B A"]
    positive: Bool[Array, "B A"]
    score: Float[Array, "B A"]
    ignore: Bool[Array, "B A"]


@dataclasses.dataclass(frozen=True)
class YOLOXBoxes:
    """Anchor-free boxes with objectness, and targets by SimOTA (YOLOX, arXiv:2107.08430, section 2.1).

    Attributes:
      num_classes: K.
      radius: of the region round an object's centre that its points are sought in, in strides.
      top_k: positives an object claims at most.
      cost_weight: of the boxes in the cost of a point, see `assign_ota.assign_sim_ota`.
      box_gain: weight of the IoU loss.
      l1_epoch: images of this and later passes over the data, counted from 0, also cost the L1 distance of the encoded
        boxes, as in the last epochs of the paper's runs; None for never.
      score_threshold: detections below this are dropped; this and the next are the released code's.
      iou_threshold: of the class-wise suppression.
      pre_nms: candidates that enter the suppression.
      max_detections: M, detections an image. The released code keeps all; COCO's evaluation looks at 100 of each class.
      head: whose outputs these are, and the task's name.
    """

    num_classes: int
    radius: float = 2.5
    top_k: int = 10
    cost_weight: float = 3.0
    box_gain: float = 5.0
    l1_epoch: int | None = None
    score_threshold: float = 0.01
    iou_threshold: float = 0.65
    pre_nms: int = 1024
    max_detections: int = 300
    head: str = "box"

    @property
    def needs(self) -> frozenset[Label]:
        """The labels without which this cannot be learned."""
        return frozenset({"box"})

    def encode(
        self, outputs: Mapping[str, Any], batch: Batch, targets: Mapping[str, Any] | None = None
    ) -> YOLOXTargets:
        """Targets of every point, from the truth and from how well the network does now."""
        dense: DenseOutputs = outputs[self.head]
        place, strides = _points(dense)
        objects = batch.objects
        assigned = assign_ota.assign_sim_ota(
            points.flatten_levels(dense.logits),
            points.flatten_levels(_quality(dense))[..., 0],
            decode_boxes(points.flatten_levels(dense.deltas), place, strides),
            place,
            strides,
            objects.boxes,
            objects.labels,
            objects.valid & ~objects.crowd,
            radius=self.radius,
            top_k=self.top_k,
            box_weight=self.cost_weight,
        )
        places = jnp.broadcast_to(place, (objects.boxes.shape[0], *place.shape))
        crowded = box_ops.contains(objects.boxes, places) & (objects.valid & objects.crowd)[..., None]
        picked = jnp.take_along_axis(objects.boxes, assigned.index[..., None], axis=1)
        return YOLOXTargets(
            boxes=picked * assigned.positive[..., None],
            labels=jnp.take_along_axis(objects.labels, assigned.index, axis=1) * assigned.positive,
            index=assigned.index,
            positive=assigned.positive,
            score=assigned.overlap,
            ignore=crowded.any(axis=1) & ~assigned.positive,
        )

    def loss(
        self, outputs: Mapping[str, Any], targets: Mapping[str, Any], batch: Batch
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Sum of the weighted losses, each divided by the number of positives over the global batch, set by set.

        The entropy of the classes' soft targets is taken off, so that perfect outputs have loss 0. Where the image's
        labels do not cover a class, its scores cost nothing; objectness knows no classes, so objects of such a class
        are background to it.

        Returns:
          The loss, and its parts by name after their gains.
        """
        dense: DenseOutputs = outputs[self.head]
        asked: YOLOXTargets = targets[self.head]
        place, strides = _points(dense)
        # What answers for nothing says no box: its sides may have any exponent, none of which shall spoil a gradient.
        deltas = jnp.where(asked.positive[..., None], points.flatten_levels(dense.deltas), 0)
        # Overlaps are scale-free, and in strides the coordinates stay small.
        found = decode_boxes(deltas, place, strides) / strides[:, None]
        box_loss = 1 - box_ops.iou(found, asked.boxes / strides[:, None]) ** 2

        wanted = jax.nn.one_hot(asked.labels, self.num_classes) * asked.score[..., None]
        logits = points.flatten_levels(dense.logits)
        class_loss = losses.binary_cross_entropy_loss(logits, wanted) - losses.binary_entropy(wanted)
        if batch.known is not None:
            class_loss = class_loss * batch.known[:, None]
        quality = points.flatten_levels(_quality(dense))[..., 0]
        object_loss = losses.binary_cross_entropy_loss(quality, asked.positive.astype(jnp.float32))

        def mean(each: Array) -> Array:
            return sources.mean_over_batch(each.sum(axis=1), asked.positive.sum(axis=1), batch.source)

        parts = {
            "box": self.box_gain * mean(box_loss * asked.positive),
            "class": mean(class_loss.sum(axis=-1) * asked.positive),
            "object": mean(object_loss * ~asked.ignore),
        }
        if self.l1_epoch is not None:
            encoded = encode_boxes(asked.boxes, place, strides)
            distance = jnp.abs(deltas - encoded).sum(axis=-1) * asked.positive
            parts["l1"] = mean(distance * (batch.epoch >= self.l1_epoch)[:, None])
        return sum(parts.values(), start=jnp.zeros(())), parts

    def decode(self, outputs: Mapping[str, Any], answers: Mapping[str, Any] | None = None) -> Detections:
        """The detections of each image, best first, after class-wise suppression.

        A point may be detected as several classes. The released code takes its best alone: half a point of AP less.
        """
        dense: DenseOutputs = outputs[self.head]
        place, strides = _points(dense)
        scores = jax.nn.sigmoid(points.flatten_levels(dense.logits))
        boxes, scores, labels, valid, index = nms.select_detections(
            decode_boxes(points.flatten_levels(dense.deltas), place, strides),
            scores * jax.nn.sigmoid(points.flatten_levels(_quality(dense))),
            score_threshold=self.score_threshold,
            iou_threshold=self.iou_threshold,
            pre_nms=self.pre_nms,
            max_detections=self.max_detections,
        )
        return Detections(boxes=boxes, scores=scores, labels=labels, valid=valid, index=index)


def encode_boxes(
    boxes: Float[Array, "*B A 4"], place: Float[Array | np.ndarray, "A 2"], strides: Float[Array | np.ndarray, " A"]
) -> Float[Array, "*B A 4"]:
    """Boxes to their centre from the cell's top left corner, in strides, and the logarithm of their sides, in strides.

    Args:
      place: the points, which are the middles of cells.
    """
    boxes_cxcywh = box_ops.to_cxcywh(boxes) / strides[:, None]
    # A side of nothing has no logarithm; the released code adds as much, to all.
    sides = jnp.log(jnp.maximum(boxes_cxcywh[..., 2:], 1e-8))
    return jnp.concatenate([boxes_cxcywh[..., :2] - _corner(place, strides), sides], axis=-1)


def decode_boxes(
    deltas: Float[Array, "*B A 4"], place: Float[Array | np.ndarray, "A 2"], strides: Float[Array | np.ndarray, " A"]
) -> Float[Array, "*B A 4"]:
    """The inverse of `encode_boxes`."""
    centre = deltas[..., :2] + _corner(place, strides)
    return box_ops.from_cxcywh(jnp.concatenate([centre, jnp.exp(deltas[..., 2:])], axis=-1) * strides[:, None])


def _corner(place: Float[Array | np.ndarray, "A 2"], strides: Float[Array | np.ndarray, " A"]) -> Any:
    """The top left corner of each point's cell, in strides."""
    return place / strides[:, None] - 0.5


def _points(outputs: DenseOutputs) -> tuple[Any, Any]:
    return points.anchor_points(outputs.shapes)


def _quality(outputs: DenseOutputs) -> Mapping[str, Float[Array, "B _ _ 1"]]:
    if outputs.quality is None:
        raise ValueError("the head answers no objectness: give it one that does, such as heads.yolox.YOLOXHead")
    return outputs.quality
