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
      backbone: called as `(image, train)`, gives {"c2": …, "c3": …, …}.
      neck: called as `(features, train)`, gives {"p3": …, …}.
      heads: name -> head, called as `(features, train)`.
      pull: name of a head -> how hard it may pull at the features at most, relative to the first one that teaches them,
        see `gradients.fan_out`; 0 for one that learns from them alone. Those not named pull as hard as their losses do.
    """

    backbone: nn.Module
    neck: nn.Module
    heads: Mapping[str, nn.Module]
    pull: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __call__(self, image: Float[Array, "B H W 3"], train: bool) -> dict[str, Any]:
        """Runs every head on an RGB image with values in [0, 1], whose sides the largest stride divides.

        Raises:
          ValueError: if a head asks for a level that the neck does not give, or there is no head that `pull` names.
        """
        features = self.neck(self.backbone(image, train), train)
        if unknown := self.pull.keys() - self.heads.keys():
            raise ValueError(f"pull names {', '.join(sorted(unknown))}, the heads are {', '.join(self.heads)}")
        seen = dict.fromkeys(self.heads, jax.lax.stop_gradient(features))
        limits = {name: limit for name in self.heads if (limit := self.pull.get(name, math.inf))}
        bounded = any(map(math.isfinite, limits.values()))
        copies: tuple[Any, ...] = fan_out(features, tuple(limits.values())) if bounded else (features,) * len(limits)
        seen |= zip(limits, copies, strict=True)
        outputs: dict[str, Any] = {}
        for name, head in self.heads.items():
            try:
                outputs[name] = head(seen[name], train)
            except KeyError as error:
                given = ", ".join(features)
                raise ValueError(f"the head {name!r} asks for the level {error}, the neck gives {given}") from error
        return outputs
