"""Convolution with normalisation and activation: the layer that most networks here repeat."""

from typing import Literal

from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.ops.conv import conv_general_dilated

# U(-1/sqrt(fan_in), 1/sqrt(fan_in)), PyTorch's default, which the published detectors start from.
kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Conv(nn.Module):
    """Square convolution, padded by kernel // 2 on every side.

    The padding is explicit because `SAME` with stride 2 pads right and bottom only, one pixel off from what trained
    weights of other frameworks expect.
    """

    features: int
    kernel: int = 1
    stride: int = 1
    use_bias: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], bias_init: nn.initializers.Initializer = nn.initializers.zeros
    ) -> Array:
        """Returns [B, ceil(H / stride), ceil(W / stride), features] for odd kernels."""
        pad = self.kernel // 2
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", kernel_init, shape)
        y = conv_general_dilated(
            x,
            kernel,
            (self.stride, self.stride),
            ((pad, pad), (pad, pad)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + self.param("bias", bias_init, (self.features,)) if self.use_bias else y


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm, activation.

    Batch norm keeps its statistics in float32 and takes them over the whole global batch, however many devices share
    it. `eps` is that of the YOLO family. Its running statistics forget more slowly (`momentum` 0.97); here the
    average of weights smooths them a second time, so they may follow quickly, which runs of a few hundred steps need.
    """

    features: int
    kernel: int = 1
    stride: int = 1
    activation: Literal["silu", "relu", "none"] = "silu"
    eps: float = 1e-3
    momentum: float = 0.9

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Array:
        """Normalises with the batch's own statistics, and updates the running ones, when `train`."""
        x = Conv(self.features, self.kernel, self.stride, name="conv")(x)
        x = nn.BatchNorm(not train, momentum=self.momentum, epsilon=self.eps, name="norm")(x)
        match self.activation:
            case "silu":
                return nn.silu(x)
            case "relu":
                return nn.relu(x)
            case "none":
                return x
