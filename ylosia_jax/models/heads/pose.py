"""Head for poses."""

from collections.abc import Mapping

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.conv import Conv, ConvNorm
from ylosia_jax.types import PoseOutputs


class PoseHead(nn.Module):
    """Offsets and a logit of every point of a pose at every cell (YOLO-Pose, arXiv:2204.06806).

    Attributes:
      points: J.
      branch: channels between a level and its points.
    """

    points: int
    branch: int = 48

    @nn.compact
    def __call__(self, features: Mapping[str, Float[Array, "B _ _ _"]], train: bool) -> PoseOutputs:
        """Returns [.., 3 J] of every level that the neck gives."""
        points: dict[str, Array] = {}
        for level, x in features.items():
            x = ConvNorm(self.branch, 3, name=f"branch_{level}")(x, train)
            points[level] = Conv(3 * self.points, use_bias=True, name=f"out_{level}")(x).astype(jnp.float32)
        return PoseOutputs(points=points)
