"""Networks that look twice: at the image for regions, and into each region for answers."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.models.network import naming_levels
from ylosia_jax.nn.pixels import Pixels
from ylosia_jax.types import Rois

# (name of the head that asks, what was answered so far) -> the regions that it shall look into.
Select = Callable[[str, Mapping[str, Any]], Rois]


class TwoStage(nn.Module):
    """Backbone → neck → a dense head that proposes regions → heads that look into regions, in one pass.

    The network knows nothing of how regions are chosen: `select` is asked once for each head that needs some, in the
    heads' order, and sees all outputs until then. So in training it samples them with the truth, and in prediction
    masks are looked for in what the box head detected (Mask R-CNN, arXiv:1703.06870, section 3).

    Parameter paths start with `backbone/`, `neck/`, `rpn/` and `heads_<name>/`.

    Attributes:
      backbone: called as `(image, train)`, gives {"c2": …, …}.
      neck: called as `(features, train)`, gives {"p2": …, …}; None where heads read the backbone's levels.
      rpn: called as `(features, train)`; its answer stands under "rpn", what `select` makes of it under "proposals".
        None where regions come from elsewhere.
      heads: name -> head, called as `(features, rois, train)`; its answer stands under its name.
      pixels: how the backbone wants its image.
    """

    backbone: nn.Module
    neck: nn.Module | None
    rpn: nn.Module | None
    heads: Mapping[str, nn.Module]
    pixels: Pixels = dataclasses.field(default_factory=Pixels)

    def __call__(self, image: Float[Array, "B H W 3"], train: bool, select: Select | None = None) -> dict[str, Any]:
        """Runs both stages on an RGB image with values in [0, 1].

        Args:
          select: the regions of each head; None for one region an image, the whole of it, and no proposals.

        Raises:
          ValueError: if a head asks for a level that it is not given.
        """
        features = self.backbone(self.pixels(image), train)
        if self.neck is not None:
            features = self.neck(features, train)
        outputs: dict[str, Any] = {}
        if self.rpn is not None:
            with naming_levels("rpn", features):
                outputs["rpn"] = self.rpn(features, train)
            if select is not None:
                outputs["proposals"] = select("rpn", outputs)
        for name, head in self.heads.items():
            rois = whole(image) if select is None else select(name, outputs)
            with naming_levels(name, features):
                outputs[name] = head(features, rois, train)
        return outputs


def whole(image: Float[Array, "B H W 3"]) -> Rois:
    """One region an image, all of it."""
    batch, height, width, _ = image.shape
    ones = jnp.ones((batch, 1), bool)
    box = jnp.array([0.0, 0.0, width, height])
    nothing = jnp.zeros((batch, 1), jnp.int32)
    boxes = jnp.broadcast_to(box, (batch, 1, 4))
    return Rois(boxes=boxes, valid=ones, index=nothing, kind=nothing, canvas=(height, width))
