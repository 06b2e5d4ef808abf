"""Head for poses."""

import math
from collections.abc import Mapping

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.conv import Conv, ConvNorm
from ylosia_jax.types import PoseOutputs


class PoseHead(nn.Module):
    """Offsets and a logit of every point of a pose at every cell (YOLO-Pose, arXiv:2204.06806), and heatmaps.

    The offsets say roughly where an object's points are, the heatmaps, which all objects share, say where exactly
    such points lie (CenterNet, arXiv:1904.07850, section 4.2).

    Attributes:
      points: J.
      branch: channels between a level and its points.
      levels: of the head whose objects these poses belong to.
      finest: level whose grid the heatmaps have.
    """

    points: int
    branch: int = 48
    levels: tuple[str, ...] = ("p3", "p4", "p5")
    finest: str = "p2"

    @nn.compact
    def __call__(self, features: Mapping[str, Float[Array, "B _ _ _"]], train: bool) -> PoseOutputs:
        """Returns [.., 3 J] of its levels, and heatmap logits [B, h, w, J]."""
        points: dict[str, Array] = {}
        for level in self.levels:
            x = ConvNorm(self.branch, 1, name=f"branch_{level}")(features[level], train)
            points[level] = Conv(3 * self.points, use_bias=True, name=f"out_{level}")(x).astype(jnp.float32)
        # One cell in a hundred: the first losses are then those of a network that knows how rare points are.
        rare = nn.initializers.constant(math.log(0.01 / 0.99))
        heatmap = Conv(self.points, use_bias=True, name="heatmap")(features[self.finest], rare)
        return PoseOutputs(points=points, heatmap=heatmap.astype(jnp.float32))
