import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ylosia_jax.ops import losses


def test_binary_cross_entropy_equals_its_definition():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(0, 4, (20, 5)).astype(np.float32), rng.uniform(0, 1, (20, 5)).astype(np.float32)
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = -(targets * np.log(p) + (1 - targets) * np.log(1 - p))
    found = jax.jit(losses.binary_cross_entropy_loss)(logits, targets)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(losses.binary_cross_entropy_loss(*map(jnp.asarray, (logits, targets))), found, atol=1e-6)


def test_binary_cross_entropy_gradient_is_score_minus_target():
    logits = np.array([-8, -1, 0, 0, 3], np.float32)
    targets = np.array([0.2, 1, 0.5, 0, 0.7], np.float32)
    gradient = jax.jit(jax.vmap(jax.grad(losses.binary_cross_entropy_loss)))(logits, targets)
    np.testing.assert_allclose(gradient, 1 / (1 + np.exp(-logits)) - targets, atol=1e-6)


def test_binary_cross_entropy_of_extreme_logits():
    logits = np.array([1e4, 1e4, -1e4, -1e4], np.float32)
    targets = np.array([1, 0, 0, 1], np.float32)
    run = jax.jit(jax.vmap(jax.value_and_grad(losses.binary_cross_entropy_loss)))
    values, gradients = run(logits, targets)
    np.testing.assert_array_equal(values, [0, 1e4, 0, 1e4])
    np.testing.assert_array_equal(gradients, [0, 1, 0, -1])


def test_binary_entropy_by_hand():
    targets = np.array([0, 0.5, 1, 0.2], np.float32)
    expected = [0, math.log(2), 0, -(0.2 * math.log(0.2) + 0.8 * math.log(0.8))]
    np.testing.assert_allclose(jax.jit(losses.binary_entropy)(targets), expected, atol=1e-6)
    np.testing.assert_allclose(losses.binary_entropy(jnp.asarray(targets)), expected, atol=1e-6)


def test_binary_entropy_is_the_least_cross_entropy():
    rng = np.random.default_rng(5)
    targets = rng.uniform(0.01, 0.99, (50, 1)).astype(np.float32)
    best = np.log(targets / (1 - targets))
    logits = np.concatenate([best, best + rng.normal(0, 2, (50, 8))], axis=1).astype(np.float32)
    above = jax.jit(lambda x, t: losses.binary_cross_entropy_loss(x, t) - losses.binary_entropy(t))(
        logits, np.broadcast_to(targets, logits.shape)
    )
    np.testing.assert_allclose(above[:, 0], np.zeros(50), atol=1e-6)
    assert above.min() > -1e-6


def test_softmax_divergence_equals_its_definition():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 4, (6, 7, 5)).astype(np.float32)
    # Of whole cells, of cells that are labelled in part, and of one that is not.
    shares = rng.dirichlet(np.full(5, 0.3), (6, 7)) * rng.uniform(0, 1, (6, 7, 1))
    shares[0], shares[1, 0] = np.eye(5)[rng.integers(0, 5, 7)], 0
    found = jax.jit(losses.softmax_divergence_loss)(logits, shares.astype(np.float32))
    for i, j in np.ndindex(6, 7):
        p = np.exp(logits[i, j].astype(np.float64))
        truth = shares[i, j]
        expected = sum(
            s * (math.log(s / truth.sum()) - math.log(q)) for s, q in zip(truth, p / p.sum(), strict=True) if s
        )
        np.testing.assert_allclose(found[i, j], expected, atol=1e-5)
    assert found[1, 0] == 0


def test_softmax_divergence_is_least_where_the_shares_are_told():
    shares = jnp.array([[0.25, 0.75, 0], [0.1, 0, 0.3], [0, 0, 0]])
    run = jax.jit(jax.vmap(jax.value_and_grad(losses.softmax_divergence_loss)))
    values, gradients = run(jnp.log(jnp.maximum(shares, 1e-9)), shares)
    np.testing.assert_allclose(values, np.zeros(3), atol=1e-6)
    np.testing.assert_allclose(gradients, np.zeros((3, 3)), atol=1e-6)
    values, gradients = run(jnp.array([[1e4, 0, -1e4]] * 3), jnp.array([[0.0, 1, 0]] * 3))
    np.testing.assert_allclose(values, [1e4] * 3, rtol=1e-6)
    np.testing.assert_allclose(gradients, [[1, -1, 0]] * 3, atol=1e-6)


def distribution_focal_by_definition(logits, distances, bins):
    """GFL's equation 6, a side at a time: -((y_r - y) log p_l + (y - y_l) log p_r)."""
    result = np.zeros((len(distances), 4))
    for i, side in np.ndindex(len(distances), 4):
        scores = logits[i, side * bins : (side + 1) * bins].astype(np.float64)
        log_p = scores - np.log(np.exp(scores).sum())
        y = float(distances[i, side])
        left = math.floor(y)
        result[i, side] = -((left + 1 - y) * log_p[left] + (y - left) * log_p[left + 1])
    return result


