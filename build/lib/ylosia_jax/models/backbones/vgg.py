"""VGG (arXiv:1409.1556)."""

from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.conv import Conv, ConvNorm, kaiming_init
from ylosia_jax.ops.conv import max_pool

# Of VGG-16, the paper's configuration D: convolutions and channels of its five stages.
DEPTHS = (2, 2, 3, 3, 3)
WIDTHS = (64, 128, 256, 512, 512)


def vgg_stage(
    x: Float[Array, "B H W C"], train: bool, *, stage: int, depth: int, width: int, batch_norm: bool = False
) -> Float[Array, "B H W {width}"]:
    """The 3x3 convolutions of one stage, each with a ReLU and without the pool that follows; in a compact module.

    Their parameters are called as in the paper, from `conv1_1` to `conv5_3`, whatever lies between the stages.

    Args:
      stage: from 1.
    """
    for i in range(1, depth + 1):
        name = f"conv{stage}_{i}"
        if batch_norm:
            layer = ConvNorm(width, 3, activation="relu", eps=1e-5, use_bias=True, kernel_init=kaiming_init, name=name)
            x = layer(x, train)
        else:
            x = nn.relu(Conv(width, 3, use_bias=True, kernel_init=kaiming_init, name=name)(x))
    return x


class VGG(nn.Module):
    """Stages of 3x3 convolutions, each with a bias, and a 2x2 max pool after each stage.

    Attributes:
      depths: convolutions in each stage.
      widths: their channels.
      batch_norm: normalise before each ReLU, as the paper does not.
      last_pool: False leaves out the last stage's pool; its level has then the stride of the one before, whatever its
        name says (Fast R-CNN, arXiv:1504.08083, section 2.2).
    """

    depths: tuple[int, ...] = DEPTHS
    widths: tuple[int, ...] = WIDTHS
    batch_norm: bool = False
    last_pool: bool = True

    @nn.compact
    def __call__(self, image: Float[Array, "B H W 3"], train: bool) -> dict[str, Array]:
        """Returns levels c1 to c5, with strides 2 to 32: each stage after its pool, which leaves out odd last cells."""
        x = image
        features: dict[str, Array] = {}
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True), start=1):
            x = vgg_stage(x, train, stage=stage, depth=depth, width=width, batch_norm=self.batch_norm)
            if self.last_pool or stage < len(self.depths):
                x = max_pool(x, 2, 2, padding=0)
            features[f"c{stage}"] = x
        return features
