"""Semantic segmentation: a class for every pixel.

Shape shorthand: B images, H W canvas, h w cells of a grid, S classes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from ylosia_jax.ops import losses, sources
from ylosia_jax.ops import masks as mask_ops
from ylosia_jax.types import Batch, Label, SemanticMap


@struct.dataclass
class SemanticTargets:
    """What each cell of the logits' grid is asked for.

    Attributes:
      shares: [B, h, w, S] how much of the cell each class covers; nobody says what is in the rest of it.
    """

    shares: Float[Array, "B h w S"]


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
        """The shares of the classes in each cell.

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
        wanted = jnp.broadcast_to(jnp.arange(classes), (len(batch.semantic), classes))
        shares = mask_ops.cell_shares(batch.semantic.astype(jnp.int32), wanted, cells[0], cells[1])
        return SemanticTargets(shares=jnp.moveaxis(shares, 1, -1))

    def loss(
        self, outputs: Mapping[str, Any], targets: Mapping[str, Any], batch: Batch
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Cross entropy over the labelled cells of the global batch, and soft Dice (V-Net, arXiv:1606.04797, 3).

        Both are those of each set of a mixture. Cells count as far as they are labelled; of one that several classes
        share the logits are asked to tell the shares.
        """
        truth: Array = targets[self.head].shares
        logits: Array = outputs[self.head]
        labelled = truth.sum(axis=-1)
        cross = losses.softmax_divergence_loss(logits, truth)
        cross = sources.mean_over_batch(cross.sum(axis=(1, 2)), labelled.sum(axis=(1, 2)), batch.source)
        parts = {"cross_entropy": self.gain * cross}
        if self.dice:
            found = jax.nn.softmax(logits) * labelled[..., None]
            each = truth * found, truth**2 + found**2, truth
            both, sizes, drawn = (sources.sum_by_source(x.sum(axis=(1, 2)), batch.source) for x in each)
            overlap, present = 1 - 2 * both / jnp.maximum(sizes, 1), drawn > 0
            mean = (overlap * present).sum(axis=1) / jnp.maximum(present.sum(axis=1), 1)
            parts["dice"] = self.gain * self.dice * sources.mean_of_sources(mean, batch.source)
        return sum(parts.values(), start=jnp.zeros(())), parts

    def decode(self, outputs: Mapping[str, Any], answers: Mapping[str, Any]) -> SemanticMap:
        """The likeliest class of each pixel, of the logits enlarged to the canvas."""
        return SemanticMap(labels=mask_ops.enlarged_argmax(outputs[self.head], self.stride))
