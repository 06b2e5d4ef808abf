"""Boxes from SSD's head: default boxes, a softmax with a background class, hard negatives.

Shape shorthand: B images, N objects (padded), A default boxes over all levels, K classes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ylosia_jax.ops import anchors, deltas, losses, nms, points, sources
from ylosia_jax.ops import boxes as box_ops
from ylosia_jax.ops.assign import Assignment, assign_max_iou
from ylosia_jax.ops.sample import hardest_background
from ylosia_jax.tasks.anchored import AnchoredTargets, match
from ylosia_jax.types import Batch, DenseOutputs, Detections, Label

# Of SSD300 on COCO (arXiv:1512.02325, section 3.4).
SCALES = (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)
RATIOS = ((2.0,), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0,), (2.0,))
STEPS = (8, 16, 32, 64, 100, 300)


@dataclasses.dataclass(frozen=True)
class MultiBox:
    """Boxes from default boxes, with a softmax over the classes and the background (SSD, arXiv:1512.02325, 2.2).

    Attributes:
      num_classes: K; logits have one more, the background's, first.
      canvas: (height, width) in pixels of the only image size that the default boxes are made for.
      scales, ratios, steps: see `anchors.default_boxes`.
      positive: overlap from which a default box answers for an object; the best one of each does anyway.
      negatives: how many of the background are learned for each positive: those with the largest losses in an image.
      score_threshold: detections at or below this are dropped.
      iou_threshold: of the class-wise suppression.
      pre_nms: candidates of each class that enter the suppression.
      max_detections: M, detections an image.
      head: whose outputs these are, and the task's name.
    """

    num_classes: int
    canvas: tuple[int, int] = (300, 300)
    scales: tuple[float, ...] = SCALES
    ratios: tuple[tuple[float, ...], ...] = RATIOS
    steps: tuple[int, ...] = STEPS
    positive: float = 0.5
    negatives: float = 3.0
    score_threshold: float = 0.01
    iou_threshold: float = 0.45
    pre_nms: int = 400
    max_detections: int = 200
    head: str = "box"

    @property
    def needs(self) -> frozenset[Label]:
        """The labels without which this cannot be learned."""
        return frozenset({"box"})

    def encode(
        self, outputs: Mapping[str, Any], batch: Batch, targets: Mapping[str, Any] | None = None
    ) -> AnchoredTargets:
        """Targets of every default box."""
        references = self._anchors(outputs[self.head])

        def assign(boxes: Array, valid: Array, crowd: Array) -> Assignment:
            return assign_max_iou(
                boxes,
                valid,
                references,
                positive=self.positive,
                negative=self.positive,
                bipartite=True,
                crowd=crowd,
            )

        return match(batch.objects, assign)

    def loss(
        self, outputs: Mapping[str, Any], targets: Mapping[str, Any], batch: Batch
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Sum of the two losses, each divided by the positives of the global batch, set by set.

        Where the image's labels do not cover a class, the softmax of what is not of it is over the others.

        Returns:
          The loss, and its parts by name.
        """
        dense: DenseOutputs = outputs[self.head]
        asked: AnchoredTargets = targets[self.head]
        references = self._anchors(dense)
        wanted = jnp.where(asked.positive[..., None], asked.boxes, references)
        wanted = deltas.encode_deltas(wanted, references, deltas.SECOND_STAGE)
        box_loss = losses.smooth_l1_loss(points.flatten_levels(dense.deltas, 4), wanted).sum(axis=-1)

        labels = jnp.where(asked.positive, asked.labels + 1, 0)
        logits = points.flatten_levels(dense.logits, self.num_classes + 1)
        logits = losses.of_known_classes(logits, labels, batch.known)
        class_loss = losses.softmax_cross_entropy_loss(logits, labels)
        mine = jax.vmap(lambda loss, kind: hardest_background(loss, kind, ratio=self.negatives))
        learned = asked.positive | mine(jax.lax.stop_gradient(class_loss), asked.kind)

        def mean(each: Float[Array, "B A"]) -> Float[Array, ""]:
            return sources.mean_over_batch(each.sum(axis=1), asked.positive.sum(axis=1), batch.source)

        parts = {"class": mean(class_loss * learned), "box": mean(jnp.where(asked.positive, box_loss, 0))}
        return sum(parts.values(), start=jnp.zeros(())), parts

    def decode(self, outputs: Mapping[str, Any], answers: Mapping[str, Any] | None = None) -> Detections:
        """The detections of each image, best first, cut to the canvas, after class-wise suppression."""
        dense: DenseOutputs = outputs[self.head]
        found = points.flatten_levels(dense.deltas, 4)
        boxes = deltas.decode_deltas(found, self._anchors(dense), deltas.SECOND_STAGE)
        scores = jax.nn.softmax(points.flatten_levels(dense.logits, self.num_classes + 1), axis=-1)
        chosen, kept, labels, valid, index = nms.select_of_each_class(
            box_ops.clip(boxes, *self.canvas),
            scores[..., 1:],
            score_threshold=self.score_threshold,
            iou_threshold=self.iou_threshold,
            pre_nms=self.pre_nms,
            max_detections=self.max_detections,
        )
        return Detections(boxes=chosen, scores=kept, labels=labels, valid=valid, index=index)

    def _anchors(self, outputs: DenseOutputs) -> Float[Array, "A 4"]:
        shapes = outputs.shapes
        level, grid = next(iter(shapes.items()))
        if grid != tuple(-(-side // self.steps[0]) for side in self.canvas):
            raise ValueError(
                f"the level {level!r} has {grid} cells {self.steps[0]} pixels apart, which make no canvas of "
                f"{self.canvas}: set image_size to that, or give the task another canvas, scales and steps"
            )
        return jnp.asarray(
            anchors.default_boxes(shapes, self.canvas, scales=self.scales, ratios=self.ratios, steps=self.steps)
        )
