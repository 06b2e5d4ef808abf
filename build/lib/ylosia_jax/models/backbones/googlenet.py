"""GoogLeNet (arXiv:1409.4842) as torchvision has it: with batch norm, and 3x3 kernels where the paper has 5x5."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.conv import ConvNorm
from ylosia_jax.ops.conv import max_pool

# The paper's table 1: 1x1; 3x3 after its reduction; "5x5" after its reduction; 1x1 after the pool.
Branches = tuple[int, int, int, int, int, int]
STAGES: dict[str, tuple[Branches, ...]] = {
    "3": ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    "4": (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    "5": ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
}
_init = nn.initializers.normal(0.01)


def _conv(name: str, x: Array, train: bool, features: int, kernel: int = 1, stride: int = 1) -> Array:
    return ConvNorm(features, kernel, stride, "relu", eps=1e-3, kernel_init=_init, name=name)(x, train)


class Inception(nn.Module):
    """Four looks at the same cells, of different reach, side by side (section 4).

    Attributes:
      branches: channels, in the order of the paper's table 1.
    """

    branches: Branches

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Array:
        """Returns [B, H, W, features]: 1x1, 3x3, "5x5", pool."""
        one, reduce3, three, reduce5, five, pool = self.branches
        parts = [
            _conv("conv1", x, train, one),
            _conv("conv3", _conv("reduce3", x, train, reduce3), train, three, 3),
            _conv("conv5", _conv("reduce5", x, train, reduce5), train, five, 3),
            _conv("project", max_pool(x, 3), train, pool),
        ]
        return jnp.concatenate(parts, axis=-1)


class GoogLeNet(nn.Module):
    """Three convolutions and nine inception blocks."""

    @nn.compact
    def __call__(self, image: Float[Array, "B H W 3"], train: bool) -> dict[str, Array]:
        """Returns levels c2 to c5, with strides 4 to 32, and c4a and c4d for auxiliary heads; sides are rounded up."""
        x = max_pool(_conv("conv1", image, train, 64, 7, 2), 3, 2, padding=0, ceil=True)
        x = _conv("conv3", _conv("conv2", x, train, 64), train, 192, 3)
        features: dict[str, Array] = {"c2": x}
        for stage, blocks in STAGES.items():
            x = max_pool(x, 2 if stage == "5" else 3, 2, padding=0, ceil=True)
            for letter, branches in zip("abcde", blocks, strict=False):
                x = Inception(branches, name=f"inception{stage}{letter}")(x, train)
                if stage + letter in ("4a", "4d"):
                    features[f"c{stage}{letter}"] = x
            features[f"c{stage}"] = x
        return features
