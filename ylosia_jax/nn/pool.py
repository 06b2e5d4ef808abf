"""Pooling and resampling of feature maps."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float


def max_pool(x: Float[Array, "B H W C"], kernel: int) -> Float[Array, "B H W C"]:
    """Square max pool with stride 1 that keeps the size; the border is padded with -inf, so it never wins."""
    pad = kernel // 2
    return nn.max_pool(x, (kernel, kernel), (1, 1), ((pad, pad), (pad, pad)))  # pyright: ignore[reportArgumentType]


def upsample(x: Float[Array, "B H W C"], factor: int = 2) -> Float[Array, "B H*{factor} W*{factor} C"]:
    """Nearest-neighbour enlargement by a whole factor."""
    batch, height, width, channels = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (batch, height, factor, width, factor, channels))
    return x.reshape(batch, height * factor, width * factor, channels)