@pytest.mark.parametrize("bins", [4, 16])
def test_distribution_focal_equals_its_definition(bins):
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 3, (40, 4 * bins)).astype(np.float32)
    distances = rng.uniform(0, bins - 1.02, (40, 4)).astype(np.float32)
    distances[:8] = rng.integers(0, bins - 1, (8, 4))
    expected = distribution_focal_by_definition(logits, distances, bins)
    found = jax.jit(losses.distribution_focal_loss, static_argnums=2)(logits, distances, bins)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(
        losses.distribution_focal_loss(*map(jnp.asarray, (logits, distances)), bins), found, atol=1e-5
    )


@jax.jit
def focal_of_8_bins(logits, distances):
    """The loss, and the gradient of its sum by the logits."""
    value, pull = jax.vjp(lambda x: losses.distribution_focal_loss(x, distances, 8), logits)
    return value, pull(jnp.ones_like(value))[0]


def test_distribution_focal_of_a_whole_number_is_cross_entropy():
    logits = np.random.default_rng(3).normal(0, 2, (4, 8)).astype(np.float32)
    bins = np.array([0, 2, 5, 6])
    found, _ = focal_of_8_bins(logits.reshape(32), bins.astype(np.float32))
    np.testing.assert_allclose(found, optax.softmax_cross_entropy_with_integer_labels(logits, bins), atol=1e-5)


def test_distribution_focal_clips_what_the_bins_cannot_express():
    logits = np.random.default_rng(4).normal(0, 2, (32,)).astype(np.float32)
    outside, _ = focal_of_8_bins(logits, np.array([-3, 7, 100, 1e6], np.float32))
    edge, _ = focal_of_8_bins(logits, np.array([0, 6.99, 6.99, 6.99], np.float32))
    np.testing.assert_allclose(outside, edge, atol=1e-6)


def test_distribution_focal_is_least_at_the_two_neighbours():
    """Its minimum over all distributions is the one whose expectation is the target."""
    shared = np.full((4, 8), -100, np.float32)
    shared[:, 2:4] = np.log([0.25, 0.75])
    value, gradient = focal_of_8_bins(shared.reshape(32), np.full(4, 2.75, np.float32))
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    np.testing.assert_allclose(value, [entropy] * 4, atol=1e-5)
    np.testing.assert_allclose(gradient, np.zeros(32), atol=1e-6)


def test_distribution_focal_gradient_is_finite_for_extreme_logits():
    logits = np.tile(np.array([1e4, -1e4, 0, 1e4, 0, 0, 7, 1], np.float32), 4)
    value, gradient = focal_of_8_bins(logits, np.array([0, 1.5, 3, -5], np.float32))
    assert np.isfinite(value).all()
    assert np.isfinite(gradient).all()


def test_two_hot_by_hand():
    expected = [[1, 0, 0, 0], [0, 0.25, 0.75, 0], [0, 0, 1, 0], [0, 0, 0.01, 0.99], [1, 0, 0, 0]]
    values = np.array([0, 1.75, 2, 9, -4], np.float32)
    np.testing.assert_allclose(jax.jit(losses.two_hot, static_argnums=1)(values, 4), expected, atol=1e-6)
    np.testing.assert_allclose(losses.two_hot(jnp.asarray(values), 4), expected, atol=1e-6)


def test_the_expectation_of_two_hot_is_the_value():
    values = np.random.default_rng(6).uniform(0, 14.98, (40, 4)).astype(np.float32)
    weights = jax.jit(losses.two_hot, static_argnums=1)(values, 16)
    np.testing.assert_allclose(weights.sum(axis=-1), np.ones((40, 4)), atol=1e-5)
    np.testing.assert_allclose(weights @ np.arange(16, dtype=np.float32), values, atol=1e-5)


def test_distribution_entropy_is_the_least_distribution_focal_loss():
    distances = np.array([0, 2.5, 2.75, 5], np.float32)
    expected = [0, math.log(2), -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)), 0]
    found = jax.jit(losses.distribution_entropy, static_argnums=1)(distances, 8)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(losses.distribution_entropy(jnp.asarray(distances), 8), expected, atol=1e-6)
    best = np.log(np.asarray(losses.two_hot(jnp.asarray(distances), 8)) + 1e-30).reshape(32)
    np.testing.assert_allclose(focal_of_8_bins(best, distances)[0], expected, atol=1e-5)
    for logits in np.random.default_rng(7).normal(0, 3, (5, 32)).astype(np.float32):
        assert (focal_of_8_bins(best + logits, distances)[0] > found - 1e-5).all()


def test_softmax_cross_entropy_equals_optax_and_leaves_other_labels_out():
    logits = np.random.default_rng(4).normal(0, 3, (6, 4)).astype(np.float32)
    labels = np.array([0, 3, 2, 255, -1, 1])
    run = jax.jit(jax.vmap(jax.value_and_grad(losses.softmax_cross_entropy_loss)))
    found, gradient = run(logits, labels)
    inside = labels < 4
    inside[4] = False
    wanted = optax.softmax_cross_entropy_with_integer_labels(logits[inside], labels[inside])
    np.testing.assert_allclose(found[inside], wanted, rtol=1e-6)
    assert not np.any(found[~inside])
    assert not np.any(gradient[~inside])
