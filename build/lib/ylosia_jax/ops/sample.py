"""Choosing a few of many by chance, the same for any number of hosts and after any resumption.

Shape shorthand: A anchors or regions, S sampled ones.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from ylosia_jax.ops.assign import top_k_mask


@struct.dataclass
class Sample:
    """A choice of anchors or regions, positives first.

    Attributes:
      index: [S] which.
      valid: [S] False marks padding, where there were not so many.
      positive: [S] chosen as one that answers for an object.
    """

    index: Int[Array, " S"]
    valid: Bool[Array, " S"]
    positive: Bool[Array, " S"]


def luck(*numbers: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """A number in [0, 1) that looks random, of whole numbers; what `jax.random` makes takes XLA seconds to compile.

    Tasks give it the image, the epoch and the place: the same in every run, whatever its seed, so that seeds differ by
    initial weights, order and augmentation alone.
    """
    mixed = jnp.uint32(0)
    for number in numbers:
        # Rounds of an xor-shift-multiply hash; the odd constants spread every bit of their factor.
        mixed = (mixed ^ number.astype(jnp.uint32)) * jnp.uint32(0x9E3779B1)
        mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(0x85EBCA77)
        mixed ^= mixed >> 13
    return (mixed >> 8).astype(jnp.float32) / (1 << 24)


def sample_balanced(
    kind: Int[Array, " A"], priority: Float[Array, " A"], *, count: int, positive_share: float
) -> Sample:
    """At most `count`, of which at most a share are positives; background fills the rest (Fast R-CNN, 1504.08083, 2.3).

    Args:
      kind: 1 for an object's, 0 for background, anything else is not chosen: padding, and what is ignored.
      priority: in [0, 1); of each kind the highest are chosen. `luck` makes the choice a fair one.
      count: S; all that can be chosen where there are fewer.
      positive_share: of `count`, rounded down.
    """
    size = kind.shape[0]
    positive = kind == 1
    most = int(count * positive_share)
    first = positive & top_k_mask(jnp.where(positive, priority, -1.0), most) if most else jnp.zeros_like(positive)
    key = jnp.where(first, 2 + priority, jnp.where(kind == 0, priority, -1.0))
    best, index = jax.lax.top_k(key, min(count, size))
    spare = count - best.shape[0]
    best, index = jnp.pad(best, (0, spare), constant_values=-1.0), jnp.pad(index, (0, spare))
    return Sample(index=index, valid=best >= 0, positive=best >= 2)


def hardest_background(losses: Float[Array, " A"], kind: Int[Array, " A"], *, ratio: float) -> Bool[Array, " A"]:
    """Marks the background with the largest losses, `ratio` times as many as positives (SSD, 1512.02325, section 2.2).

    Args:
      losses: what each would cost as background.
      kind: 1 for an object's, 0 for background; anything else is not chosen.
    """
    order = jnp.argsort(jnp.where(kind == 0, losses, -jnp.inf), descending=True)
    rank = jnp.argsort(order)
    return (kind == 0) & (rank < ratio * (kind == 1).sum())
