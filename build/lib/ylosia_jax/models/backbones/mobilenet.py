"""MobileNetV2 (arXiv:1801.04381)."""

from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.conv import Activation, ConvNorm, kaiming_init

# The paper's table 2: expansion, channels, blocks, stride of the first.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def rounded(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of 8, but none that is more than a tenth smaller."""
    near = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return near + divisor if near < 0.9 * channels else near


class InvertedResidual(nn.Module):
    """Expansion by a 1x1 convolution, a depthwise 3x3 one, and a 1x1 projection without activation (section 3.3).

    It is added to its input where the shape stays.

    Attributes:
      expansion: of the channels between; 1 leaves its convolution out.
    """

    features: int
    stride: int = 1
    expansion: int = 6

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Array:
        """Returns [B, ceil(H / stride), ceil(W / stride), features]."""
        hidden = self.expansion * x.shape[-1]

        def conv(
            name: str, x: Array, features: int, activation: Activation = "relu6", depthwise: bool = False
        ) -> Array:
            kernel, stride, groups = (3, self.stride, features) if depthwise else (1, 1, 1)
            layer = ConvNorm(
                features, kernel, stride, activation, eps=1e-5, groups=groups, kernel_init=kaiming_init, name=name
            )
            return layer(x, train)

        y = conv("expand", x, hidden) if self.expansion > 1 else x
        y = conv("depthwise", y, hidden, depthwise=True)
        y = conv("project", y, self.features, "none")
        return x + y if x.shape == y.shape else y


class MobileNetV2(nn.Module):
    """A stem, inverted residuals, and a 1x1 convolution.

    Attributes:
      width: multiple of all channels; those of the last convolution do not fall below 1280.
      stages: (expansion, channels, blocks, stride) of each.
    """

    width: float = 1.0
    stages: tuple[tuple[int, int, int, int], ...] = STAGES

    @nn.compact
    def __call__(self, image: Float[Array, "B H W 3"], train: bool) -> dict[str, Array]:
        """Returns levels c1 to c5, with strides 2 to 32: the last block of each, of c5 the convolution after it."""

        def conv(name: str, x: Array, features: int, kernel: int, stride: int) -> Array:
            layer = ConvNorm(features, kernel, stride, "relu6", eps=1e-5, kernel_init=kaiming_init, name=name)
            return layer(x, train)

        x = conv("stem", image, rounded(32 * self.width), 3, 2)
        features: dict[str, Array] = {}
        level = number = 1
        for expansion, channels, blocks, stride in self.stages:
            for i in range(blocks):
                step = stride if i == 0 else 1
                level += step - 1
                x = InvertedResidual(rounded(channels * self.width), step, expansion, name=f"block{number}")(x, train)
                number += 1
            features[f"c{level}"] = x
        features[f"c{level}"] = conv("last", x, rounded(1280 * max(self.width, 1.0)), 1, 1)
        return features
