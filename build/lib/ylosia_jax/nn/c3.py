"""The blocks of YOLOX (arXiv:2107.08430), whole or depthwise separable."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.conv import ConvNorm

MOMENTUM = 0.97  # of YOLOX's batch norms, 1 - PyTorch's 0.03


class Conv3(nn.Module):
    """A 3x3 convolution, or in its place a 3x3 one of each channel alone and a 1x1 one (arXiv:1704.04861, 3.1).

    Attributes:
      depthwise: the latter; both parts have norm and activation.
    """

    features: int
    stride: int = 1
    depthwise: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Array:
        """Returns [B, ceil(H / stride), ceil(W / stride), features]."""
        if not self.depthwise:
            return ConvNorm(self.features, 3, self.stride, momentum=MOMENTUM, name="full")(x, train)
        channels = x.shape[-1]
        x = ConvNorm(channels, 3, self.stride, groups=channels, momentum=MOMENTUM, name="depthwise")(x, train)
        return ConvNorm(self.features, momentum=MOMENTUM, name="pointwise")(x, train)


class C3(nn.Module):
    """CSP stage of three 1x1 convolutions (CSPNet, arXiv:1911.11929): one half of the channels takes a short cut.

    The other goes through `repeats` bottlenecks of a 1x1 and a 3x3 convolution, added to their input where `shortcut`.
    """

    features: int
    repeats: int = 1
    shortcut: bool = True
    depthwise: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Array:
        """Returns [B, H, W, features]."""

        def pointwise(name: str, x: Array, features: int) -> Array:
            return ConvNorm(features, momentum=MOMENTUM, name=name)(x, train)

        hidden = self.features // 2
        deep, short = pointwise("deep", x, hidden), pointwise("short", x, hidden)
        for i in range(self.repeats):
            y = pointwise(f"block{i}_reduce", deep, hidden)
            y = Conv3(hidden, depthwise=self.depthwise, name=f"block{i}_conv")(y, train)
            deep = deep + y if self.shortcut else y
        return pointwise("fuse", jnp.concatenate([deep, short], axis=-1), self.features)
