"""Convolution with normalisation and activation: the layer that most networks here repeat."""

from typing import Literal

from flax import linen as nn
from jaxtyping import Array, Bool, Float

from ylosia_jax.nn.norm import NormKind, norm
from ylosia_jax.ops.conv import conv_general_dilated, conv_transpose

Activation = Literal["silu", "relu", "relu6", "none"]

# U(-1/sqrt(fan_in), 1/sqrt(fan_in)), PyTorch's default, which the published detectors start from.
kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# N(0, 2 / fan_out), what torchvision's ResNets and VGGs start from (arXiv:1502.01852, section 2.2).
kaiming_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def activate(x: Float[Array, "..."], activation: Activation) -> Float[Array, "..."]:
    """Applies an activation by its name."""
    match activation:
        case "silu":
            return nn.silu(x)
        case "relu":
            return nn.relu(x)
        case "relu6":
            return nn.relu6(x)
        case "none":
            return x


class Conv(nn.Module):
    """Square convolution, padded by half of the dilated kernel on every side unless told otherwise.

    The padding is explicit because `SAME` with stride 2 pads right and bottom only, one pixel off from what trained
    weights of other frameworks expect.

    Attributes:
      padding: pixels on every side; None for dilation * (kernel // 2).
      groups: in which input and output channels are divided; as many as channels make it depthwise.
    """

    features: int
    kernel: int = 1
    stride: int = 1
    use_bias: bool = False
    dilation: int = 1
    groups: int = 1
    padding: int | None = None
    kernel_init: nn.initializers.Initializer = kernel_init

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], bias_init: nn.initializers.Initializer = nn.initializers.zeros
    ) -> Array:
        """Returns [B, ceil(H / stride), ceil(W / stride), features] for odd kernels and the default padding."""
        pad = self.dilation * (self.kernel // 2) if self.padding is None else self.padding
        shape = (self.kernel, self.kernel, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        y = conv_general_dilated(
            x,
            kernel,
            (self.stride, self.stride),
            ((pad, pad), (pad, pad)),
            rhs_dilation=(self.dilation, self.dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=self.groups,
        )
        return y + self.param("bias", bias_init, (self.features,)) if self.use_bias else y


class ConvNorm(nn.Module):
    """Convolution without bias, norm, activation.

    Batch norm keeps its statistics in float32 and takes them over the whole global batch, however many devices share
    it. `eps` is that of the YOLO family. Its running statistics forget more slowly (`momentum` 0.97); here the
    average of weights smooths them a second time, so they may follow quickly, which runs of a few hundred steps need.
    """

    features: int
    kernel: int = 1
    stride: int = 1
    activation: Activation = "silu"
    eps: float = 1e-3
    momentum: float = 0.9
    dilation: int = 1
    groups: int = 1
    padding: int | None = None
    norm: NormKind = "batch"
    use_bias: bool = False
    kernel_init: nn.initializers.Initializer = kernel_init

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool, counted: Bool[Array, " B"] | None = None) -> Array:
        """Normalises with the batch's own statistics, and updates the running ones, when `train`.

        Args:
          counted: of which maps, see `nn.norm.norm`.
        """
        x = Conv(
            self.features,
            self.kernel,
            self.stride,
            use_bias=self.use_bias,
            dilation=self.dilation,
            groups=self.groups,
            padding=self.padding,
            kernel_init=self.kernel_init,
            name="conv",
        )(x)
        x = norm(self.norm, x, train, eps=self.eps, momentum=self.momentum, counted=counted)
        return activate(x, self.activation)


class ConvTranspose(nn.Module):
    """Square transposed convolution: the gradient of a strided one, which spreads each cell over a kernel's patch.

    Parameters are `transposed_kernel` [kernel, kernel, C, features] and `bias`. As in PyTorch the kernel is not
    flipped: cell (i, j) times the kernel lies at rows from stride * i - padding on.

    Attributes:
      padding: pixels that are cut off every side of the result.
    """

    features: int
    kernel: int = 2
    stride: int = 2
    padding: int = 0
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = kernel_init

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Array:
        """Returns [B, (H - 1) * stride + kernel - 2 * padding, …, features]."""
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param("transposed_kernel", self.kernel_init, shape)
        y = conv_transpose(x, kernel, self.stride, self.padding)
        return y + self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else y
