"""AlexNet, in the form for one device (arXiv:1404.5997)."""

from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.conv import Conv
from ylosia_jax.ops.conv import max_pool


class AlexNet(nn.Module):
    """Five convolutions and three overlapping pools, without the groups and the response normalisation of 2012.

    Attributes:
      widths: channels of conv1 to conv5.
    """

    widths: tuple[int, int, int, int, int] = (64, 192, 384, 256, 256)

    @nn.compact
    def __call__(self, image: Float[Array, "B H W 3"], train: bool) -> dict[str, Array]:
        """Returns levels c3, c4 and c5, with strides 8, 16 and 32, each after its pool; sides are rounded down.

        Raises:
          ValueError: if the image is smaller than 63 pixels, of which the last pool leaves nothing.
        """
        if min(image.shape[1:3]) < 63:
            raise ValueError(f"AlexNet's pools leave nothing of {image.shape[1:3]} pixels: give at least 63 a side")
        features: dict[str, Array] = {}
        x = image
        for i, (width, kernel) in enumerate(zip(self.widths, (11, 5, 3, 3, 3), strict=True), start=1):
            stride, padding = (4, 2) if i == 1 else (1, None)
            conv = Conv(width, kernel, stride, use_bias=True, padding=padding, name=f"conv{i}")
            x = nn.relu(conv(x))
            if i in (1, 2, 5):
                x = max_pool(x, 3, 2, padding=0)
                features[{1: "c3", 2: "c4", 5: "c5"}[i]] = x
        return features
