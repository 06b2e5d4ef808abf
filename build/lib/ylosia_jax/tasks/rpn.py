"""Proposals: what a first stage is asked for, and the regions that it hands to the second.

Shape shorthand: B images, N objects (padded), A anchors over all levels, R proposals (padded).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float

from ylosia_jax.ops import anchors, assign, deltas, losses, points, proposals, sample, sources
from ylosia_jax.ops import boxes as box_ops
from ylosia_jax.types import Batch, DenseOutputs, Label, Rois


@struct.dataclass
class RPNTargets:
    """What every anchor is asked for.

    Attributes:
      boxes: [B, A, 4] the object's box.
      positive: [B, A] anchors that answer for one, of those that are asked.
      asked: [B, A] the chosen ones.
    """

    boxes: Float[Array, "B A 4"]
    positive: Bool[Array, "B A"]
    asked: Bool[Array, "B A"]


@dataclasses.dataclass(frozen=True)
class RegionProposals:
    """What a head that proposes regions is asked for (Faster R-CNN, arXiv:1506.01497, section 3.1).

    Constants are torchvision's.

    Attributes:
      sizes: of each level's anchors, as roots of their areas in pixels.
      ratios: of the anchors, height over width.
      positive: anchors with at least this IoU answer for an object, and the best of each object.
      negative: those below are background.
      samples: anchors an image that learn in a step.
      positive_share: of them at most.
      beta: below it the loss of boxes is quadratic.
      pre_nms: the best of a level that enter its suppression, in training and in prediction.
      post_nms: R, proposals an image, in training and in prediction.
      iou_threshold: of the suppression.
      min_size: shortest side of a proposal, in pixels.
      head: whose outputs these are, and the task's name.
    """

    sizes: tuple[tuple[float, ...], ...] = ((32,), (64,), (128,), (256,), (512,))
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    positive: float = 0.7
    negative: float = 0.3
    samples: int = 256
    positive_share: float = 0.5
    beta: float = 1 / 9
    pre_nms: tuple[int, int] = (2000, 1000)
    post_nms: tuple[int, int] = (2000, 1000)
    iou_threshold: float = 0.7
    min_size: float = 1e-3
    head: str = "rpn"

    @property
    def needs(self) -> frozenset[Label]:
        """The labels without which this cannot be learned."""
        return frozenset({"box"})

    def encode(self, outputs: Mapping[str, Any], batch: Batch, targets: Mapping[str, Any] | None = None) -> RPNTargets:
        """Chooses the anchors that learn in this step: chance decides, anew for every image and epoch.

        Where an image's labels do not cover a class, its objects are background here as in other detectors' objectness:
        without any background, every anchor would be an object.
        """
        boxes = self._anchors(outputs[self.head])
        objects = batch.objects

        def one(truth: Array, valid: Array, crowd: Array) -> tuple[Array, Array]:
            found = assign.assign_max_iou(
                truth, valid, boxes, positive=self.positive, negative=self.negative, force_match=True, crowd=crowd
            )
            return found.index, found.kind

        index, kind = jax.vmap(one)(objects.boxes, objects.valid, objects.crowd)
        lucky = sample.luck(batch.index[:, None], batch.epoch[:, None], jnp.arange(len(boxes))[None])

        def choose(kind: Array, lucky: Array) -> Array:
            chosen = sample.sample_balanced(kind, lucky, count=self.samples, positive_share=self.positive_share)
            return jnp.zeros(kind.shape, bool).at[chosen.index].max(chosen.valid)

        asked = jax.vmap(choose)(kind, lucky)
        picked = jnp.take_along_axis(objects.boxes, index[..., None], axis=1)
        return RPNTargets(boxes=picked, positive=asked & (kind == 1), asked=asked)

    def loss(
        self, outputs: Mapping[str, Any], targets: Mapping[str, Any], batch: Batch
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Cross entropy of the chosen anchors, and the loss of the boxes of those that answer for an object.

        Both are divided by the number of chosen anchors of the global batch, set by set.
        """
        dense: DenseOutputs = outputs[self.head]
        wanted: RPNTargets = targets[self.head]
        logits, found = self._flat(dense)
        coded = deltas.encode_deltas(wanted.boxes, jnp.asarray(self._anchors(dense)))
        score = losses.binary_cross_entropy_loss(logits, wanted.positive.astype(logits.dtype)) * wanted.asked
        # A choice and not a product: what padding's boxes are encoded as is no number to rely on.
        box = jnp.where(wanted.positive[..., None], losses.smooth_l1_loss(found, coded, self.beta), 0).sum(axis=-1)
        count = wanted.asked.sum(axis=1)
        parts = {
            "object": sources.mean_over_batch(score.sum(axis=1), count, batch.source),
            "box": sources.mean_over_batch(box.sum(axis=1), count, batch.source),
        }
        return parts["object"] + parts["box"], parts

    def select(self, outputs: Mapping[str, Any], answers: Mapping[str, Any], batch: Batch | None) -> Rois:
        """The proposals, best first, clipped to the canvas."""
        dense: DenseOutputs = outputs[self.head]
        logits, found = self._flat(dense)
        canvas = anchors.canvas_of(dense.shapes)
        boxes = box_ops.clip(deltas.decode_deltas(found, jnp.asarray(self._anchors(dense))), *canvas)
        counts = [x.shape[1] * x.shape[2] * x.shape[3] for x in dense.logits.values()]
        mode = 1 if batch is None else 0

        def one(boxes: Array, logits: Array) -> tuple[Array, Array, Array]:
            return proposals.propose(
                boxes,
                logits,
                counts,
                pre_nms=self.pre_nms[mode],
                post_nms=self.post_nms[mode],
                iou_threshold=self.iou_threshold,
                min_size=self.min_size,
            )

        chosen, valid, index = jax.vmap(one)(boxes, logits)
        return Rois(boxes=chosen, valid=valid, index=index, kind=jnp.zeros_like(index), canvas=canvas)

    def _flat(self, dense: DenseOutputs) -> tuple[Float[Array, "B A"], Float[Array, "B A 4"]]:
        return points.flatten_levels(dense.logits, 1)[..., 0], points.flatten_levels(dense.deltas, 4)

    def _anchors(self, dense: DenseOutputs) -> Any:
        return anchors.anchor_boxes(dense.shapes, self.sizes, self.ratios)
