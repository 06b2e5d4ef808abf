"""Resampling of feature maps."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def upsample(x: Float[Array, "B H W C"], factor: int = 2) -> Float[Array, "B H*{factor} W*{factor} C"]:
    """Nearest-neighbour enlargement by a whole factor."""
    batch, height, width, channels = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (batch, height, factor, width, factor, channels))
    return x.reshape(batch, height * factor, width * factor, channels)


def depth_to_space(x: Float[Array, "B H W {factor}*{factor}*C"], factor: int = 2) -> Array:
    """Sub-pixel rearrangement (arXiv:1609.05158): [B, H, W, f * f * C] to [B, H * f, W * f, C].

    The channels of an input cell are those of its f x f output cells, row by row.
    """
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, factor, factor, channels // factor**2)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height * factor, width * factor, -1)


def upsample_to(x: Float[Array, "B h w C"], height: int, width: int) -> Float[Array, "B height width C"]:
    """Nearest-neighbour enlargement to any larger size: cell i of n takes floor(i * h / n), as PyTorch's does."""
    if height % x.shape[1] == 0 and width % x.shape[2] == 0 and height // x.shape[1] == width // x.shape[2]:
        return upsample(x, height // x.shape[1])
    rows = jnp.arange(height) * x.shape[1] // height
    columns = jnp.arange(width) * x.shape[2] // width
    return x[:, rows][:, :, columns]


def adaptive_average_pool(x: Float[Array, "B H W C"], height: int, width: int) -> Float[Array, "B height width C"]:
    """Means over windows that cover the map, for any sizes, as PyTorch's.

    Window i of n covers cells floor(i * H / n) to ceil((i + 1) * H / n): neighbours overlap by a cell where n does not
    divide H, and repeat cells where n is larger.
    """
    for axis, cells in ((1, height), (2, width)):
        size = x.shape[axis]
        if cells == size:
            continue
        low = np.arange(cells) * size // cells
        high = -(-(np.arange(cells) + 1) * size // cells)
        inside = (np.arange(size) >= low[:, None]) & (np.arange(size) < high[:, None])
        means = jnp.asarray(inside / (high - low)[:, None], x.dtype)
        x = jnp.moveaxis(jnp.tensordot(means, x, (1, axis)), 0, axis)
    return x
