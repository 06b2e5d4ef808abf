"""Boxes from a dense head with anchors: RetinaNet's targets, losses and decoding, and what others share of them.

Shape shorthand: B images, N objects (padded), A anchors over all levels, K classes.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from ylosia_jax.ops import anchors, deltas, losses, nms, points
from ylosia_jax.ops import boxes as box_ops
from ylosia_jax.ops.assign import Assignment, assign_max_iou
from ylosia_jax.types import Batch, DenseOutputs, Detections, Label, Objects

# (boxes, valid, crowd) of an image -> what each anchor answers for.
Assign = Callable[[Float[Array, "N 4"], Bool[Array, " N"], Bool[Array, " N"]], Assignment]

# Roots of the anchors' areas: three to an octave, in whole pixels as torchvision has them.
SIZES = ((32, 40, 50), (64, 80, 101), (128, 161, 203), (256, 322, 406), (512, 645, 812))


@struct.dataclass
class AnchoredTargets:
    """What every anchor is asked for.

    Attributes:
      boxes: [B, A, 4] the object's box; zeros where there is none.
      labels: [B, A] its class; 0 where there is none.
      index: [B, A] its row among the image's objects; 0 where there is none.
      kind: [B, A] 1 where the anchor answers for an object, 0 for background, -1 where it is asked nothing.
    """

    boxes: Float[Array, "B A 4"]
    labels: Int[Array, "B A"]
    index: Int[Array, "B A"]
    kind: Int[Array, "B A"]

    @property
    def positive(self) -> Bool[Array, "B A"]:
        """Where the anchor answers for an object."""
        return self.kind == 1


def match(objects: Objects, assign: Assign) -> AnchoredTargets:
    """The targets that an assignment makes of each image's objects."""
    found = jax.vmap(assign)(objects.boxes, objects.valid, objects.crowd)
    positive = found.kind == 1
    return AnchoredTargets(
        boxes=jnp.take_along_axis(objects.boxes, found.index[..., None], axis=1) * positive[..., None],
        labels=jnp.take_along_axis(objects.labels, found.index, axis=1) * positive,
        index=found.index,
        kind=found.kind,
    )


def focal_losses(
    logits: Float[Array, "B A K"], targets: AnchoredTargets, batch: Batch, *, alpha: float, gamma: float
) -> Float[Array, " B"]:
    """Each image's focal loss, added up over all but those anchors that are asked nothing.

    Where the image's labels do not cover a class, its scores cost nothing.
    """
    wanted = jax.nn.one_hot(targets.labels, logits.shape[-1]) * targets.positive[..., None]
    loss = losses.sigmoid_focal_loss(logits, wanted, alpha=alpha, gamma=gamma) * (targets.kind >= 0)[..., None]
    if batch.known is not None:
        loss = loss * batch.known[:, None]
    return loss.sum(axis=(1, 2))


@dataclasses.dataclass(frozen=True)
class AnchoredBoxes:
    """Boxes from anchors, with the focal loss (RetinaNet, arXiv:1708.02002, sections 3 and 4).

    Attributes:
      num_classes: K.
      sizes: roots of the anchors' areas in pixels, of each level.
      ratios: of the anchors, height over width.
      positive, negative: overlaps from which, and below which, an anchor answers for an object, or for background. The
        anchors that overlap an object most answer for it anyway, as in torchvision.
      alpha, gamma: of the focal loss.
      box_loss: of encoded boxes, the absolute difference; or 1 - GIoU of decoded ones.
      score_threshold: detections at or below this are dropped.
      iou_threshold: of the class-wise suppression.
      pre_nms: candidates of each level that enter the suppression.
      max_detections: M, detections an image.
      head: whose outputs these are, and the task's name.
    """

    num_classes: int
    sizes: tuple[tuple[int, ...], ...] = SIZES
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    positive: float = 0.5
    negative: float = 0.4
    alpha: float = 0.25
    gamma: float = 2.0
    box_loss: Literal["l1", "giou"] = "l1"
    score_threshold: float = 0.05
    iou_threshold: float = 0.5
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
        """Targets of every anchor."""
        references = self._anchors(outputs[self.head])

        def assign(boxes: Array, valid: Array, crowd: Array) -> Assignment:
            return assign_max_iou(
                boxes,
                valid,
                references,
                positive=self.positive,
                negative=self.negative,
                force_match=True,
                crowd=crowd,
            )

        return match(batch.objects, assign)

    def loss(
        self, outputs: Mapping[str, Any], targets: Mapping[str, Any], batch: Batch
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Sum of the two losses, each image's divided by its own positives, as in torchvision; then the images' mean.

        Returns:
          The loss, and its parts by name.
        """
        dense: DenseOutputs = outputs[self.head]
        asked: AnchoredTargets = targets[self.head]
        references = self._anchors(dense)
        found = points.flatten_levels(dense.deltas, 4)
        if self.box_loss == "l1":
            # Boxes of no anchor are zeros, whose encoding would be far from everything.
            wanted = deltas.encode_deltas(jnp.where(asked.positive[..., None], asked.boxes, references), references)
            box_loss = losses.smooth_l1_loss(found, wanted, beta=0.0).sum(axis=-1)
        else:
            box_loss = 1 - box_ops.iou(deltas.decode_deltas(found, references), asked.boxes, kind="giou")
        logits = points.flatten_levels(dense.logits, self.num_classes)
        class_losses = focal_losses(logits, asked, batch, alpha=self.alpha, gamma=self.gamma)
        count = jnp.maximum(asked.positive.sum(axis=1), 1)
        parts = {
            "class": (class_losses / count).mean(),
            "box": (jnp.where(asked.positive, box_loss, 0).sum(axis=1) / count).mean(),
        }
        return sum(parts.values(), start=jnp.zeros(())), parts

    def decode(self, outputs: Mapping[str, Any], answers: Mapping[str, Any] | None = None) -> Detections:
        """The detections of each image, best first, cut to the canvas, after class-wise suppression."""
        dense: DenseOutputs = outputs[self.head]
        boxes = deltas.decode_deltas(points.flatten_levels(dense.deltas, 4), self._anchors(dense))
        scores = jax.nn.sigmoid(points.flatten_levels(dense.logits, self.num_classes))
        return select_by_level(
            dense,
            boxes,
            scores,
            score_threshold=self.score_threshold,
            iou_threshold=self.iou_threshold,
            pre_nms=self.pre_nms,
            max_detections=self.max_detections,
        )

    def _anchors(self, outputs: DenseOutputs) -> Float[Array, "A 4"]:
        return jnp.asarray(anchors.anchor_boxes(outputs.shapes, self.sizes, self.ratios))


def select_by_level(
    outputs: DenseOutputs,
    boxes: Float[Array, "B A 4"],
    scores: Float[Array, "B A K"],
    *,
    score_threshold: float,
    iou_threshold: float,
    pre_nms: int,
    max_detections: int,
) -> Detections:
    """Boxes cut to the canvas, and suppressed class by class; candidates are the `pre_nms` best of each level."""
    shapes = outputs.shapes
    depth = boxes.shape[1] // sum(height * width for height, width in shapes.values())
    found, kept, labels, valid, index = nms.select_detections(
        box_ops.clip(boxes, *anchors.canvas_of(shapes)),
        scores,
        score_threshold=score_threshold,
        iou_threshold=iou_threshold,
        pre_nms=pre_nms,
        max_detections=max_detections,
        levels=[height * width * depth for height, width in shapes.values()],
    )
    return Detections(boxes=found, scores=kept, labels=labels, valid=valid, index=index)
