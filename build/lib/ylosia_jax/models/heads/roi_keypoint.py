"""The head that finds the points of poses in regions."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.conv import Conv, ConvTranspose, kaiming_init
from ylosia_jax.nn.roi import RoiAlign
from ylosia_jax.types import RoiMaps, Rois

# He's for a transposed convolution, whose cells are fed by as many others as it has inputs.
_init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class RoiKeypointHead(nn.Module):
    """A heatmap of each point for every region, on four times as many cells as are pooled (1703.06870, section 5).

    Attributes:
      points: J.
      pool: how it looks into regions.
      convs: features of the 3x3 convolutions.
    """

    points: int
    pool: RoiAlign = RoiAlign(size=14)
    convs: tuple[int, ...] = (512,) * 8

    @nn.compact
    def __call__(self, features: Mapping[str, Float[Array, "B _ _ _"]], rois: Rois, train: bool) -> RoiMaps:
        """Returns logits [B, R, 4 P, 4 P, J]."""
        x = self.pool(features, rois)
        images, regions = x.shape[:2]
        x = x.reshape(images * regions, *x.shape[2:])
        for i, width in enumerate(self.convs):
            x = nn.relu(Conv(width, 3, use_bias=True, kernel_init=kaiming_init, name=f"conv{i}")(x))
        x = ConvTranspose(self.points, 4, 2, padding=1, kernel_init=_init, name="enlarge")(x).astype(jnp.float32)
        x = jax.image.resize(x, (x.shape[0], 2 * x.shape[1], 2 * x.shape[2], self.points), "linear")
        return RoiMaps(rois=rois, logits=x.reshape(images, regions, *x.shape[1:]))
