"""FCOS's head."""

from collections.abc import Mapping

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.models.heads.retina import LEVELS, Tower, narrow_init, prior_bias
from ylosia_jax.nn.conv import Conv
from ylosia_jax.types import DenseOutputs


class FCOSHead(nn.Module):
    """One box a cell, and how near its cell is to the object's centre (FCOS, arXiv:1904.01355 and 2006.09214).

    The branches are normalised by groups of channels. Centre-ness is told from the box branch, and the distances to the
    four sides, in strides, are no exponentials but what a ReLU leaves of a number: the second paper's improvements.

    Attributes:
      num_classes: K.
      depth: convolutions of each branch before its last.
      levels: where objects are looked for, finest first.
      prior: every score at the beginning.
    """

    num_classes: int
    depth: int = 4
    levels: tuple[str, ...] = LEVELS
    prior: float = 0.01

    @nn.compact
    def __call__(self, features: Mapping[str, Float[Array, "B _ _ _"]], train: bool) -> DenseOutputs:
        """Returns logits [.., K], deltas [.., 4] (left, top, right, bottom) and quality [.., 1] of its levels."""
        class_tower = Tower(self.depth, "group", name="class_tower")
        box_tower = Tower(self.depth, "group", name="box_tower")
        classes = Conv(self.num_classes, 3, use_bias=True, kernel_init=narrow_init, name="class_out")
        boxes = Conv(4, 3, use_bias=True, kernel_init=narrow_init, name="box_out")
        centreness = Conv(1, 3, use_bias=True, kernel_init=narrow_init, name="quality_out")
        logits: dict[str, Array] = {}
        deltas: dict[str, Array] = {}
        quality: dict[str, Array] = {}
        for level in self.levels:
            logits[level] = classes(class_tower(features[level], train), prior_bias(self.prior)).astype(jnp.float32)
            x = box_tower(features[level], train)
            deltas[level] = nn.relu(boxes(x)).astype(jnp.float32)
            quality[level] = centreness(x).astype(jnp.float32)
        return DenseOutputs(logits=logits, deltas=deltas, quality=quality)
