"""Convolution, blocks and pooling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ylosia_jax.nn.blocks import SPPF, Bottleneck, C2f
from ylosia_jax.nn.conv import Conv, ConvNorm
from ylosia_jax.nn.norm import FrozenNorm
from ylosia_jax.nn.resample import upsample
from ylosia_jax.ops.conv import max_pool

KEY = jax.random.key(0)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def shapes(tree):
    """path -> shape of every leaf."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): x.shape for path, x in jax.tree.leaves_with_path(tree)
    }


def variables_of(layer, x):
    """Random kernels, neutral norms; a compiled `init` takes longer than the tests."""
    rng = np.random.default_rng(7)

    def fill(path, leaf):
        match path[-1].key:
            case "kernel":
                return rng.normal(0, 0.3, leaf.shape).astype(np.float32)
            case "scale" | "var":
                return np.ones(leaf.shape, np.float32)
            case _:
                return np.zeros(leaf.shape, np.float32)

    return jax.tree.map_with_path(fill, jax.eval_shape(lambda x: layer.init(KEY, x, False), x))


def evaluate(layer, variables, x):
    return np.asarray(jax.jit(lambda v, x: layer.apply(v, x, False))(variables, x))


def convolve(x, kernel, stride):
    """Zero-padded correlation, an output cell at a time."""
    size, pad = kernel.shape[0], kernel.shape[0] // 2
    padded = np.pad(x.astype(np.float64), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    height, width = ((side + 2 * pad - size) // stride + 1 for side in x.shape[1:3])
    out = np.zeros((len(x), height, width, kernel.shape[-1]))
    for i, j in np.ndindex(height, width):
        window = padded[:, i * stride : i * stride + size, j * stride : j * stride + size]
        out[:, i, j] = np.einsum("bhwc,hwcd->bd", window, kernel)
    return out


@pytest.mark.parametrize(("kernel", "stride", "size"), [(1, 1, (4, 5)), (3, 1, (4, 5)), (3, 2, (6, 8)), (3, 2, (5, 7))])
def test_convolution_equals_loops(kernel, stride, size):
    x, weights = normal(2, *size, 3), normal(kernel, kernel, 3, 4, seed=1)
    layer = Conv(4, kernel, stride)
    found = jax.jit(layer.apply)({"params": {"kernel": weights}}, x)
    assert found.shape == (2, -(-size[0] // stride), -(-size[1] // stride), 4)
    np.testing.assert_allclose(found, convolve(x, weights, stride), atol=1e-4)


def test_convolution_gradients_equal_those_of_its_definition():
    """The gradients of a linear map, by its own values at unit vectors."""
    x, weights, cotangent = normal(1, 4, 6, 2), normal(3, 3, 2, 2, seed=1), normal(1, 2, 3, 2, seed=2)
    layer = Conv(2, 3, 2)

    @jax.jit
    @jax.grad
    def gradient(both):
        return jnp.vdot(layer.apply({"params": {"kernel": both[1]}}, both[0]), cotangent)

    by_x, by_kernel = gradient((x, weights))
    for index in np.ndindex(x.shape):
        unit = np.zeros_like(x)
        unit[index] = 1
        np.testing.assert_allclose(by_x[index], np.vdot(convolve(unit, weights, 2), cotangent), atol=1e-4)
    for index in np.ndindex(weights.shape):
        unit = np.zeros_like(weights)
        unit[index] = 1
        np.testing.assert_allclose(by_kernel[index], np.vdot(convolve(x, unit, 2), cotangent), atol=1e-4)


def test_convolution_starts_uniform_within_one_over_the_root_of_fan_in():
    params = jax.jit(Conv(64, 3, use_bias=True).init)(KEY, jnp.zeros((1, 3, 3, 32)))["params"]
    assert shapes(params) == {"bias": (64,), "kernel": (3, 3, 32, 64)}
    limit = 1 / np.sqrt(9 * 32)
    kernel = np.asarray(params["kernel"])
    assert np.abs(kernel).max() <= limit
    # The variance of U(-limit, limit), to within four standard errors.
    np.testing.assert_allclose(kernel.var(), limit**2 / 3, rtol=4 * np.sqrt(0.8 / kernel.size))
    assert not params["bias"].any()


def test_convolution_adds_its_bias():
    x, weights = normal(1, 2, 2, 3), normal(1, 1, 3, 4)
    bias = np.arange(4, dtype=np.float32)
    layer = Conv(4, use_bias=True)
    assert shapes(jax.eval_shape(Conv(4).init, KEY, x)) == {"params/kernel": (1, 1, 3, 4)}
    found = jax.jit(layer.apply)({"params": {"kernel": weights, "bias": bias}}, x)
    np.testing.assert_allclose(found, convolve(x, weights, 1) + bias, atol=1e-4)


def batch_norm_variables(features):
    return {
        "params": {
            "conv": {"kernel": normal(1, 1, 3, features, seed=1)},
            "norm": {"scale": np.linspace(0.5, 2, features, dtype=np.float32), "bias": normal(features, seed=2)},
        },
        "batch_stats": {"norm": {"mean": normal(features, seed=3), "var": normal(features, seed=4) ** 2}},
    }


def test_conv_norm_trains_on_the_statistics_of_the_batch():
    x, variables = normal(4, 3, 5, 3), batch_norm_variables(4)
    layer = ConvNorm(4, activation="none", momentum=0.9)
    found, updated = jax.jit(lambda v, x: layer.apply(v, x, True, mutable=["batch_stats"]))(variables, x)
    y = convolve(x, variables["params"]["conv"]["kernel"], 1)
    mean, var = y.mean(axis=(0, 1, 2)), y.var(axis=(0, 1, 2))
    norm, stats = variables["params"]["norm"], variables["batch_stats"]["norm"]
    np.testing.assert_allclose(found, (y - mean) / np.sqrt(var + 1e-3) * norm["scale"] + norm["bias"], atol=1e-4)
    # The running statistics move a tenth of the way.
    np.testing.assert_allclose(updated["batch_stats"]["norm"]["mean"], 0.9 * stats["mean"] + 0.1 * mean, atol=1e-5)
    np.testing.assert_allclose(updated["batch_stats"]["norm"]["var"], 0.9 * stats["var"] + 0.1 * var, atol=1e-5)


@pytest.mark.parametrize("activation", ["silu", "relu", "none"])
def test_conv_norm_evaluates_on_the_running_statistics(activation):
    x, variables = normal(2, 3, 5, 3), batch_norm_variables(4)
    layer = ConvNorm(4, activation=activation)
    found, updated = jax.jit(lambda v, x: layer.apply(v, x, False, mutable=["batch_stats"]))(variables, x)
    norm, stats = variables["params"]["norm"], variables["batch_stats"]["norm"]
    y = convolve(x, variables["params"]["conv"]["kernel"], 1) - stats["mean"]
    y = y / np.sqrt(stats["var"] + 1e-3) * norm["scale"] + norm["bias"]
    expected = {"silu": y / (1 + np.exp(-y)), "relu": np.maximum(y, 0), "none": y}[activation]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, updated["batch_stats"], variables["batch_stats"])


def test_max_pool_equals_loops():
    # All negative: a border of zeros would win.
    x = -np.abs(normal(2, 6, 7, 3)) - 1
    for kernel in (3, 5):
        expected = np.zeros_like(x)
        for i, j in np.ndindex(6, 7):
            low_i, low_j = max(i - kernel // 2, 0), max(j - kernel // 2, 0)
            expected[:, i, j] = x[:, low_i : i + kernel // 2 + 1, low_j : j + kernel // 2 + 1].max(axis=(1, 2))
        np.testing.assert_array_equal(jax.jit(max_pool, static_argnums=1)(x, kernel), expected)


def test_max_pool_sends_the_gradient_to_the_largest():
    x = normal(1, 4, 5, 2)
    found = jax.jit(jax.grad(lambda x: max_pool(x, 3).sum()))(x)
    expected = np.zeros_like(x)
    for i, j, c in np.ndindex(4, 5, 2):
        window = {(k, l): x[0, k, l, c] for k in range(4) for l in range(5) if abs(k - i) < 2 and abs(l - j) < 2}
        expected[(0, *max(window, key=window.get), c)] += 1
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_upsample_repeats_cells():
    x = normal(2, 3, 4, 5)
    for factor in (2, 3):
        expected = x.repeat(factor, axis=1).repeat(factor, axis=2)
        np.testing.assert_array_equal(jax.jit(upsample, static_argnums=1)(x, factor), expected)
    gradient = jax.jit(jax.grad(lambda x: (upsample(x) * upsample(x)).sum()))(x)
    np.testing.assert_allclose(gradient, 8 * x, atol=1e-5)


def test_a_bottleneck_without_change_is_its_input_where_it_has_a_shortcut():
    x = normal(1, 4, 4, 6)
    variables = variables_of(Bottleneck(6), x)
    assert np.abs(evaluate(Bottleneck(6), variables, x) - x).max() > 0.1
    # A zero scale of the last norm silences the two convolutions: silu(0) = 0.
    variables["params"]["conv2"]["norm"]["scale"] *= 0
    np.testing.assert_array_equal(evaluate(Bottleneck(6), variables, x), x)
    assert not evaluate(Bottleneck(6, shortcut=False), variables, x).any()


def test_a_c2f_stage_fuses_every_bottleneck():
    x = jax.ShapeDtypeStruct((2, 4, 4, 6), jnp.float32)
    for repeats in (1, 3):
        layer = C2f(8, repeats)
        out, variables = jax.eval_shape(lambda x, layer=layer: layer.init_with_output(KEY, x, False), x)
        assert out.shape == (2, 4, 4, 8)
        kernels = {path: shape for path, shape in shapes(variables["params"]).items() if path.endswith("kernel")}
        expected = {"split/conv/kernel": (1, 1, 6, 8), "fuse/conv/kernel": (1, 1, 4 * (2 + repeats), 8)}
        for i in range(repeats):
            expected |= {f"block{i}/conv{j}/conv/kernel": (3, 3, 4, 4) for j in (1, 2)}
        assert kernels == expected


def test_c2f_bottlenecks_are_chained():
    """The first bottleneck reads the second half; one that is silent hands on what the bottleneck before it gave."""
    x = normal(1, 2, 3, 6)
    layer = C2f(8, 2)
    variables = variables_of(layer, x)
    variables["params"]["block1"]["conv2"]["norm"]["scale"] *= 0

    def conv_norm(x, params):
        y = convolve(x, params["conv"]["kernel"], 1) / np.sqrt(1 + 1e-3)
        return y / (1 + np.exp(-y))

    halves = np.split(conv_norm(x, variables["params"]["split"]), 2, axis=-1)
    block = {name: collection["block0"] for name, collection in variables.items()}
    first = evaluate(Bottleneck(4), block, halves[1].astype(np.float32))
    assert np.abs(first - halves[1]).max() > 0.1
    expected = conv_norm(np.concatenate([*halves, first, first], axis=-1), variables["params"]["fuse"])
    np.testing.assert_allclose(evaluate(layer, variables, x), expected, atol=1e-4)


def test_sppf_sees_five_nine_and_thirteen_cells():
    """A single hot cell, passed through unit convolutions, shows how far each part of the pyramid sees."""
    x = np.full((1, 15, 15, 2), -1, np.float32)
    x[0, 7, 7] = 1
    layer = SPPF(4)
    variables = variables_of(layer, x)
    assert shapes(variables["params"])["fuse/conv/kernel"] == (1, 1, 4, 4)
    variables["params"]["reduce"]["conv"]["kernel"][:] = np.float32([1, 0])[:, None]
    variables["params"]["fuse"]["conv"]["kernel"][:] = np.eye(4)
    found = evaluate(layer, variables, x)[0]
    for part, reach in enumerate((1, 5, 9, 13)):
        seen = found[..., part] > 0
        assert seen.sum() == reach**2
        assert seen[7 - reach // 2, 7 - reach // 2]


@pytest.mark.parametrize("var", [0.0, 1e-42])
def test_a_frozen_norm_without_eps_leaves_dead_channels_finite(var: float) -> None:
    x = jnp.zeros((1, 2, 2, 3))
    numbers = {"mean": jnp.zeros(3), "var": jnp.array([1.0, 4.0, var]), "scale": jnp.array([1.0, 1.0, 0.0])}
    variables = {"batch_stats": {**numbers, "bias": jnp.ones(3)}}
    found = FrozenNorm(eps=0.0).apply(variables, x + 2)
    np.testing.assert_allclose(found[0, 0, 0], [3.0, 2.0, 1.0])
