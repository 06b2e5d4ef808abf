"""Blocks of the cross-stage-partial family (CSPNet, arXiv:1911.11929)."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.conv import ConvNorm
from ylosia_jax.ops.conv import max_pool


class Bottleneck(nn.Module):
    """Two 3x3 convolutions, added to their input where `shortcut`."""

    features: int
    shortcut: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Array:
        """Returns [B, H, W, features]."""
        y = ConvNorm(self.features, 3, name="conv1")(x, train)
        y = ConvNorm(self.features, 3, name="conv2")(y, train)
        return x + y if self.shortcut else y


class C2f(nn.Module):
    """CSP stage that keeps every bottleneck's output for its last convolution (as ELAN does, arXiv:2211.04800).

    Half of the channels go through `repeats` bottlenecks in a row; both halves and all intermediate results are
    concatenated and fused by a 1x1 convolution.
    """

    features: int
    repeats: int = 1
    shortcut: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Array:
        """Returns [B, H, W, features]."""
        hidden = self.features // 2
        parts = jnp.split(ConvNorm(2 * hidden, 1, name="split")(x, train), 2, axis=-1)
        for i in range(self.repeats):
            parts.append(Bottleneck(hidden, self.shortcut, name=f"block{i}")(parts[-1], train))
        return ConvNorm(self.features, 1, name="fuse")(jnp.concatenate(parts, axis=-1), train)


class SPPF(nn.Module):
    """Spatial pyramid pooling (arXiv:1406.4729) as three chained 5x5 max pools, which see 5, 9 and 13 cells."""

    features: int
    kernel: int = 5
    momentum: float = 0.9

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Array:
        """Returns [B, H, W, features]."""
        x = ConvNorm(x.shape[-1] // 2, 1, momentum=self.momentum, name="reduce")(x, train)
        parts = [x]
        for _ in range(3):
            parts.append(max_pool(parts[-1], self.kernel))
        fuse = ConvNorm(self.features, 1, momentum=self.momentum, name="fuse")
        return fuse(jnp.concatenate(parts, axis=-1), train)
