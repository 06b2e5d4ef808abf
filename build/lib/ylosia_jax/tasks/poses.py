"""Poses as points that every anchor point predicts (YOLO-Pose, arXiv:2204.06806), made exact by heatmaps.

Shape shorthand: B images, A anchor points over all levels, P trained points of an image, M detections, J points of a
pose, h w cells of the heatmaps' grid.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from ylosia_jax.ops import boxes as box_ops
from ylosia_jax.ops import heatmaps, losses, points, sources
from ylosia_jax.ops import masks as mask_ops
from ylosia_jax.ops import poses as pose_ops
from ylosia_jax.types import Batch, Detections, Label, Objects, PoseOutputs, Poses

_BUMP = 0.1  # a lower one is background


@struct.dataclass
class PoseTargets:
    """The anchor points whose poses are learned in this step, the best of every object first.

    Attributes:
      points: [B, P] anchor point.
      weight: [B, P] that of its box; 0 for padding, and where no point of the object is labelled.
      keypoints: [B, P, J, 3] the object's, x and y in pixels of the canvas, and v.
      area: [B, P] of the object, in square pixels.
      heatmap: [B, h, w, J] bumps at the labelled points of all objects.
      asked: [B, h, w, J] False where nobody says whether there is such a point.
    """

    points: Int[Array, "B P"]
    weight: Float[Array, "B P"]
    keypoints: Float[Array, "B P J 3"]
    area: Float[Array, "B P"]
    heatmap: Float[Array, "B h w J"]
    asked: Bool[Array, "B h w J"]


@dataclasses.dataclass(frozen=True)
class DensePoses:
    """What a dense pose head's outputs mean, beside a `DenseBoxes` task.

    Attributes:
      sigmas: of the skeleton's J points, see `types.Skeleton`.
      gain: weight of the loss of places. Small beside the heatmaps': a place only says which bump is meant
        (experiments/joint_vs_single).
      visible_gain: weight of the loss of visibility.
      far: weight of the distance, as a share of the object's size, within the loss of places. Object keypoint
        similarity is flat far from the truth, and an anchor point on a mouse's nose never learned where its tail is;
        the distance pulls alike from everywhere.
      area_share: what the mean object fills of its box: COCO measures by the object's area, training has its box.
      heat_gain: weight of the heatmaps' loss.
      spread: standard deviation of a heatmap's bump, in cells.
      reach: how far from where an anchor point expects it a point is looked for on the heatmap, as a share of the
        object's size; the standard deviation of a Gaussian.
      peaks: bumps of a kind that an image has at most.
      min_heat: bumps that are lower, or seem so from far, move no point.
      stride: pixels of the canvas that a cell of the heatmaps is wide.
      points: P, positives an image whose poses are trained in a step.
      boxes: name of the task that finds the objects, and whose targets say which anchor points learn their poses.
      head: whose outputs these are.
    """

    sigmas: tuple[float, ...]
    gain: float = 0.25
    visible_gain: float = 0.5
    far: float = 2.0
    area_share: float = 0.53
    heat_gain: float = 2.0
    spread: float = 1.5
    reach: float = 0.5
    peaks: int = 64
    min_heat: float = 0.1
    stride: int = 4
    points: int = 128
    boxes: str = "box"
    head: str = "keypoint"

    @property
    def needs(self) -> frozenset[Label]:
        """The labels without which this cannot be learned."""
        return frozenset({"box", "keypoint"})

    def encode(self, outputs: Mapping[str, Any], batch: Batch, targets: Mapping[str, Any]) -> PoseTargets:
        """Chooses the anchor points to train, and draws the heatmaps.

        Raises:
          ValueError: if the batch has no keypoints, or another number of them than there are sigmas; if the heatmaps
            have another stride.
        """
        dense, objects = targets[self.boxes], batch.objects
        keypoints = objects.keypoints
        if keypoints is None or keypoints.shape[2] != len(self.sigmas):
            found = 0 if keypoints is None else keypoints.shape[2]
            raise ValueError(f"the batch has poses of {found} points, the task has {len(self.sigmas)} sigmas")
        posed = _labelled(objects).any(axis=-1)
        share, chosen = points.choose_points(
            dense.share * jnp.take_along_axis(posed, dense.index, axis=1),
            dense.index,
            self.points,
            index=batch.index,
            epoch=batch.epoch,
        )
        rows = jnp.take_along_axis(dense.index, chosen, axis=1)
        boxes = jnp.take_along_axis(objects.boxes, rows[..., None], axis=1)
        heatmap, asked = self._draw(batch, outputs[self.head].heatmap.shape)
        return PoseTargets(
            points=chosen,
            weight=jnp.take_along_axis(dense.score, chosen, axis=1) * (share > 0),
            keypoints=jnp.take_along_axis(keypoints, rows[..., None, None], axis=1),
            area=box_ops.area(boxes) * self.area_share,
            heatmap=heatmap,
            asked=asked,
        )

    def _draw(self, batch: Batch, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Bumps, and where they and what lies between them can be believed.

        A kind of point is asked for in images where one of its kind is labelled: where none is, either there is none
        or nobody looked. Between the bumps it is asked for if every object of such a class is labelled in the image,
        and not inside the boxes of those that lack just this point.
        """
        objects, (height, width) = batch.objects, shape[1:3]
        assert objects.keypoints is not None
        if (height * self.stride, width * self.stride) != batch.image.shape[1:3]:
            raise ValueError(f"stride is {self.stride}, but the heatmaps are {(height, width)} cells of the canvas")
        shown = _labelled(objects)
        draw = jax.vmap(lambda places, shown: heatmaps.encode_heatmap(places, shown, height, width, spread=self.spread))
        heatmap = draw(objects.keypoints[..., :2] / self.stride, shown)
        kin = objects.labels[:, :, None] == objects.labels[:, None]
        lacking = (kin[..., None] & shown[:, None]).any(axis=2) & ~shown & objects.valid[..., None]
        inside = mask_ops.inside_boxes(objects.boxes / self.stride, height, width)
        hidden = jnp.einsum("bnhw,bnj->bhwj", inside, lacking.astype(inside.dtype)) > 0
        whole = shown.any(axis=1)
        if batch.known is not None:
            known = jnp.take_along_axis(batch.known, objects.labels, axis=1)
            whole &= ~(shown & ~known[..., None]).any(axis=1)
        asked = (whole[:, None, None] & ~hidden) | (heatmap > _BUMP)
        return heatmap, asked

    def loss(
        self, outputs: Mapping[str, Any], targets: Mapping[str, Any], batch: Batch
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """1 - object keypoint similarity, point by point, the cross entropies of being labelled and of the heatmaps.

        Points that are not labelled have no place to learn. All is weighted as the box's losses, and divided by the
        sum of weights over the global batch, set by set. The heatmaps' cross entropy is weighted, cell by cell, by the
        squared error (quality focal loss, arXiv:2006.04388, eq. 2). Every kind of point has one vote, also those that
        are seldom labelled: its sum is divided by the number of labelled points of its kind, and the mean is over the
        kinds that the global batch has.
        """
        wanted: PoseTargets = targets[self.head]
        place, logits = self._places(outputs[self.head], wanted.points)
        labelled = (wanted.keypoints[..., 2] > 0).astype(jnp.float32)
        errors = pose_ops.point_errors(place, wanted.keypoints[..., :2], wanted.area, jnp.array(self.sigmas))
        # Across and down apart: the root of their squares would have no gradient at 0.
        size = jnp.sqrt(jnp.maximum(wanted.area, 1))[..., None]
        distance = jnp.abs(place - wanted.keypoints[..., :2]).sum(axis=-1) / size
        each = (1 - jnp.exp(-errors) + self.far * distance) * labelled
        count = jnp.maximum(labelled.sum(axis=-1), 1)
        there = losses.binary_cross_entropy_loss(logits, labelled).mean(axis=-1)

        def mean(pose: Array) -> Array:
            sums, weights = (pose * wanted.weight).sum(axis=1), wanted.weight.sum(axis=1)
            return sources.mean_over_batch(sums, weights, batch.source)

        parts = {
            "place": self.gain * mean(each.sum(axis=-1) / count),
            "visible": self.visible_gain * mean(there),
            "heat": self.heat_gain * self._heat_loss(outputs[self.head].heatmap, wanted, batch),
        }
        return sum(parts.values(), start=jnp.zeros(())), parts

    def _heat_loss(self, logits: Array, wanted: PoseTargets, batch: Batch) -> Float[Array, ""]:
        each = losses.binary_cross_entropy_loss(logits, wanted.heatmap) - losses.binary_entropy(wanted.heatmap)
        error = jax.lax.stop_gradient(jax.nn.sigmoid(logits) - wanted.heatmap)
        each = (each * error**2 * wanted.asked).sum(axis=(1, 2))
        shown = _labelled(batch.objects).sum(axis=1)
        total, count = (sources.sum_by_source(x, batch.source) for x in (each, shown))
        mean = (total / jnp.maximum(count, 1)).sum(axis=1) / jnp.maximum((count > 0).sum(axis=1), 1)
        return sources.mean_of_sources(mean, batch.source)

    def decode(self, outputs: Mapping[str, Any], answers: Mapping[str, Any]) -> Poses:
        """The poses of the detections, in their order: where the anchor point puts them, moved to the nearest bumps."""
        detections: Detections = answers[self.boxes]
        place, logits = self._places(outputs[self.head], detections.index)
        area = box_ops.area(detections.boxes) * self.area_share
        reach = jnp.maximum(self.reach * jnp.sqrt(area) / self.stride, 1)[..., None]

        def move(logits: Array, near: Array, reach: Array) -> Array:
            places, heights = heatmaps.decode_heatmap(logits, self.peaks)
            return heatmaps.nearest_peaks(near, reach, places, heights, min_height=self.min_heat)

        place = jax.vmap(move)(outputs[self.head].heatmap, place / self.stride, reach) * self.stride
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


def _labelled(objects: Objects) -> Bool[Array, "B N J"]:
    """Which points of the objects have a place."""
    assert objects.keypoints is not None
    return (objects.keypoints[..., 2] > 0) & objects.valid[..., None]
