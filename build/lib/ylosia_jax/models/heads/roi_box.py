"""The head that names regions and refines their boxes."""

from collections.abc import Mapping

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.conv import ConvNorm, kaiming_init, kernel_init
from ylosia_jax.nn.roi import RoiAlign, RoiPool
from ylosia_jax.types import RoiOutputs, Rois


class RoiBoxHead(nn.Module):
    """Classes and boxes of regions, by layers that see all of a region at once (Fast R-CNN, 1504.08083, section 2).

    Attributes:
      num_classes: K.
      pool: how it looks into regions.
      convs: features of 3x3 convolutions with batch norm before the dense layers (arXiv:2111.11429, section 3).
      dense: features of the dense layers.
      dropout: share of their answers that training leaves out.
      init_std: standard deviations of the initial weights of the last layers, of classes and of boxes: (0.01, 0.001)
        in Fast R-CNN (section 2.3); None for what PyTorch's dense layers begin with, as torchvision's heads do.
    """

    num_classes: int
    pool: RoiAlign | RoiPool = RoiAlign()
    convs: tuple[int, ...] = ()
    dense: tuple[int, ...] = (1024, 1024)
    dropout: float = 0.0
    init_std: tuple[float, float] | None = None

    @nn.compact
    def __call__(self, features: Mapping[str, Float[Array, "B _ _ _"]], rois: Rois, train: bool) -> RoiOutputs:
        """Returns logits [B, R, K + 1] and deltas [B, R, K + 1, 4]."""
        x = self.pool(features, rois)
        images, regions = x.shape[:2]
        x = x.reshape(images * regions, *x.shape[2:])
        for i, width in enumerate(self.convs):
            layer = ConvNorm(width, 3, activation="relu", eps=1e-5, kernel_init=kaiming_init, name=f"conv{i}")
            x = layer(x, train, counted=rois.valid.reshape(-1))
        # Channels first, as the weights of published networks lie.
        x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
        for i, width in enumerate(self.dense):
            x = nn.relu(nn.Dense(width, kernel_init=kernel_init, name=f"fc{6 + i}")(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        classes = self.num_classes + 1
        inits = (kernel_init, kernel_init) if self.init_std is None else map(nn.initializers.normal, self.init_std)
        logits, deltas = (
            nn.Dense(count, kernel_init=init, name=name)(x).astype(jnp.float32)
            for name, count, init in zip(("logits", "deltas"), (classes, classes * 4), inits, strict=True)
        )
        return RoiOutputs(
            rois=rois,
            logits=logits.reshape(images, regions, classes),
            deltas=deltas.reshape(images, regions, classes, 4),
        )
