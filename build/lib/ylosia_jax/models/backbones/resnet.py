"""Residual networks (arXiv:1512.03385)."""

from typing import Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.conv import Activation, ConvNorm, kaiming_init
from ylosia_jax.nn.norm import NormKind
from ylosia_jax.ops.conv import max_pool

Depth = Literal[18, 34, 50, 101]

# Layers -> blocks in the stages, and whether these are bottlenecks (table 1).
DEPTHS: dict[Depth, tuple[tuple[int, int, int, int], bool]] = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
}


class Residual(nn.Module):
    """A residual block: its input, projected where its shape changes, plus what its convolutions add to it.

    Attributes:
      features: of the 3x3 convolutions.
      bottleneck: 1x1, 3x3, 1x1 with four times the features, instead of two 3x3. The 3x3 one carries the stride, as in
        torchvision ("v1.5"); in the paper it is the 1x1 before it.
      shortcut: how the input gets the shape of the result: by a 1x1 convolution, or without parameters, by leaving out
        cells and adding zero channels, half of them before the others (the paper's options B and A, section 3.3).
    """

    features: int
    bottleneck: bool
    stride: int = 1
    dilation: int = 1
    norm: NormKind = "batch"
    eps: float = 1e-5
    shortcut: Literal["project", "pad"] = "project"

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Array:
        """Returns [B, ceil(H / stride), ceil(W / stride), features], or four times the features."""

        def conv(name: str, x: Array, features: int, kernel: int, stride: int, activation: Activation) -> Array:
            layer = ConvNorm(
                features,
                kernel,
                stride,
                activation,
                eps=self.eps,
                dilation=self.dilation if kernel == 3 else 1,
                norm=self.norm,
                kernel_init=kaiming_init,
                name=name,
            )
            return layer(x, train)

        if self.bottleneck:
            out = 4 * self.features
            y = conv("conv1", x, self.features, 1, 1, "relu")
            y = conv("conv2", y, self.features, 3, self.stride, "relu")
            y = conv("conv3", y, out, 1, 1, "none")
        else:
            out = self.features
            y = conv("conv1", x, self.features, 3, self.stride, "relu")
            y = conv("conv2", y, out, 3, 1, "none")
        if x.shape[-1] != out or self.stride != 1:
            if self.shortcut == "project":
                x = conv("project", x, out, 1, self.stride, "none")
            else:
                more = out - x.shape[-1]
                x = x[:, :: self.stride, :: self.stride]
                x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (more // 2, more - more // 2)))
        return nn.relu(x + y)


class ResNet(nn.Module):
    """A 7x7 stem and four stages of residual blocks.

    Attributes:
      depths: blocks in the stages c2, c3, c4, c5.
      bottleneck: see `Residual`.
      width: features of the stem and of the first stage, which double from stage to stage.
      output_stride: 32, or 16 or 8: the last or the last two stages dilate their convolutions instead of shrinking
        (DeepLab, arXiv:1706.05587, section 3.1). Its levels c4 and c5 have then that stride, whatever their names say.
      multi_grid: what the dilation of each of c5's blocks is multiplied by (section 3.2.1 there: 1, 2, 4); empty for
        torchvision's, all 1, of which the first block still has the dilation of c4.
      norm: "frozen" where trained weights stay as they are, see `nn.norm`.
      eps: of the norm; 0 for what torchvision's first detectors were published with.
    """

    depths: tuple[int, int, int, int]
    bottleneck: bool = True
    width: int = 64
    output_stride: Literal[32, 16, 8] = 32
    multi_grid: tuple[int, ...] = ()
    norm: NormKind = "batch"
    eps: float = 1e-5

    @nn.compact
    def __call__(self, image: Float[Array, "B H W 3"], train: bool) -> dict[str, Array]:
        """Returns levels c2 to c5, with strides 4, 8, 16 and 32, or less.

        Raises:
          ValueError: if `multi_grid` is not of as many blocks as c5 has.
        """
        if self.multi_grid and len(self.multi_grid) != self.depths[-1]:
            raise ValueError(
                f"multi_grid is {self.multi_grid}: give a number for each of c5's {self.depths[-1]} blocks"
            )
        stem = ConvNorm(self.width, 7, 2, "relu", eps=self.eps, norm=self.norm, kernel_init=kaiming_init, name="stem")
        x = max_pool(stem(image, train), 3, 2)
        features: dict[str, Array] = {}
        stride, dilation = 4, 1
        for stage, depth in enumerate(self.depths, start=1):
            step = 1 if stage == 1 else 2
            before = dilation
            if stride * step > self.output_stride:
                dilation, step = dilation * step, 1
            stride *= step
            # A stage's first block still looks as far as the stage before it, as torchvision's does.
            dilations = [before, *[dilation] * (depth - 1)]
            if stage == 4 and self.multi_grid:
                dilations = [dilation * factor for factor in self.multi_grid]
            for block in range(depth):
                x = Residual(
                    self.width * 2 ** (stage - 1),
                    self.bottleneck,
                    step if block == 0 else 1,
                    dilations[block],
                    self.norm,
                    self.eps,
                    name=f"layer{stage}_{block}",
                )(x, train)
            features[f"c{stage + 1}"] = x
        return features


def resnet(
    depth: Depth,
    *,
    width: int = 64,
    output_stride: Literal[32, 16, 8] = 32,
    multi_grid: tuple[int, ...] = (),
    norm: NormKind = "batch",
    eps: float = 1e-5,
) -> ResNet:
    """The `ResNet` of so many layers."""
    depths, bottleneck = DEPTHS[depth]
    return ResNet(depths, bottleneck, width, output_stride, multi_grid, norm, eps)


class CifarResNet(nn.Module):
    """A 3x3 stem and three stages, for images of 32 pixels (section 4.2): 6 n + 2 layers for n blocks a stage.

    Attributes:
      blocks: n.
      width: features of the stem and of the first stage, which double from stage to stage.
    """

    blocks: int = 3
    width: int = 16
    eps: float = 1e-5

    @nn.compact
    def __call__(self, image: Float[Array, "B H W 3"], train: bool) -> dict[str, Array]:
        """Returns levels c0, c1 and c2, with strides 1, 2 and 4."""
        stem = ConvNorm(self.width, 3, 1, "relu", eps=self.eps, kernel_init=kaiming_init, name="stem")
        x = stem(image, train)
        features: dict[str, Array] = {}
        for stage in (1, 2, 3):
            for block in range(self.blocks):
                x = Residual(
                    self.width * 2 ** (stage - 1),
                    bottleneck=False,
                    stride=2 if stage > 1 and block == 0 else 1,
                    eps=self.eps,
                    shortcut="pad",
                    name=f"layer{stage}_{block}",
                )(x, train)
            features[f"c{stage - 1}"] = x
        return features
