"""A finer level for heads that answer for pixels."""

from collections.abc import Mapping

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.conv import ConvNorm
from ylosia_jax.nn.resample import depth_to_space, upsample
from ylosia_jax.types import stride


class FineLevel(nn.Module):
    """One map at twice the finest level's resolution that has seen all levels.

    All levels are projected to its channels, enlarged to the finest one and added, as the semantic branch of
    Panoptic FPN does (arXiv:1901.02446, figure 3), but projected before enlarging. Sub-pixel convolution
    (arXiv:1609.05158) doubles the resolution at the end: a quarter of the cost of a convolution after enlarging.
    What is finer than those levels comes from the backbone: they need not carry it past the boxes that they are for.
    Heads of prototypes, of heatmaps and of semantic maps share the map, so that each of them costs little more than
    its last layer.

    Attributes:
      channels: of the result.
    """

    channels: int

    @nn.compact
    def __call__(
        self, features: Mapping[str, Float[Array, "B _ _ _"]], detail: Float[Array, "B h w _"], train: bool
    ) -> Float[Array, "B h w C"]:
        """Returns the map; its stride is that of `detail`, half the finest level's."""
        finest = next(iter(features))
        total = jnp.zeros(())
        for level, x in features.items():
            x = ConvNorm(self.channels, 1, activation="none", name=f"project_{level}")(x, train)
            factor = stride(level) // stride(finest)
            total = total + (upsample(x, factor) if factor > 1 else x)
        x = ConvNorm(self.channels, 3, name="mix")(nn.silu(total), train)
        x = depth_to_space(ConvNorm(4 * self.channels, 1, activation="none", name="expand")(x, train), 2)
        return nn.silu(x + ConvNorm(self.channels, 1, activation="none", name="detail")(detail, train))
