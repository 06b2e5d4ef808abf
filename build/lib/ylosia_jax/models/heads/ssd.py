"""SSD's head."""

from collections.abc import Mapping

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.models.backbones.ssd_vgg import xavier_init
from ylosia_jax.nn.conv import Conv
from ylosia_jax.types import DenseOutputs


class SSDHead(nn.Module):
    """A 3x3 convolution for classes and one for boxes on each level (SSD, arXiv:1512.02325, section 2.1).

    Attributes:
      num_classes: K.
      anchors: of a cell, level by level, the finest first.
    """

    num_classes: int
    anchors: tuple[int, ...]

    @nn.compact
    def __call__(self, features: Mapping[str, Float[Array, "B _ _ _"]], train: bool) -> DenseOutputs:
        """Returns logits [.., anchors * (K + 1)], the background's first, and deltas [.., anchors * 4] of all."""
        logits: dict[str, Array] = {}
        deltas: dict[str, Array] = {}
        for (level, x), anchors in zip(features.items(), self.anchors, strict=True):

            def conv(name: str, depth: int, x: Array = x) -> Array:
                return Conv(depth, 3, use_bias=True, kernel_init=xavier_init, name=name)(x).astype(jnp.float32)

            logits[level] = conv(f"class_{level}", anchors * (self.num_classes + 1))
            deltas[level] = conv(f"box_{level}", anchors * 4)
        return DenseOutputs(logits=logits, deltas=deltas)
