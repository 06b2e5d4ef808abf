"""Head for semantic segmentation."""

from collections.abc import Mapping

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.conv import Conv


class SemanticHead(nn.Module):
    """Logits of every semantic class at each cell of one level, which has seen the others.

    Attributes:
      num_classes: S.
      finest: the level.
    """

    num_classes: int
    finest: str = "p2"

    @nn.compact
    def __call__(self, features: Mapping[str, Float[Array, "B _ _ _"]], train: bool) -> Float[Array, "B h w S"]:
        """Returns [B, h, w, S]."""
        return Conv(self.num_classes, use_bias=True, name="out")(features[self.finest]).astype(jnp.float32)
