"""Poses of a second stage, of the regions that a box task learns from or has found.

Shape shorthand: B images, P regions an image that learn (padded), M detections, J points of a pose, h w cells over a
region.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from ylosia_jax.ops import losses, roi_heatmaps, sources
from ylosia_jax.tasks.roi_masks import of_detections, positives
from ylosia_jax.types import Batch, Detections, Label, Poses, RoiMaps, Rois


@struct.dataclass
class RoiKeypointTargets:
    """What every region is asked for.

    Attributes:
      cells: [B, P, J] the number of the cell that each point lies in.
      asked: [B, P, J] False where the point is not labelled or out of the region, and for padding.
    """

    cells: Int[Array, "B P J"]
    asked: Bool[Array, "B P J"]


@dataclasses.dataclass(frozen=True)
class RoiKeypoints:
    """A heatmap of each point for every region, with one cell that is right (Mask R-CNN, 1703.06870, section 5).

    Attributes:
      regions: P, of those that the box task learns from at most; no more than its positives are needed.
      boxes: name of the task that finds the objects.
      head: whose outputs these are, and the task's name.
    """

    regions: int = 128
    boxes: str = "box"
    head: str = "keypoint"

    @property
    def needs(self) -> frozenset[Label]:
        """The labels without which this cannot be learned."""
        return frozenset({"box", "keypoint"})

    def select(self, outputs: Mapping[str, Any], answers: Mapping[str, Any], batch: Batch | None) -> Rois:
        """In prediction the detections; in training the box head's positives that have a labelled point.

        Raises:
          ValueError: if the batch has no keypoints.
        """
        if batch is None:
            return of_detections(answers[self.boxes], outputs[self.boxes].rois)
        if batch.objects.keypoints is None:
            raise ValueError("the batch has no keypoints")
        return positives(outputs[self.boxes].rois, self.regions, (batch.objects.keypoints[..., 2] > 0).any(axis=-1))

    def encode(self, outputs: Mapping[str, Any], batch: Batch, targets: Mapping[str, Any]) -> RoiKeypointTargets:
        """The cells of the objects' points.

        Raises:
          ValueError: if the batch has another number of them than the head.
        """
        found: RoiMaps = outputs[self.head]
        keypoints, (height, width, points) = batch.objects.keypoints, found.logits.shape[2:]
        if keypoints is None or keypoints.shape[2] != points:
            count = 0 if keypoints is None else keypoints.shape[2]
            raise ValueError(f"the batch has poses of {count} points, the head {self.head!r} finds {points}")
        picked = jnp.take_along_axis(keypoints, found.rois.index[..., None, None], axis=1)
        cells, asked = roi_heatmaps.encode_cells(picked, found.rois.boxes, (height, width))
        return RoiKeypointTargets(cells=cells, asked=asked & found.rois.valid[..., None])

    def loss(
        self, outputs: Mapping[str, Any], targets: Mapping[str, Any], batch: Batch
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Cross entropy over the cells, divided by the number of points of the global batch, set by set."""
        found: RoiMaps = outputs[self.head]
        wanted: RoiKeypointTargets = targets[self.head]
        images, regions, height, width, points = found.logits.shape
        flat = jnp.moveaxis(found.logits.reshape(images, regions, height * width, points), -1, -2)
        each = losses.softmax_cross_entropy_loss(flat, wanted.cells) * wanted.asked
        sums, counts = each.sum(axis=(1, 2)), wanted.asked.sum(axis=(1, 2))
        return sources.mean_over_batch(sums, counts, batch.source), {}

    def decode(self, outputs: Mapping[str, Any], answers: Mapping[str, Any]) -> Poses:
        """The poses of the detections, in their order; a point's score is the sigmoid of its heatmap's height."""
        found: RoiMaps = outputs[self.head]
        detections: Detections = answers[self.boxes]
        decode = jax.vmap(lambda logits, boxes: roi_heatmaps.decode_cells(logits, boxes, found.rois.canvas))
        places, heights = decode(found.logits, detections.boxes)
        keypoints = jnp.concatenate([places, jax.nn.sigmoid(heights)[..., None]], axis=-1)
        return Poses(keypoints=keypoints * detections.valid[..., None, None])
