"""Resampling of feature maps."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def upsample(x: Float[Array, "B H W C"], factor: int = 2) -> Float[Array, "B H*{factor} W*{factor} C"]:
    """Nearest-neighbour enlargement by a whole factor."""
    batch, height, width, channels = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (batch, height, factor, width, factor, channels))
    return x.reshape(batch, height * factor, width * factor, channels)
