"""The decoupled head of YOLOX, with objectness."""

import math
from collections.abc import Mapping

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.c3 import MOMENTUM, Conv3
from ylosia_jax.nn.conv import Conv, ConvNorm
from ylosia_jax.types import DenseOutputs

PRIOR = 0.01  # the score that objectness and classes start from


class YOLOXHead(nn.Module):
    """A stem and two branches at every level, one for classes, one for boxes and objectness (arXiv:2107.08430, 2.1).

    Attributes:
      num_classes: K.
      width: channels of stems and branches.
      depthwise: make 3x3 convolutions depthwise separable.
      levels: where objects are looked for, finest first.
    """

    num_classes: int
    width: int
    depthwise: bool = False
    levels: tuple[str, ...] = ("p3", "p4", "p5")

    @nn.compact
    def __call__(self, features: Mapping[str, Float[Array, "B _ _ _"]], train: bool) -> DenseOutputs:
        """Returns logits [.., K], deltas [.., 4] as `tasks.yolox` decodes them, and objectness as quality [.., 1]."""

        def branch(name: str, x: Array) -> Array:
            for i in range(2):
                x = Conv3(self.width, depthwise=self.depthwise, name=f"{name}_{i}")(x, train)
            return x

        def out(name: str, x: Array, features: int, bias: float) -> Array:
            layer = Conv(features, use_bias=True, name=f"{name}_out")
            return layer(x, nn.initializers.constant(bias)).astype(jnp.float32)

        prior = -math.log(1 / PRIOR - 1)
        logits: dict[str, Array] = {}
        deltas: dict[str, Array] = {}
        quality: dict[str, Array] = {}
        for level in self.levels:
            x = ConvNorm(self.width, momentum=MOMENTUM, name=f"stem_{level}")(features[level], train)
            logits[level] = out(f"class_{level}", branch(f"class_{level}", x), self.num_classes, prior)
            x = branch(f"box_{level}", x)
            deltas[level] = out(f"box_{level}", x, 4, 0.0)
            quality[level] = out(f"object_{level}", x, 1, prior)
        return DenseOutputs(logits=logits, deltas=deltas, quality=quality)
