"""Normalisation of feature maps, in the forms that published networks come in."""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

# batch: by the batch's statistics; frozen: by stored numbers that nothing changes; group: 32 groups an image.
NormKind = Literal["batch", "frozen", "group"]


class FrozenNorm(nn.Module):
    """Batch norm whose statistics, scale and bias are constants.

    Detectors that start from trained weights and see few images at a time keep them so (Mask R-CNN, arXiv:1703.06870,
    section 3.1). All four numbers a channel stand in the collection `batch_stats`: they are no parameters, neither
    learned nor counted. Their names are those of `nn.BatchNorm`, statistics and parameters together.
    """

    eps: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Returns (x - mean) / sqrt(var + eps) * scale + bias; no gradient flows to the four."""
        channels = (x.shape[-1],)
        mean, var, scale, bias = (
            self.variable("batch_stats", name, init, channels, jnp.float32).value
            for name, init in (("mean", jnp.zeros), ("var", jnp.ones), ("scale", jnp.ones), ("bias", jnp.zeros))
        )
        # Dead channels of published networks have variances that are not normal numbers, and some networks no eps.
        factor = scale * jax.lax.rsqrt(jnp.maximum(var + self.eps, jnp.finfo(jnp.float32).tiny))
        return x * factor.astype(x.dtype) + (bias - mean * factor).astype(x.dtype)


def norm(
    kind: NormKind,
    x: Float[Array, "B H W C"],
    train: bool,
    *,
    eps: float,
    momentum: float,
    name: str = "norm",
    counted: Bool[Array, " B"] | None = None,
) -> Array:
    """Normalises inside a compact module; the layer's parameters stand under `name`.

    Args:
      eps: added to the variance.
      momentum: of batch norm's running statistics, the share that stays (1 - PyTorch's).
      counted: maps that batch norm takes its statistics of, the others being padding; None for all, and all where
        there is none.
    """
    match kind:
        case "batch":
            layer = nn.BatchNorm(not train, momentum=momentum, epsilon=eps, name=name)
            return layer(x) if counted is None else layer(x, mask=(counted | ~counted.any())[:, None, None, None])
        case "frozen":
            return FrozenNorm(eps=eps, name=name)(x)
        case "group":
            # In two passes: of a coarse level's few values, the difference of two squares leaves nothing but rounding.
            return nn.GroupNorm(num_groups=32, epsilon=eps, use_fast_variance=False, name=name)(x)
