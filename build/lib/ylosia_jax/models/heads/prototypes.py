"""Head for instance masks as mixtures of prototypes."""

from collections.abc import Mapping

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.conv import Conv, ConvNorm
from ylosia_jax.types import MaskOutputs


class PrototypeHead(nn.Module):
    """Prototypes from the finest level, coefficients at those where objects are looked for (YOLACT, 1904.02689).

    Attributes:
      prototypes: C.
      branch: channels between a level and its coefficients.
      levels: of the head whose objects these masks belong to.
      finest: level whose grid the prototypes have.
    """

    prototypes: int = 32
    branch: int = 32
    levels: tuple[str, ...] = ("p3", "p4", "p5")
    finest: str = "p2"

    @nn.compact
    def __call__(self, features: Mapping[str, Float[Array, "B _ _ _"]], train: bool) -> MaskOutputs:
        """Returns prototypes [B, h, w, C] and coefficients [.., C] of its levels."""
        prototypes = ConvNorm(self.prototypes, 1, name="prototypes")(features[self.finest], train)
        coefficients: dict[str, Array] = {}
        for level in self.levels:
            x = ConvNorm(self.branch, 1, name=f"branch_{level}")(features[level], train)
            out = Conv(self.prototypes, use_bias=True, name=f"out_{level}")(x)
            # Both signs: a mask is cut out of prototypes as well as put together from them.
            coefficients[level] = jnp.tanh(out.astype(jnp.float32))
        return MaskOutputs(prototypes=prototypes.astype(jnp.float32), coefficients=coefficients)
