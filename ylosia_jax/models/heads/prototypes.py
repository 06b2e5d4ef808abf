"""Head for instance masks as mixtures of prototypes."""

from collections.abc import Mapping

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.conv import Conv, ConvNorm
from ylosia_jax.nn.resample import depth_to_space
from ylosia_jax.types import MaskOutputs


class PrototypeHead(nn.Module):
    """Prototypes from the finest level at twice its resolution, coefficients at every level (YOLACT, 1904.02689).

    The prototypes' resolution is doubled by sub-pixel convolution (arXiv:1609.05158), which costs a quarter of a
    convolution after enlarging.

    Attributes:
      prototypes: C.
      width: channels between the finest level and the prototypes.
      branch: channels between a level and its coefficients.
    """

    prototypes: int = 32
    width: int = 64
    branch: int = 32

    @nn.compact
    def __call__(self, features: Mapping[str, Float[Array, "B _ _ _"]], train: bool) -> MaskOutputs:
        """Returns prototypes on a grid of half the finest level's stride."""
        x = ConvNorm(self.width, 3, name="trunk")(next(iter(features.values())), train)
        x = depth_to_space(ConvNorm(4 * self.prototypes, 1, name="expand")(x, train), 2)
        coefficients: dict[str, Array] = {}
        for level, y in features.items():
            y = ConvNorm(self.branch, 3, name=f"branch_{level}")(y, train)
            out = Conv(self.prototypes, use_bias=True, name=f"out_{level}")(y)
            # Both signs: a mask is cut out of prototypes as well as put together from them.
            coefficients[level] = jnp.tanh(out.astype(jnp.float32))
        return MaskOutputs(prototypes=x.astype(jnp.float32), coefficients=coefficients)
