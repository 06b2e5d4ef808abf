"""What flows back where one array serves many."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

_TINY = 1e-30


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def limit_gradients(x: Any, limits: tuple[float, ...]) -> tuple[Any, ...]:
    """As many copies of a tree of arrays as there are limits; the gradient is the sum of theirs, each kept in bounds.

    Losses of different kinds, added up, are a tug-of-war that the steepest wins. Here no copy's gradient is longer
    than its limit times the first one's: what is longer is scaled down, in the manner of MetaBalance
    (arXiv:2203.06801). What the copies' users learn for themselves is untouched. Where the first one's gradient is 0,
    as in a batch without labels for it, there is nothing to outweigh, and no bound.

    Args:
      x: a tree of arrays.
      limits: of each copy, relative to the first, whose own is ignored; infinite for none. Lengths are L2 norms over
        all arrays and the whole batch; padding counts as far as it has a gradient.

    Returns:
      The copies, one for each limit, in their order.

    Raises:
      ValueError: if a limit is negative.
    """
    if min(limits) < 0:
        raise ValueError(f"limits are {limits}: give none below 0")
    return (x,) * len(limits)


def _forward(x: Any, limits: tuple[float, ...]) -> tuple[tuple[Any, ...], None]:
    return limit_gradients(x, limits), None


def _backward(limits: tuple[float, ...], _: None, gradients: tuple[Any, ...]) -> tuple[Any]:
    lengths = [_length(gradient) for gradient in gradients]
    factors = [jnp.ones(())]
    for limit, length in zip(limits[1:], lengths[1:], strict=True):
        bounded = jnp.minimum(1, limit * lengths[0] / jnp.maximum(length, _TINY))
        bounds = (lengths[0] > 0) | (limit == 0)
        factors.append(jnp.ones(()) if math.isinf(limit) else jnp.where(bounds, bounded, 1))

    def total(*parts: jax.Array) -> jax.Array:
        summed = sum(factor * part.astype(jnp.float32) for factor, part in zip(factors, parts, strict=True))
        return jnp.asarray(summed).astype(parts[0].dtype)

    return (jax.tree.map(total, *gradients),)


def _length(tree: Any) -> jax.Array:
    squares = [jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(jnp.sum(jnp.stack(squares)))


limit_gradients.defvjp(_forward, _backward)
