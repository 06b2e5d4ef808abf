"""The one network: backbone, neck, and a dict of heads."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.ops.gradients import fan_out


class Network(nn.Module):
    """Backbone → neck → heads, in one pass; each head's answer stands under the head's name.

    Parameter paths start with `backbone/`, `neck/` and `heads_<name>/`. A head that is left out costs nothing.

    Attributes:
      backbone: called as `(image, train)`, gives {"c3": …, "c4": …, …}.
      neck: called as `(features, train)`, gives {"p3": …, …}.
      heads: name -> head, called as `(features, train)`.
      detached: names of heads that learn from the features, but do not teach them.
      pull: name of a head -> how hard it may pull at the features at most, relative to the first one that teaches them,
        see `gradients.fan_out`; those not named pull as hard as their losses do.
    """

    backbone: nn.Module
    neck: nn.Module
    heads: Mapping[str, nn.Module]
    detached: tuple[str, ...] = ()
    pull: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __call__(self, image: Float[Array, "B H W 3"], train: bool) -> dict[str, Any]:
        """Runs every head on an RGB image with values in [0, 1], whose sides the largest stride divides.

        Raises:
          ValueError: if a head asks for a level that the neck does not give.
        """
        features = self.neck(self.backbone(image, train), train)
        seen = dict.fromkeys(self.detached, jax.lax.stop_gradient(features))
        teachers = [name for name in self.heads if name not in self.detached]
        limits = tuple(self.pull.get(name, math.inf) for name in teachers)
        copies: tuple[Any, ...] = fan_out(features, limits) if self.pull else (features,) * len(teachers)
        seen |= zip(teachers, copies, strict=True)
        outputs: dict[str, Any] = {}
        for name, head in self.heads.items():
            try:
                outputs[name] = head(seen[name], train)
            except KeyError as error:
                given = ", ".join(features)
                raise ValueError(f"the head {name!r} asks for the level {error}, the neck gives {given}") from error
        return outputs
