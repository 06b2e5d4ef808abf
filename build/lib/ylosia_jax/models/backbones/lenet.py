"""LeNet-5 (LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998)."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.conv import Conv
from ylosia_jax.ops.conv import max_pool

# The paper's table 1: the maps of S2 that each map of C3 reads.
CONNECTIONS = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)


def squash(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The paper's sigmoid, 1.7159 tanh(2 x / 3), which takes 1 to 1 and -1 to -1 (equation 6)."""
    return 1.7159 * jnp.tanh(2 / 3 * x)


def fan_in_init(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
    """U(-2.4 / n, 2.4 / n), n the inputs of a unit (appendix A); the shape's last axis is that of the units."""
    bound = 2.4 / math.prod(shape[:-1])
    return jax.random.uniform(key, shape, dtype, -bound, bound)


class SubSample(nn.Module):
    """The sum of each 2x2 cells, times a coefficient of its map, plus a bias, squashed: the layers S2 and S4."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H//2 W//2 C"]:
        """Returns a map of half the size; sides must be even."""
        channels = x.shape[-1]
        # Each unit has four inputs, which share the coefficient.
        coefficient = self.param("coefficient", lambda key: fan_in_init(key, (4, channels))[0])
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        total = 4 * nn.avg_pool(x, (2, 2), (2, 2))
        return squash(total * coefficient + bias)


class PartialConv(nn.Module):
    """A 5x5 convolution of which each map reads a few maps: the layer C3.

    Its kernel has one 5x5 patch for each connection, [5, 5, 60], in the order of `CONNECTIONS`.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "B H W 6"]) -> Float[Array, "B H-4 W-4 16"]:
        """Returns the 16 maps, without squashing."""
        read = np.array([i for maps in CONNECTIONS for i in maps])
        write = np.array([o for o, maps in enumerate(CONNECTIONS) for _ in maps])
        bounds = np.array([2.4 / (25 * len(CONNECTIONS[o])) for o in write])

        def init(key: Array) -> Array:
            return jax.random.uniform(key, (5, 5, len(read)), minval=-1, maxval=1) * bounds

        patches = self.param("kernel", init)
        bias = self.param("bias", nn.initializers.zeros, (len(CONNECTIONS),))
        kernel = jnp.zeros((5, 5, 6, len(CONNECTIONS)), patches.dtype).at[:, :, read, write].set(patches)
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=layout) + bias


class OriginalLeNet5(nn.Module):
    """C1 to S4 of the paper's section II-B, on grey images: the mean of the three channels."""

    @nn.compact
    def __call__(self, image: Float[Array, "B H W 3"], train: bool) -> dict[str, Array]:
        """Returns levels c1 (S2) and c2 (S4), 14x14 and 5x5 cells of an image of 32 by 32."""
        x = image.mean(axis=-1, keepdims=True)
        x = squash(Conv(6, 5, padding=0, use_bias=True, kernel_init=fan_in_init, name="c1")(x))
        first = SubSample(name="s2")(x)
        x = squash(PartialConv(name="c3")(first))
        return {"c1": first, "c2": SubSample(name="s4")(x)}


class LeNet5(nn.Module):
    """The same in today's form: all maps connected, ReLUs, and max pools without parameters."""

    @nn.compact
    def __call__(self, image: Float[Array, "B H W 3"], train: bool) -> dict[str, Array]:
        """Returns levels c1 and c2, 14x14 and 5x5 cells of an image of 32 by 32."""
        x = image.mean(axis=-1, keepdims=True)
        features: dict[str, Array] = {}
        for i, width in enumerate((6, 16), start=1):
            x = nn.relu(Conv(width, 5, padding=0, use_bias=True, name=f"conv{i}")(x))
            x = max_pool(x, 2, 2, padding=0)
            features[f"c{i}"] = x
        return features
