"""RetinaNet's head, and the towers of convolutions that FCOS's is made of too."""

import math
from collections.abc import Mapping

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.conv import Conv, ConvNorm
from ylosia_jax.nn.norm import NormKind
from ylosia_jax.types import DenseOutputs

LEVELS = ("p3", "p4", "p5", "p6", "p7")
# RetinaNet, section 4.1.
narrow_init = nn.initializers.normal(0.01)


def prior_bias(prior: float) -> nn.initializers.Initializer:
    """The bias with which every score begins at `prior`, as rare as objects are (RetinaNet, sections 3.3 and 4.1)."""
    return nn.initializers.constant(-math.log((1 - prior) / prior))


class Tower(nn.Module):
    """3x3 convolutions of one width, each with a ReLU, that look at every level alike.

    Attributes:
      depth: how many.
      norm: before each ReLU; None for none.
      use_bias: of the convolutions; always without a norm.
    """

    depth: int = 4
    norm: NormKind | None = None
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W C"]:
        """Keeps the shape."""
        width = x.shape[-1]
        for i in range(self.depth):
            if self.norm is None:
                x = nn.relu(Conv(width, 3, use_bias=True, kernel_init=narrow_init, name=f"conv{i}")(x))
                continue
            x = ConvNorm(
                width,
                3,
                activation="relu",
                eps=1e-5,
                norm=self.norm,
                use_bias=self.use_bias,
                kernel_init=narrow_init,
                name=f"conv{i}",
            )(x, train)
        return x


class RetinaHead(nn.Module):
    """Class and box branches that all levels share (RetinaNet, arXiv:1708.02002, section 4).

    Attributes:
      num_classes: K.
      anchors: of a cell.
      depth: convolutions of each branch before its last.
      norm: of the branches, whose convolutions have then no bias; None for none, as in the paper.
      levels: where objects are looked for, finest first.
      prior: every score at the beginning.
    """

    num_classes: int
    anchors: int = 9
    depth: int = 4
    norm: NormKind | None = None
    levels: tuple[str, ...] = LEVELS
    prior: float = 0.01

    @nn.compact
    def __call__(self, features: Mapping[str, Float[Array, "B _ _ _"]], train: bool) -> DenseOutputs:
        """Returns logits [.., anchors * K] and deltas [.., anchors * 4] of its levels."""
        class_tower = Tower(self.depth, self.norm, use_bias=False, name="class_tower")
        box_tower = Tower(self.depth, self.norm, use_bias=False, name="box_tower")
        classes = Conv(self.anchors * self.num_classes, 3, use_bias=True, kernel_init=narrow_init, name="class_out")
        boxes = Conv(self.anchors * 4, 3, use_bias=True, kernel_init=narrow_init, name="box_out")
        logits: dict[str, Array] = {}
        deltas: dict[str, Array] = {}
        for level in self.levels:
            x = features[level]
            logits[level] = classes(class_tower(x, train), prior_bias(self.prior)).astype(jnp.float32)
            deltas[level] = boxes(box_tower(x, train)).astype(jnp.float32)
        return DenseOutputs(logits=logits, deltas=deltas)
