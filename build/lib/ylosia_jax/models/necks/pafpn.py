"""The neck of YOLOX (arXiv:2107.08430)."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.c3 import C3, MOMENTUM, Conv3
from ylosia_jax.nn.conv import ConvNorm
from ylosia_jax.nn.resample import upsample


class PAFPN(nn.Module):
    """Top-down, then bottom-up fusion of c3, c4 and c5 (PANet, arXiv:1803.01534) by concatenation and C3 stages.

    Unlike `necks.pan.PAN` it narrows a level before it is enlarged; what is narrowed is also what the way up adds.

    Attributes:
      widths: channels of p3, p4 and p5.
      depth: bottlenecks in each of the four stages.
      depthwise: make 3x3 convolutions depthwise separable.
    """

    widths: tuple[int, int, int]
    depth: int
    depthwise: bool = False

    @nn.compact
    def __call__(self, features: dict[str, Float[Array, "B _ _ _"]], train: bool) -> dict[str, Array]:
        """Returns levels p3, p4 and p5, with strides 8, 16 and 32."""

        def fuse(width: int, name: str, *parts: Array) -> Array:
            stage = C3(width, self.depth, shortcut=False, depthwise=self.depthwise, name=name)
            return stage(jnp.concatenate(parts, axis=-1), train)

        def narrow(width: int, name: str, x: Array) -> Array:
            return ConvNorm(width, momentum=MOMENTUM, name=name)(x, train)

        def shrink(width: int, name: str, x: Array) -> Array:
            return Conv3(width, 2, self.depthwise, name=name)(x, train)

        width3, width4, width5 = self.widths
        narrow5 = narrow(width4, "narrow5", features["c5"])
        top4 = fuse(width4, "top4", upsample(narrow5), features["c4"])
        narrow4 = narrow(width3, "narrow4", top4)
        p3 = fuse(width3, "top3", upsample(narrow4), features["c3"])
        p4 = fuse(width4, "bottom4", shrink(width3, "down4", p3), narrow4)
        p5 = fuse(width5, "bottom5", shrink(width4, "down5", p4), narrow5)
        return {"p3": p3, "p4": p4, "p5": p5}
