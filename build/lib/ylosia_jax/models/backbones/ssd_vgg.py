"""VGG-16 with the layers that SSD adds."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.models.backbones.vgg import DEPTHS, WIDTHS, vgg_stage
from ylosia_jax.nn.conv import Conv
from ylosia_jax.ops.conv import max_pool

xavier_init = nn.initializers.xavier_uniform()

# Of SSD300, from conv8 on: channels of the 1x1 and of the 3x3 convolution, stride and padding of the latter.
EXTRAS = ((256, 512, 2, 1), (128, 256, 2, 1), (128, 256, 1, 0), (128, 256, 1, 0))


class SSDVGG(nn.Module):
    """VGG-16 whose classifier became convolutions, and what comes after it (SSD, arXiv:1512.02325, 2.1 and 3).

    The third pool rounds its size up, the last one keeps it, and the convolution that was the first matrix is dilated
    instead. The first level is scaled: each cell to length 1, then each channel by a learned number (ParseNet,
    arXiv:1506.04579, section 3.3).

    Attributes:
      depths, widths: of the five stages, see `vgg.VGG`.
      fc_width: channels of fc6 and fc7.
      extras: see `EXTRAS`.
    """

    # Whatever is left over of a size is rounded, and nothing is enlarged again.
    divisor: ClassVar[int] = 1

    depths: tuple[int, ...] = DEPTHS
    widths: tuple[int, ...] = WIDTHS
    fc_width: int = 1024
    extras: tuple[tuple[int, int, int, int], ...] = EXTRAS

    @nn.compact
    def __call__(self, image: Float[Array, "B H W 3"], train: bool) -> dict[str, Array]:
        """Returns conv4_3 as p3, fc7 as p4, and p5 to p8; of 300 x 300 pixels 38, 19, 10, 5, 3 and 1 cells a side.

        The cells of the last two are a little nearer to each other than their names say.
        """

        def conv(
            name: str, x: Array, width: int, kernel: int, stride: int = 1, pad: int = 0, dilation: int = 1
        ) -> Array:
            layer = Conv(
                width,
                kernel,
                stride,
                use_bias=True,
                dilation=dilation,
                padding=pad,
                kernel_init=xavier_init,
                name=name,
            )
            return nn.relu(layer(x))

        x = image
        levels: dict[str, Array] = {}
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True), start=1):
            x = vgg_stage(x, train, stage=stage, depth=depth, width=width)
            if stage == 4:
                scale = self.param("scale", nn.initializers.constant(20.0), (width,))
                # Of hundreds of squares: bfloat16 would lose the small ones.
                squares = jnp.square(x.astype(jnp.promote_types(x.dtype, jnp.float32))).sum(axis=-1, keepdims=True)
                levels["p3"] = x * jax.lax.rsqrt(jnp.maximum(squares, 1e-24)).astype(x.dtype) * scale
            x = max_pool(x, 3, 1) if stage == 5 else max_pool(x, 2, 2, padding=0, ceil=stage == 3)
        x = conv("fc6", x, self.fc_width, 3, pad=6, dilation=6)
        x = levels["p4"] = conv("fc7", x, self.fc_width, 1)
        for i, (narrow, wide, stride, padding) in enumerate(self.extras):
            x = conv(f"conv{8 + i}_1", x, narrow, 1)
            x = levels[f"p{5 + i}"] = conv(f"conv{8 + i}_2", x, wide, 3, stride, padding)
        return levels
