"""The head that draws the masks of regions."""

from collections.abc import Mapping

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.conv import Conv, ConvNorm, ConvTranspose, activate, kaiming_init
from ylosia_jax.nn.norm import NormKind
from ylosia_jax.nn.roi import RoiAlign
from ylosia_jax.types import RoiMaps, Rois


class RoiMaskHead(nn.Module):
    """A mask of each class for every region, on twice as many cells as are pooled (Mask R-CNN, 1703.06870, fig. 4).

    Attributes:
      num_classes: K, channels of the answer: the background has no mask, but its channel, the first, is there, as
        published weights have it.
      pool: how it looks into regions.
      convs: features of the 3x3 convolutions.
      width: features of the enlarged map.
      norm: of the 3x3 convolutions; None for none, and biases instead.
    """

    num_classes: int
    pool: RoiAlign = RoiAlign(size=14)
    convs: tuple[int, ...] = (256, 256, 256, 256)
    width: int = 256
    norm: NormKind | None = None

    @nn.compact
    def __call__(self, features: Mapping[str, Float[Array, "B _ _ _"]], rois: Rois, train: bool) -> RoiMaps:
        """Returns logits [B, R, 2 P, 2 P, K + 1]."""
        x = self.pool(features, rois)
        images, regions = x.shape[:2]
        x = x.reshape(images * regions, *x.shape[2:])
        for i, width in enumerate(self.convs):
            if self.norm is None:
                conv = Conv(width, 3, use_bias=True, kernel_init=kaiming_init, name=f"conv{i}")
                x = activate(conv(x), "relu")
            else:
                layer = ConvNorm(
                    width, 3, activation="relu", eps=1e-5, norm=self.norm, kernel_init=kaiming_init, name=f"conv{i}"
                )
                x = layer(x, train, counted=rois.valid.reshape(-1))
        x = nn.relu(ConvTranspose(self.width, 2, 2, kernel_init=kaiming_init, name="enlarge")(x))
        x = Conv(self.num_classes + 1, use_bias=True, kernel_init=kaiming_init, name="logits")(x)
        return RoiMaps(rois=rois, logits=x.reshape(images, regions, *x.shape[1:]).astype(jnp.float32))
