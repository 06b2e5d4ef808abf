"""CSP backbone of C2f stages, closed by spatial pyramid pooling."""

from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.blocks import SPPF, C2f
from ylosia_jax.nn.conv import ConvNorm


class CSP(nn.Module):
    """Five halvings of the image; a C2f stage follows each but the first.

    Attributes:
      widths: channels of the stem and of the stages c2, c3, c4, c5.
      depths: bottlenecks in the stages c2, c3, c4, c5.
    """

    widths: tuple[int, int, int, int, int]
    depths: tuple[int, int, int, int]

    @nn.compact
    def __call__(self, image: Float[Array, "B H W 3"], train: bool) -> dict[str, Array]:
        """Returns levels c2 to c5, with strides 4 to 32."""
        x = ConvNorm(self.widths[0], 3, 2, name="stem")(image, train)
        features: dict[str, Array] = {}
        for level, (width, depth) in enumerate(zip(self.widths[1:], self.depths, strict=True), start=2):
            x = ConvNorm(width, 3, 2, name=f"down{level}")(x, train)
            x = C2f(width, depth, name=f"stage{level}")(x, train)
            features[f"c{level}"] = x
        features["c5"] = SPPF(self.widths[-1], name="sppf")(x, train)
        return features
