"""Semantic segmentation: a class for every pixel.

Shape shorthand: B images, H W canvas, h w cells of a grid, S classes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from ylosia_jax.ops import losses, sources
from ylosia_jax.ops import masks as mask_ops
from ylosia_jax.types import VOID, Batch, Label, SemanticMap


@struct.dataclass
class SemanticTargets:
    """What each cell of the truth's grid is asked for.

    Attributes:
      labels: [B, h, w] class; any where not labelled.
      labelled: [B, h, w] False where nobody says what is there.
    """

    labels: Int[Array, "B h w"]
    labelled: Bool[Array, "B h w"]


@dataclasses.dataclass(frozen=True)
class Semantic:
    """What a semantic head's logits mean.

    Attributes:
      classes: S, things and stuff.
      gain: weight of the loss.
      dice: weight of the overlap loss within it, which counts every class of the batch alike, however small.
      stride: pixels of the canvas that a cell of the logits is wide.
      head: whose outputs these are: [B, h, w, S] logits.
    """

    classes: int
    gain: float = 3.0
    dice: float = 1.0
    stride: int = 4
    head: str = "semantic"

    @property
    def needs(self) -> frozenset[Label]:
        """The labels without which this cannot be learned."""
        return frozenset({"semantic"})

    def encode(self, outputs: Mapping[str, Any], batch: Batch, targets: Mapping[str, Any]) -> SemanticTargets:
        """The truth as it stands.

        Raises:
          ValueError: if the batch has no semantic map, or the logits another stride or another number of classes.
        """
        if batch.semantic is None:
            raise ValueError("the batch has no semantic map")
        *cells, classes = outputs[self.head].shape[1:]
        if classes != self.classes:
            raise ValueError(f"the task has {self.classes} semantic classes, the head's logits are of {classes}")
        if (cells[0] * self.stride, cells[1] * self.stride) != batch.image.shape[1:3]:
            raise ValueError(f"stride is {self.stride}, but the logits are {tuple(cells)} cells of the canvas")
        labels = batch.semantic.astype(jnp.int32)
        return SemanticTargets(labels=labels, labelled=labels != VOID)

    def loss(
        self, outputs: Mapping[str, Any], targets: Mapping[str, Any], batch: Batch
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Cross entropy over the labelled cells of the global batch, and soft Dice (V-Net, arXiv:1606.04797).

        Both are those of each set of a mixture. Logits on another grid than the truth's are enlarged to it bilinearly.
        Cells that are not labelled cost nothing.
        """
        wanted: SemanticTargets = targets[self.head]
        logits = _resize(outputs[self.head], wanted.labels.shape[1], wanted.labels.shape[2])
        labelled = wanted.labelled.astype(jnp.float32)
        cross = losses.softmax_cross_entropy_loss(logits, wanted.labels) * labelled
        cross = sources.mean_over_batch(cross.sum(axis=(1, 2)), labelled.sum(axis=(1, 2)), batch.source)
        parts = {"cross_entropy": self.gain * cross}
        if self.dice:
            truth = jax.nn.one_hot(wanted.labels, logits.shape[-1]) * labelled[..., None]
            found = jax.nn.softmax(logits) * labelled[..., None]
            both, sizes, drawn = (
                sources.sum_by_source(x.sum(axis=(1, 2)), batch.source) for x in (truth * found, truth + found, truth)
            )
            overlap, present = 1 - 2 * both / jnp.maximum(sizes, 1), drawn > 0
            mean = (overlap * present).sum(axis=1) / jnp.maximum(present.sum(axis=1), 1)
            parts["dice"] = self.gain * self.dice * sources.mean_of_sources(mean, batch.source)
        return sum(parts.values(), start=jnp.zeros(())), parts

    def decode(self, outputs: Mapping[str, Any], answers: Mapping[str, Any]) -> SemanticMap:
        """The likeliest class of each pixel, of the logits enlarged to the canvas."""
        return SemanticMap(labels=mask_ops.enlarged_argmax(outputs[self.head], self.stride))


def _resize(logits: Float[Array, "B h w S"], height: int, width: int) -> Float[Array, "B H W S"]:
    if logits.shape[1:3] == (height, width):
        return logits
    return jnp.moveaxis(mask_ops.resize(jnp.moveaxis(logits, -1, 1), height, width), 1, -1)
