"""DenseNet-BC (arXiv:1608.06993)."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.conv import Conv
from ylosia_jax.nn.norm import norm
from ylosia_jax.ops.conv import max_pool

_init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def _norm_relu(name: str, x: Array, train: bool) -> Array:
    return nn.relu(norm("batch", x, train, eps=1e-5, momentum=0.9, name=name))


def _conv(name: str, x: Array, features: int, kernel: int = 1, stride: int = 1) -> Array:
    return Conv(features, kernel, stride, kernel_init=_init, name=name)(x)


class DenseLayer(nn.Module):
    """Norm, ReLU, 1x1 convolution; norm, ReLU, 3x3 convolution (section 3, "bottleneck layers").

    Attributes:
      growth: features that it adds.
      bottleneck: features between the two, as a multiple of `growth`.
    """

    growth: int
    bottleneck: int = 4

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Array:
        """Returns what it was given and, after it, its own features: [B, H, W, C + growth]."""
        y = _conv("conv1", _norm_relu("norm1", x, train), self.bottleneck * self.growth)
        y = _conv("conv2", _norm_relu("norm2", y, train), self.growth, 3)
        return jnp.concatenate([x, y], axis=-1)


class DenseNet(nn.Module):
    """A 7x7 stem and four blocks, in which every layer reads all layers before it.

    Between blocks a 1x1 convolution halves the features, and an average pool the sides.

    Attributes:
      depths: layers in the blocks c2, c3, c4, c5.
      growth: features that a layer adds.
      width: features of the stem.
    """

    depths: tuple[int, int, int, int] = (6, 12, 24, 16)
    growth: int = 32
    width: int = 64

    @nn.compact
    def __call__(self, image: Float[Array, "B H W 3"], train: bool) -> dict[str, Array]:
        """Returns levels c2 to c5, with strides 4 to 32; c5 alone is normalised, as nothing after it would do so."""
        x = _norm_relu("stem_norm", _conv("stem", image, self.width, 7, 2), train)
        x = max_pool(x, 3, 2)
        features: dict[str, Array] = {}
        for block, depth in enumerate(self.depths, start=1):
            if block > 1:
                x = _norm_relu(f"transition{block - 1}_norm", x, train)
                x = _conv(f"transition{block - 1}", x, x.shape[-1] // 2)
                x = nn.avg_pool(x, (2, 2), (2, 2))
            for i in range(1, depth + 1):
                x = DenseLayer(self.growth, name=f"block{block}_{i}")(x, train)
            features[f"c{block + 1}"] = x
        features["c5"] = _norm_relu("norm", features["c5"], train)
        return features
