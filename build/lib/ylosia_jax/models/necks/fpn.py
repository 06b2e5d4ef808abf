"""Feature pyramid (arXiv:1612.03144)."""

from typing import Literal

from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.conv import Conv, ConvNorm
from ylosia_jax.nn.norm import NormKind
from ylosia_jax.nn.resample import upsample_to
from ylosia_jax.ops.conv import max_pool

# Torch's kaiming_uniform with a = 1.
_init = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")


class FPN(nn.Module):
    """Levels of one width, each of its backbone's level and the enlarged level above it.

    Attributes:
      levels: of the backbone, finest first; ("c2", "c3") gives p2 and p3.
      features: channels of every level.
      extra: what comes after the last: "pool" one level, every second cell of the last (Faster R-CNN); "c5" or "p5"
        two levels by strided convolutions, the first of the backbone's or the pyramid's last level (RetinaNet,
        arXiv:1708.02002, section 4); "none".
      norm: of its layers; None for none, and biases instead.
    """

    levels: tuple[str, ...] = ("c2", "c3", "c4", "c5")
    features: int = 256
    extra: Literal["pool", "c5", "p5", "none"] = "pool"
    norm: NormKind | None = None
    eps: float = 1e-5

    @nn.compact
    def __call__(self, features: dict[str, Float[Array, "B _ _ _"]], train: bool) -> dict[str, Array]:
        """Returns {"p2": …}, as many levels as it is given and those beyond them."""

        def conv(name: str, x: Array, kernel: int) -> Array:
            if self.norm is None:
                return Conv(self.features, kernel, use_bias=True, kernel_init=_init, name=name)(x)
            layer = ConvNorm(
                self.features, kernel, activation="none", eps=self.eps, norm=self.norm, kernel_init=_init, name=name
            )
            return layer(x, train)

        found: dict[str, Array] = {}
        above: Array | None = None
        for level in reversed(self.levels):
            x = conv(f"lateral_{level}", features[level], 1)
            above = x if above is None else x + upsample_to(above, x.shape[1], x.shape[2])
            found[f"p{level[1:]}"] = conv(f"out_{level}", above, 3)
        found = dict(sorted(found.items()))
        last = self.levels[-1]
        number = int(last[1:])
        match self.extra:
            case "pool":
                found[f"p{number + 1}"] = max_pool(found[f"p{number}"], 1, 2)
            case "c5" | "p5":
                x = features[last] if self.extra == "c5" else found[f"p{number}"]
                for i, name in enumerate(("extra6", "extra7"), start=1):
                    x = Conv(self.features, 3, 2, use_bias=True, kernel_init=_init, name=name)(
                        x if i == 1 else nn.relu(x)
                    )
                    found[f"p{number + i}"] = x
            case "none":
                pass
        return found
