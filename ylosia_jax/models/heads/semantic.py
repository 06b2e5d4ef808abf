"""Head for semantic segmentation."""

from collections.abc import Mapping

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.conv import Conv, ConvNorm
from ylosia_jax.nn.resample import depth_to_space, upsample
from ylosia_jax.types import stride


class SemanticHead(nn.Module):
    """Logits of every semantic class at twice the finest level's resolution.

    All levels are projected to `width` channels, enlarged to the finest one and added, as the semantic branch of
    Panoptic FPN does (arXiv:1901.02446, figure 3), but projected before enlarging; sub-pixel convolution
    (arXiv:1609.05158) doubles the resolution at the end.

    Attributes:
      num_classes: S.
      width: channels.
    """

    num_classes: int
    width: int = 64

    @nn.compact
    def __call__(self, features: Mapping[str, Float[Array, "B _ _ _"]], train: bool) -> Float[Array, "B h w S"]:
        """Returns [B, h, w, S] on a grid of half the finest level's stride."""
        finest = next(iter(features))
        total = jnp.zeros(())
        for level, x in features.items():
            x = ConvNorm(self.width, 1, activation="none", name=f"project_{level}")(x, train)
            factor = stride(level) // stride(finest)
            total = total + (upsample(x, factor) if factor > 1 else x)
        x = ConvNorm(self.width, 3, name="mix")(nn.silu(total), train)
        x = Conv(4 * self.num_classes, use_bias=True, name="out")(x)
        return depth_to_space(x.astype(jnp.float32), 2)
