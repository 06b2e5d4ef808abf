"""The head that proposes regions."""

from collections.abc import Mapping

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.conv import Conv
from ylosia_jax.types import DenseOutputs

_init = nn.initializers.normal(0.01)


class RPNHead(nn.Module):
    """Whether an object lies at each anchor, and its box (Faster R-CNN, arXiv:1506.01497, section 3.1).

    One set of layers serves all levels: 3x3 convolutions as wide as the features, and a 1x1 one for each answer.

    Attributes:
      anchors: of a cell.
      depth: 3x3 convolutions.
      levels: where objects are looked for, finest first.
    """

    anchors: int = 3
    depth: int = 1
    levels: tuple[str, ...] = ("p2", "p3", "p4", "p5", "p6")

    @nn.compact
    def __call__(self, features: Mapping[str, Float[Array, "B _ _ _"]], train: bool) -> DenseOutputs:
        """Returns logits [.., anchors] and deltas [.., anchors * 4] of its levels."""
        width = features[self.levels[0]].shape[-1]
        convs = [Conv(width, 3, use_bias=True, kernel_init=_init, name=f"conv{i}") for i in range(self.depth)]
        score = Conv(self.anchors, use_bias=True, kernel_init=_init, name="logits")
        move = Conv(self.anchors * 4, use_bias=True, kernel_init=_init, name="deltas")
        logits: dict[str, Array] = {}
        deltas: dict[str, Array] = {}
        for level in self.levels:
            x = features[level]
            for conv in convs:
                x = nn.relu(conv(x))
            logits[level], deltas[level] = score(x).astype(jnp.float32), move(x).astype(jnp.float32)
        return DenseOutputs(logits=logits, deltas=deltas)
