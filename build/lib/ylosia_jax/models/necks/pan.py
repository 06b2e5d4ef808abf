"""Path aggregation neck."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.models.necks.fine import FineLevel
from ylosia_jax.nn.blocks import C2f
from ylosia_jax.nn.conv import ConvNorm
from ylosia_jax.nn.resample import upsample


class PAN(nn.Module):
    """Top-down, then bottom-up fusion of c3, c4 and c5 (PANet, arXiv:1803.01534) by concatenation and C2f stages.

    Attributes:
      widths: channels of p3, p4 and p5.
      depth: bottlenecks in each of the four stages.
      fine: channels of a level p2 made of the others and c2, for heads that answer for pixels; 0 for no such level.
    """

    widths: tuple[int, int, int]
    depth: int
    fine: int = 0

    @nn.compact
    def __call__(self, features: dict[str, Float[Array, "B _ _ _"]], train: bool) -> dict[str, Array]:
        """Returns levels p3, p4 and p5, with strides 8, 16 and 32; before them p2, with stride 4, where `fine`."""

        def fuse(width: int, name: str, *parts: Array) -> Array:
            return C2f(width, self.depth, shortcut=False, name=name)(jnp.concatenate(parts, axis=-1), train)

        width3, width4, width5 = self.widths
        top4 = fuse(width4, "top4", upsample(features["c5"]), features["c4"])
        p3 = fuse(width3, "top3", upsample(top4), features["c3"])
        p4 = fuse(width4, "bottom4", ConvNorm(width3, 3, 2, name="down4")(p3, train), top4)
        p5 = fuse(width5, "bottom5", ConvNorm(width4, 3, 2, name="down5")(p4, train), features["c5"])
        levels = {"p3": p3, "p4": p4, "p5": p5}
        if not self.fine:
            return levels
        return {"p2": FineLevel(self.fine, name="fine")(levels, features["c2"], train), **levels}
