import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ylosia_jax.train.optim import Optim, learning_rate, make_optimizer, update_ema


def test_learning_rate_rises_linearly_and_falls_as_a_cosine() -> None:
    rate = learning_rate(Optim(lr=0.1, warmup_steps=10, final_lr=0.1), 110)
    steps = np.array([float(rate(step)) for step in (0, 5, 10, 60, 110)])
    np.testing.assert_allclose(steps, [0, 0.05, 0.1, 0.055, 0.01], atol=1e-7)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_run_shorter_than_the_warm_up_has_a_finite_rate(steps: int) -> None:
    rate = learning_rate(Optim(warmup_steps=100), steps)
    assert all(np.isfinite(float(rate(step))) for step in range(steps + 1))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_decay_shrinks_kernels_and_leaves_norms_and_biases_alone(name: str) -> None:
    optimizer = make_optimizer(Optim(optimizer=name, lr=0.1, weight_decay=0.1, warmup_steps=1), 10)  # type: ignore[arg-type]
    params = {"kernel": jnp.ones((2, 2)), "scale": jnp.ones(2), "bias": jnp.ones(2)}
    state = optimizer.init(params)
    for _ in range(2):  # the first step's rate is 0
        updates, state = optimizer.update(jax.tree.map(jnp.zeros_like, params), state, params)
    assert (updates["kernel"] < 0).all()
    assert not updates["scale"].any()
    assert not updates["bias"].any()


def test_clipping_bounds_the_step_of_sgd() -> None:
    config = Optim(optimizer="sgd", lr=1.0, momentum=0.0, weight_decay=0.0, warmup_steps=1, clip=2.0)
    optimizer = make_optimizer(config, 10)
    params = {"kernel": jnp.zeros((3,))}
    state = optimizer.init(params)
    grads = {"kernel": jnp.array([30.0, 0.0, 40.0])}
    _, state = optimizer.update(grads, state, params)
    updates, _ = optimizer.update(grads, state, params)
    rate = float(learning_rate(config, 10)(1))
    np.testing.assert_allclose(updates["kernel"], [-1.2 * rate, 0, -1.6 * rate], rtol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_equals_optax_parameter_by_parameter(name: str) -> None:
    config = Optim(optimizer=name, lr=0.1, momentum=0.8, weight_decay=0.05, warmup_steps=2, clip=3.0)  # type: ignore[arg-type]
    rate = learning_rate(config, 10)
    if name == "adamw":
        rule = optax.adamw(rate, b1=0.8, weight_decay=0.05, mask={"kernel": True, "bias": False})
    else:
        decay = optax.add_decayed_weights(0.05, {"kernel": True, "bias": False})
        rule = optax.chain(decay, optax.sgd(rate, momentum=0.8, nesterov=True))
    twins = make_optimizer(config, 10), optax.chain(optax.clip_by_global_norm(3.0), rule)
    rng = np.random.default_rng(0)
    params = {"kernel": jnp.asarray(rng.normal(size=(3, 4))), "bias": jnp.asarray(rng.normal(size=4))}
    found, expected = params, params
    states = [twin.init(params) for twin in twins]
    for _ in range(6):
        grads = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), params)
        updates, states[0] = twins[0].update(grads, states[0], found)
        found = optax.apply_updates(found, updates)
        updates, states[1] = twins[1].update(grads, states[1], expected)
        expected = optax.apply_updates(expected, updates)
    assert optax.tree.norm(jax.tree.map(jnp.subtract, found, params)) > 0.1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)


def test_average_by_hand() -> None:
    config = Optim(ema_decay=0.9, ema_warmup=10)
    decay = 0.9 * (1 - np.exp(-5 / 10))
    got = update_ema(config, {"w": jnp.array(2.0)}, {"w": jnp.array(4.0)}, jnp.array(5))
    np.testing.assert_allclose(got["w"], 2 * decay + 4 * (1 - decay), rtol=1e-6)
