"""The backbone of YOLOX (arXiv:2107.08430): Darknet53 with cross-stage-partial stages, from YOLOv5."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.blocks import SPPF
from ylosia_jax.nn.c3 import C3, MOMENTUM, Conv3
from ylosia_jax.nn.conv import ConvNorm


def focus(image: Float[Array, "B H W C"]) -> Float[Array, "B H/2 W/2 4*C"]:
    """Each 2x2 patch as one cell, without loss: its pixels' channels one after the other, down the columns first."""
    return jnp.concatenate([image[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], axis=-1)


class CSPDarknet(nn.Module):
    """Five halvings of the image: the first without loss, the others by convolutions, each followed by a C3 stage.

    The last stage begins with spatial pyramid pooling and has no shortcuts.

    Attributes:
      widths: channels of the stem and of the stages c2, c3, c4, c5.
      depths: bottlenecks in the stages c2, c3, c4, c5.
      depthwise: make 3x3 convolutions behind the stem depthwise separable.
    """

    widths: tuple[int, int, int, int, int]
    depths: tuple[int, int, int, int]
    depthwise: bool = False

    @nn.compact
    def __call__(self, image: Float[Array, "B H W 3"], train: bool) -> dict[str, Array]:
        """Returns levels c2 to c5, with strides 4 to 32."""
        x = ConvNorm(self.widths[0], 3, momentum=MOMENTUM, name="stem")(focus(image), train)
        features: dict[str, Array] = {}
        for level, (width, depth) in enumerate(zip(self.widths[1:], self.depths, strict=True), start=2):
            x = Conv3(width, 2, self.depthwise, name=f"down{level}")(x, train)
            if level == 5:
                # Of pools that see 5, 9 and 13 cells, as here.
                x = SPPF(width, momentum=MOMENTUM, name="spp")(x, train)
            x = C3(width, depth, level != 5, self.depthwise, name=f"stage{level}")(x, train)
            features[f"c{level}"] = x
        return features
