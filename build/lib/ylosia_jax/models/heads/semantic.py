"""Head for semantic segmentation."""

from collections.abc import Mapping

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.conv import Conv
from ylosia_jax.nn.resample import upsample


class SemanticHead(nn.Module):
    """Logits of every semantic class at each cell of the finest level: a linear answer of each level, added up.

    Coarse answers are enlarged and corrected by finer ones (FCN, arXiv:1411.4038, section 4.2), so that those levels
    which see the whole picture learn at once what it shows, and the finest one only where it ends.

    Attributes:
      num_classes: S.
      levels: finest first, each of twice the stride of the one before.
    """

    num_classes: int
    levels: tuple[str, ...] = ("p2", "p3", "p4", "p5")

    @nn.compact
    def __call__(self, features: Mapping[str, Float[Array, "B _ _ _"]], train: bool) -> Float[Array, "B h w S"]:
        """Returns [B, h, w, S] on the grid of the first of its levels."""
        total = None
        for level in reversed(self.levels):
            logits = Conv(self.num_classes, use_bias=True, name=f"out_{level}")(features[level]).astype(jnp.float32)
            total = logits if total is None else upsample(total) + logits
        assert total is not None, "a semantic head needs a level"
        return total
