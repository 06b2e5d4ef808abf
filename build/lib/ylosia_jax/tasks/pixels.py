"""Semantic segmentation, asked pixel by pixel: the logits are enlarged to the canvas before they are compared.

Shape shorthand: B images, H W canvas, h w cells of a head's grid, S classes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ylosia_jax.ops import losses, sources
from ylosia_jax.ops import masks as mask_ops
from ylosia_jax.ops.image import resize
from ylosia_jax.types import VOID, Batch, Label, SemanticMap


@dataclasses.dataclass(frozen=True)
class PixelSemantic:
    """What a semantic head's logits mean to FCN and DeepLab: enlarged bilinearly, the classes of all pixels.

    It is the logits that are enlarged, and not the truth that shrinks (DeepLabv3, arXiv:1706.05587, section 4.1), so
    that no detail of the truth is lost. `tasks.semantic.Semantic` asks the cells instead, for their shares.

    Attributes:
      classes: S, things and stuff.
      stride: pixels of the canvas that a cell of the logits is wide.
      class_weights: of each class's pixels in the loss and in what it is divided by; empty for 1 each.
      head: whose outputs these are: [B, h, w, S] logits.
      auxiliary: a second head, of any stride, that is only learned; "" for none.
      auxiliary_gain: weight of its loss (PSPNet's is 0.4, torchvision's 0.5).
    """

    classes: int
    stride: int = 8
    class_weights: tuple[float, ...] = ()
    head: str = "semantic"
    auxiliary: str = ""
    auxiliary_gain: float = 0.5

    def __post_init__(self) -> None:
        if self.class_weights and len(self.class_weights) != self.classes:
            raise ValueError(f"class_weights are {self.class_weights}: give one for each of the {self.classes} classes")

    @property
    def needs(self) -> frozenset[Label]:
        """The labels without which this cannot be learned."""
        return frozenset({"semantic"})

    def encode(self, outputs: Mapping[str, Any], batch: Batch, targets: Mapping[str, Any]) -> Int[Array, "B H W"]:
        """The class of each pixel, or VOID.

        Raises:
          ValueError: if the batch has no semantic map, or the logits another stride or another number of classes.
        """
        if batch.semantic is None:
            raise ValueError("the batch has no semantic map")
        *cells, classes = outputs[self.head].shape[1:]
        if classes != self.classes:
            raise ValueError(f"the task has {self.classes} semantic classes, the head's logits are of {classes}")
        if (cells[0] * self.stride, cells[1] * self.stride) != batch.semantic.shape[1:]:
            raise ValueError(f"stride is {self.stride}, but the logits are {tuple(cells)} cells of the canvas")
        return jnp.asarray(batch.semantic, jnp.int32)

    def loss(
        self, outputs: Mapping[str, Any], targets: Mapping[str, Any], batch: Batch
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Cross entropy over the labelled pixels of the global batch, of each set of a mixture, and the auxiliary's."""
        truth: Array = targets[self.head]
        weights = (truth != VOID).astype(jnp.float32)
        if self.class_weights:
            weights = (jax.nn.one_hot(truth, self.classes) * jnp.array(self.class_weights)).sum(axis=-1)

        def mean(logits: Array) -> Array:
            each = losses.softmax_cross_entropy_loss(resize(logits, *truth.shape[1:]), truth) * weights
            return sources.mean_over_batch(each.sum(axis=(1, 2)), weights.sum(axis=(1, 2)), batch.source)

        parts = {"cross_entropy": mean(outputs[self.head])}
        if self.auxiliary:
            parts["auxiliary"] = self.auxiliary_gain * mean(outputs[self.auxiliary])
        return sum(parts.values(), start=jnp.zeros(())), parts

    def decode(self, outputs: Mapping[str, Any], answers: Mapping[str, Any]) -> SemanticMap:
        """The likeliest class of each pixel, of the logits enlarged to the canvas."""
        return SemanticMap(labels=mask_ops.enlarged_argmax(outputs[self.head], self.stride))
