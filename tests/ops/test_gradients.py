import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ylosia_jax.ops.gradients import limit_gradients


def summed(slopes: tuple[float, ...], limits: tuple[float, ...]) -> jax.Array:
    """The gradient at the source of copies whose losses have these slopes."""

    def loss(x):
        copies = limit_gradients({"p3": x, "p4": x[:1]}, limits)
        return sum(slope * (copy["p3"].sum() + copy["p4"].sum()) for slope, copy in zip(slopes, copies, strict=True))

    return jax.jit(jax.grad(loss))(jnp.ones(4))


def test_copies_are_what_they_are_copies_of():
    tree = {"p3": jnp.arange(6.0).reshape(2, 3), "p4": jnp.ones(1)}
    for copy in limit_gradients(tree, (1.0, 0.5)):
        jax.tree.map(np.testing.assert_array_equal, copy, tree)


def test_what_is_shorter_than_its_limit_is_left_alone():
    # The first entry feeds both levels.
    np.testing.assert_allclose(summed((3, 2, -1), (1, 1, 1)), [8, 4, 4, 4])
    np.testing.assert_allclose(summed((3, 30), (1, 10)), [66, 33, 33, 33])
    np.testing.assert_allclose(summed((0, 30), (1, math.inf)), [60, 30, 30, 30])


def test_what_is_longer_than_its_limit_is_scaled_down_to_it():
    np.testing.assert_allclose(summed((3, 30), (1, 1)), [12, 6, 6, 6], rtol=1e-6)
    np.testing.assert_allclose(summed((3, -30, 0.5), (1, 0.5, 1)), [4, 2, 2, 2], rtol=1e-6)
    # Nothing else counts for the first: its limit is not read.
    np.testing.assert_allclose(summed((3,), (0.1,)), [6, 3, 3, 3])


def test_a_first_that_says_nothing_bounds_nothing_and_nothing_is_nan():
    np.testing.assert_array_equal(summed((0, 5), (1, 1)), [10, 5, 5, 5])
    np.testing.assert_array_equal(summed((0, 5), (1, 0)), np.zeros(4))
    np.testing.assert_array_equal(summed((0, 0), (1, 1)), np.zeros(4))


def test_lengths_are_summed_in_float32():
    def loss(x):
        first, second = limit_gradients(x, (1.0, 1.0))
        return (first.astype(jnp.float32) * 0.01).sum() + (second.astype(jnp.float32) * 0.02).sum()

    grad = jax.grad(loss)(jnp.ones(10000, jnp.bfloat16))
    assert grad.dtype == jnp.bfloat16
    np.testing.assert_allclose(grad.astype(jnp.float32), 0.02, rtol=1e-2)


def test_a_negative_limit_is_refused():
    with pytest.raises(ValueError, match="give none below 0"):
        limit_gradients(jnp.ones(1), (1.0, -1.0))
