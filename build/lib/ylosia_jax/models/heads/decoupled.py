"""Decoupled anchor-free head."""

import math
from collections.abc import Mapping

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.conv import Conv, ConvNorm
from ylosia_jax.types import DenseOutputs, stride


class DecoupledHead(nn.Module):
    """Separate branches for class and box at every level (YOLOX, arXiv:2107.08430, section 2.1), no objectness.

    A branch is two 3x3 convolutions and a 1x1 one. Widths follow the finest level's channels C: the box branch has
    max(16, C / 4, 4 * bins), the class branch max(C, min(num_classes, 100)).

    Attributes:
      num_classes: K.
      bins: R, bins of each side's distance distribution (GFL, arXiv:2006.04388).
      levels: where objects are looked for, finest first.
      twin: a third branch, for classes again, that is to name every object once (YOLOv10, arXiv:2405.14458, 3.1).
    """

    num_classes: int
    bins: int = 16
    levels: tuple[str, ...] = ("p3", "p4", "p5")
    twin: bool = False

    @nn.compact
    def __call__(self, features: Mapping[str, Float[Array, "B _ _ _"]], train: bool) -> DenseOutputs:
        """Returns logits [.., K] and deltas [.., 4 * R] of its levels, and a twin's logits [.., K] if there is one."""
        finest = features[self.levels[0]].shape[-1]
        box_width = max(16, finest // 4, 4 * self.bins)
        class_width = max(finest, min(self.num_classes, 100))

        def branch(name: str, x: Array, width: int, out: int, bias: float) -> Array:
            for i in range(2):
                x = ConvNorm(width, 3, name=f"{name}_{i}")(x, train)
            return Conv(out, use_bias=True, name=f"{name}_out")(x, nn.initializers.constant(bias)).astype(jnp.float32)

        logits: dict[str, Array] = {}
        deltas: dict[str, Array] = {}
        once: dict[str, Array] = {}
        for level in self.levels:
            x = features[level]
            # About 5 objects in a 640 px image, spread over the level's cells and the classes: the first losses are
            # then those of a detector that knows how rare objects are.
            prior = 5 / self.num_classes / (640 / stride(level)) ** 2
            logits[level] = branch(f"class_{level}", x, class_width, self.num_classes, math.log(prior))
            deltas[level] = branch(f"box_{level}", x, box_width, 4 * self.bins, 1.0)
            if self.twin:
                once[level] = branch(f"once_{level}", x, class_width, self.num_classes, math.log(prior))
        return DenseOutputs(logits=logits, deltas=deltas, once=once if self.twin else None)
