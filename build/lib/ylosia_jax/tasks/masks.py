"""Instance masks from prototypes and coefficients (YOLACT, arXiv:1904.02689), for the boxes of a dense task.

Shape shorthand: B images, A anchor points over all levels, P trained points of an image, M detections, h w cells of the
prototypes' grid, C prototypes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from ylosia_jax.ops import losses, points, sources
from ylosia_jax.ops import masks as mask_ops
from ylosia_jax.types import Batch, Detections, Label, MaskOutputs, Masks


@struct.dataclass
class MaskTargets:
    """The points whose masks are learned in this step, the best of every object first.

    Attributes:
      points: [B, P] anchor point.
      weight: [B, P] that of its box; 0 for padding, and where the object's mask is unknown.
      boxes: [B, P, 4] the object's box, in cells of the prototypes' grid.
      masks: [B, P, h, w] the share of each cell of that grid that the object covers.
    """

    points: Int[Array, "B P"]
    weight: Float[Array, "B P"]
    boxes: Float[Array, "B P 4"]
    masks: Float[Array, "B P h w"]


@dataclasses.dataclass(frozen=True)
class PrototypeMasks:
    """What a prototype head's outputs mean, beside a `DenseBoxes` task.

    Attributes:
      gain: weight of the loss.
      points: P, positives an image whose masks are trained in a step; those left over wait for another.
      boxes: name of the task that finds the objects, and whose targets say which anchor points learn their masks.
      head: whose outputs these are.
    """

    gain: float = 5.0
    points: int = 64
    boxes: str = "box"
    head: str = "mask"

    @property
    def needs(self) -> frozenset[Label]:
        """The labels without which this cannot be learned."""
        return frozenset({"box", "mask"})

    def encode(self, outputs: Mapping[str, Any], batch: Batch, targets: Mapping[str, Any]) -> MaskTargets:
        """Chooses the points to train, and cuts their objects' masks out of the map.

        Raises:
          ValueError: if the batch has no map of instances, or one of no whole number of pixels a prototypes' cell.
        """
        dense, objects = targets[self.boxes], batch.objects
        height, width = outputs[self.head].prototypes.shape[1:3]
        if batch.instances is None or objects.masked is None:
            raise ValueError("the batch has no map of instances")
        masked = jnp.take_along_axis(objects.masked & objects.valid, dense.index, axis=1)
        share, chosen = points.choose_points(
            dense.share * masked,
            dense.index,
            self.points,
            index=batch.index,
            epoch=batch.epoch,
        )
        rows = jnp.take_along_axis(dense.index, chosen, axis=1)
        scale = jnp.array([width / batch.image.shape[2], height / batch.image.shape[1]] * 2)
        return MaskTargets(
            points=chosen,
            weight=jnp.take_along_axis(dense.score, chosen, axis=1) * (share > 0),
            boxes=jnp.take_along_axis(objects.boxes, rows[..., None], axis=1) * scale,
            masks=mask_ops.cell_shares(batch.instances, 1 + rows, height, width),
        )

    def loss(
        self, outputs: Mapping[str, Any], targets: Mapping[str, Any], batch: Batch
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The mean cross entropy of the cells inside the true box, weighted as the box's losses.

        Cutting with the true box and dividing by the number of cells gives a small object the weight of a large one
        (YOLACT, section 3.3). The cells around it, which the pixels of the box's rim are mixed from too, learn nothing:
        they cost more than they give (experiments/nuclei). A box narrower than a cell, which may hold no cell's centre,
        counts as a cell wide. The sum over the trained points is divided by the sum of their weights over the global
        batch, set by set; padding has none. The logit of a cell that is partly covered is asked to tell how far.
        """
        wanted: MaskTargets = targets[self.head]
        found: MaskOutputs = outputs[self.head]
        height, width = wanted.masks.shape[2:]
        logits = mask_ops.assemble(_coefficients(found, wanted.points), found.prototypes)
        low, high = wanted.boxes[..., :2], wanted.boxes[..., 2:]
        centre = (low + high) / 2
        learned = jnp.concatenate([jnp.minimum(low, centre - 0.5), jnp.maximum(high, centre + 0.5)], axis=-1)
        inside = mask_ops.inside_boxes(learned, height, width)
        each = losses.binary_cross_entropy_loss(logits, wanted.masks) - losses.binary_entropy(wanted.masks)
        each = (each * inside).sum(axis=(2, 3))
        each = each / jnp.maximum(inside.sum(axis=(2, 3)), 1)
        sums, weights = (each * wanted.weight).sum(axis=1), wanted.weight.sum(axis=1)
        return self.gain * sources.mean_over_batch(sums, weights, batch.source), {}

    def decode(self, outputs: Mapping[str, Any], answers: Mapping[str, Any]) -> Masks:
        """The masks of the detections, in their order."""
        found: MaskOutputs = outputs[self.head]
        detections: Detections = answers[self.boxes]
        return Masks(logits=mask_ops.assemble(_coefficients(found, detections.index), found.prototypes))


def _coefficients(outputs: MaskOutputs, chosen: Int[Array, "B P"]) -> Float[Array, "B P C"]:
    return jnp.take_along_axis(points.flatten_levels(outputs.coefficients), chosen[..., None], axis=1)
