"""Masks of a second stage, of the regions that a box task learns from or has found.

Shape shorthand: B images, P regions an image that learn (padded), M detections, K classes, h w cells over a region.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from ylosia_jax.ops import losses, roi, sources
from ylosia_jax.types import Batch, BoxMasks, Detections, Label, RoiMaps, Rois


@struct.dataclass
class RoiMaskTargets:
    """What every region is asked for; padding is told by its `Rois`.

    Attributes:
      labels: [B, P] class of the object.
      masks: [B, P, h, w] the share of each cell that the object covers.
    """

    labels: Int[Array, "B P"]
    masks: Float[Array, "B P h w"]


@dataclasses.dataclass(frozen=True)
class RoiMasks:
    """A mask of each class for every region, of which only the object's own learns (Mask R-CNN, 1703.06870, 3).

    Where masks overlap, the smaller object's lies on top: the map of instances knows no others.

    Attributes:
      regions: P, of those that the box task learns from at most; no more than its positives are needed.
      boxes: name of the task that finds the objects.
      head: whose outputs these are, and the task's name.
    """

    regions: int = 128
    boxes: str = "box"
    head: str = "mask"

    @property
    def needs(self) -> frozenset[Label]:
        """The labels without which this cannot be learned."""
        return frozenset({"box", "mask"})

    def select(self, outputs: Mapping[str, Any], answers: Mapping[str, Any], batch: Batch | None) -> Rois:
        """In prediction the detections; in training the box head's positives whose masks are known.

        Raises:
          ValueError: if the batch has no map of instances.
        """
        if batch is None:
            return of_detections(answers[self.boxes], outputs[self.boxes].rois)
        if batch.objects.masked is None:
            raise ValueError("the batch has no map of instances")
        return positives(outputs[self.boxes].rois, self.regions, batch.objects.masked)

    def encode(self, outputs: Mapping[str, Any], batch: Batch, targets: Mapping[str, Any]) -> RoiMaskTargets:
        """Cuts the objects' masks out of the map of instances.

        Raises:
          ValueError: if the batch has none.
        """
        found: RoiMaps = outputs[self.head]
        rois = found.rois
        if batch.instances is None:
            raise ValueError("the batch has no map of instances")
        numbers = batch.instances.astype(jnp.int32)
        height, width = found.logits.shape[2:4]
        return RoiMaskTargets(
            labels=jnp.take_along_axis(batch.objects.labels, rois.index, axis=1),
            masks=roi.crop_numbers(numbers, 1 + rois.index, rois.boxes, (height, width)),
        )

    def loss(
        self, outputs: Mapping[str, Any], targets: Mapping[str, Any], batch: Batch
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The mean cross entropy of the cells of the global batch's regions, set by set."""
        found: RoiMaps = outputs[self.head]
        wanted: RoiMaskTargets = targets[self.head]
        each = losses.binary_cross_entropy_loss(_of_class(found.logits, wanted.labels), wanted.masks)
        each = each.mean(axis=(2, 3)) * found.rois.valid
        return sources.mean_over_batch(each.sum(axis=1), found.rois.valid.sum(axis=1), batch.source), {}

    def decode(self, outputs: Mapping[str, Any], answers: Mapping[str, Any]) -> BoxMasks:
        """The masks of the detections, in their order: each of its detection's class."""
        found: RoiMaps = outputs[self.head]
        return BoxMasks(logits=_of_class(found.logits, answers[self.boxes].labels))


def positives(rois: Rois, count: int, asked: Array) -> Rois:
    """The first of a box head's regions, which are its positives, as far as their objects are asked for.

    Args:
      asked: [B, N] of the objects.
    """
    first: Rois = jax.tree.map(lambda x: x[:, :count], rois)
    valid = first.valid & (first.kind == 1) & jnp.take_along_axis(asked, first.index, axis=1)
    return dataclasses.replace(first, valid=valid)


def of_detections(detections: Detections, rois: Rois) -> Rois:
    """The detections as regions, to be looked into once more.

    Args:
      rois: that they come from.
    """
    rows = jnp.broadcast_to(jnp.arange(detections.labels.shape[1]), detections.labels.shape)
    return Rois(
        boxes=detections.boxes,
        valid=detections.valid,
        index=rows,
        kind=jnp.zeros_like(rows),
        canvas=rois.canvas,
    )


def _of_class(logits: Float[Array, "B R h w K1"], labels: Int[Array, "B R"]) -> Float[Array, "B R h w"]:
    """Of each region the map of its class, after the background's."""
    return jnp.take_along_axis(logits, 1 + labels[:, :, None, None, None], axis=-1)[..., 0]
