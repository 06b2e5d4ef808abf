"""The one network: backbone, neck, and a dict of heads."""

import contextlib
import dataclasses
import math
from collections.abc import Generator, Mapping
from typing import Any

import jax
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.pixels import Pixels
from ylosia_jax.ops.gradients import limit_gradients


@contextlib.contextmanager
def naming_levels(head: str, features: Mapping[str, Any]) -> Generator[None]:
    """A head that asks for a level that is not among the features ends in a ValueError with both their names."""
    try:
        yield
    except KeyError as error:
        given = ", ".join(features)
        raise ValueError(f"the head {head!r} asks for the level {error}, it is given {given}") from error


class Network(nn.Module):
    """Backbone → neck → heads, in one pass; each head's answer stands under the head's name.

    Parameter paths start with `backbone/`, `neck/` and `heads_<name>/`. A head that is left out costs nothing.

    Attributes:
      backbone: called as `(image, train)`, gives {"c2": …, "c3": …, …}.
      neck: called as `(features, train)`, gives {"p3": …, …}; None where heads read the backbone's levels.
      heads: name -> head, called as `(features, train)`.
      pixels: how the backbone wants its image.
      gradient_limits: name of a head -> the longest gradient that it sends back to the features, relative to that of
        the first head that sends one, see `gradients.limit_gradients`; 0 for a head that learns from the features, but
        does not teach them. Heads that are not named have no limit.
    """

    backbone: nn.Module
    neck: nn.Module | None
    heads: Mapping[str, nn.Module]
    pixels: Pixels = dataclasses.field(default_factory=Pixels)
    gradient_limits: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def divisor(self) -> int:
        """What has to divide the sides of an image: 32, the coarsest level's stride, unless the backbone says else."""
        return getattr(self.backbone, "divisor", 32)

    def __call__(self, image: Float[Array, "B H W 3"], train: bool) -> dict[str, Any]:
        """Runs every head on an RGB image with values in [0, 1], whose sides `divisor` divides.

        Raises:
          ValueError: if a head asks for a level that it is not given, or `gradient_limits` names
            a head that is not there.
        """
        if unknown := self.gradient_limits.keys() - self.heads.keys():
            names = ", ".join(sorted(unknown))
            raise ValueError(f"gradient_limits names {names}, the heads are {', '.join(self.heads)}")
        features = self.backbone(self.pixels(image), train)
        if self.neck is not None:
            features = self.neck(features, train)
        limits = {name: limit for name in self.heads if (limit := self.gradient_limits.get(name, math.inf))}
        limited = any(map(math.isfinite, limits.values()))
        copies: tuple[Any, ...] = (features,) * len(limits)
        if limited:
            copies = limit_gradients(features, tuple(limits.values()))
        seen = dict.fromkeys(self.heads, jax.lax.stop_gradient(features)) | dict(zip(limits, copies, strict=True))
        outputs: dict[str, Any] = {}
        for name, head in self.heads.items():
            with naming_levels(name, features):
                outputs[name] = head(seen[name], train)
        return outputs
