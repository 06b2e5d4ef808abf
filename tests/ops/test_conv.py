import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from ylosia_jax.ops import conv as conv_module
from ylosia_jax.ops.conv import conv_general_dilated, max_pool

LAYOUT = ("NHWC", "HWIO", "NHWC")


def random(*shape: int, seed: int = 0, dtype=jnp.float32) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def value_and_gradients(conv, x, kernel, strides, padding, **options):
    @jax.jit
    def run(x, kernel, seed):
        y, pullback = jax.vjp(lambda x, k: conv(x, k, strides, padding, dimension_numbers=LAYOUT, **options), x, kernel)
        return y, *pullback(seed)

    shape = jax.eval_shape(lambda: conv(x, kernel, strides, padding, dimension_numbers=LAYOUT, **options))
    return run(x, kernel, random(*shape.shape, seed=9, dtype=shape.dtype))


def assert_same(ours, theirs, atol=1e-4):
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        np.testing.assert_allclose(np.asarray(a, np.float32), np.asarray(b, np.float32), atol=atol)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("padding", "size"), [("half", (1, 17, 12)), ("SAME", (2, 8, 9))])
def test_equals_lax(kernel, stride, padding, size):
    half = kernel // 2
    padding = ((half, half), (half, half)) if padding == "half" else padding
    x, w = random(*size, 3), random(kernel, kernel, 3, 4, seed=1)
    args = (x, w, (stride, stride), padding)
    assert_same(value_and_gradients(conv_general_dilated, *args), value_and_gradients(lax.conv_general_dilated, *args))


@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize(
    ("kernel", "strides", "padding"),
    [(3, (1, 1), "half"), (5, (2, 2), "half"), (3, (2, 1), "SAME"), (2, (1, 2), "VALID")],
)
def test_depthwise_equals_lax(kernel, strides, padding, dilation):
    half = dilation * (kernel // 2)
    padding = ((half, half), (half, half - 1)) if padding == "half" else padding
    args = (random(2, 11, 14, 6), random(kernel, kernel, 1, 6, seed=1), strides, padding)
    options = {"feature_group_count": 6, "rhs_dilation": (dilation, dilation)}
    assert_same(
        value_and_gradients(conv_general_dilated, *args, **options),
        value_and_gradients(lax.conv_general_dilated, *args, **options),
    )


@pytest.mark.parametrize("options", [{"feature_group_count": 3}, {"rhs_dilation": (2, 2)}])
def test_groups_and_dilations_are_laxs(options):
    args = (random(1, 8, 9, 6), random(3, 3, 6 // options.get("feature_group_count", 1), 6, seed=1), (1, 1), "SAME")
    assert_same(
        value_and_gradients(conv_general_dilated, *args, **options),
        value_and_gradients(lax.conv_general_dilated, *args, **options),
    )


@pytest.mark.parametrize(
    ("kernel", "strides", "padding", "size"),
    [
        ((3, 2), (1, 2), ((2, 0), (0, 3)), (8, 8)),
        ((5, 3), (3, 2), "VALID", (11, 10)),
        ((2, 2), (1, 1), ((4, 5), (7, 0)), (5, 6)),
        ((3, 3), (2, 2), ((-1, 0), (1, -2)), (12, 9)),
        ((2, 3), (3, 1), ((1, 1), (1, 1)), (9, 7)),
        ((1, 1), (2, 2), ((1, 0), (0, 1)), (7, 6)),
    ],
)
def test_odd_paddings_equal_the_sum_over_taps(kernel, strides, padding, size):
    def by_taps(x, w, strides, padding, dimension_numbers):
        if isinstance(padding, str):
            padding = lax.padtype_to_pads(x.shape[1:3], w.shape[:2], strides, padding)
        x = lax.pad(x, 0.0, ((0, 0, 0), (*padding[0], 0), (*padding[1], 0), (0, 0, 0)))
        rows, columns = (x.shape[1] - w.shape[0]) // strides[0] + 1, (x.shape[2] - w.shape[1]) // strides[1] + 1
        return sum(
            x[:, i : i + (rows - 1) * strides[0] + 1 : strides[0], j : j + (columns - 1) * strides[1] + 1 : strides[1]]
            @ w[i, j]
            for i in range(w.shape[0])
            for j in range(w.shape[1])
        )

    args = (random(2, *size, 3), random(*kernel, 3, 4, seed=1), strides, padding)
    assert_same(value_and_gradients(conv_general_dilated, *args), value_and_gradients(by_taps, *args))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("padding", "kernel"), [("half", (3, 3)), ("VALID", (2, 3)), ("SAME", (5, 1))])
def test_wide_kernels_equal_lax(padding, kernel, stride):
    padding = tuple((size // 2, size // 2) for size in kernel) if padding == "half" else padding
    args = (random(2, 9, 7, 128), random(*kernel, 128, 130, seed=1) / 40, (stride, stride), padding)
    assert_same(value_and_gradients(conv_general_dilated, *args), value_and_gradients(lax.conv_general_dilated, *args))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("size", "kernel"), [((2, 2), 3), ((1, 1), 3), ((4, 4), 5), ((2, 3), 5)])
def test_maps_of_fewer_cells_than_the_kernel_equal_lax(size, kernel, stride):
    half = kernel // 2
    args = (random(3, *size, 6), random(kernel, kernel, 6, 5, seed=1), (stride, stride), ((half, half),) * 2)
    assert_same(value_and_gradients(conv_general_dilated, *args), value_and_gradients(lax.conv_general_dilated, *args))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bands", [1, 3])
def test_bands_change_nothing(monkeypatch, bands, stride):
    """Of rows, there and back, and of the output channels of the kernel's gradient."""
    monkeypatch.setattr(conv_module, "_BANDS", bands)
    monkeypatch.setattr(conv_module, "_BAND_FEATURES", 2)
    args = (random(2, 19, 6, 3), random(3, 3, 3, 7, seed=1), (stride, stride), ((1, 1), (1, 1)))
    assert_same(value_and_gradients(conv_general_dilated, *args), value_and_gradients(lax.conv_general_dilated, *args))


@pytest.mark.parametrize("kernel", [1, 3])
def test_bfloat16(kernel):
    x, w = random(2, 8, 8, 16, dtype=jnp.bfloat16), random(kernel, kernel, 16, 8, seed=1, dtype=jnp.bfloat16)
    args = ((2, 2), ((kernel // 2, kernel // 2),) * 2)
    ours = value_and_gradients(conv_general_dilated, x, w, *args)
    exact = value_and_gradients(lax.conv_general_dilated, x.astype(jnp.float32), w.astype(jnp.float32), *args)
    for a, b in zip(ours, exact, strict=True):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.asarray(a, np.float32), b, rtol=2**-7, atol=2**-7 * float(jnp.abs(b).max()))


@pytest.mark.parametrize("kernel", [1, 3])
def test_vmap_and_remat(kernel):
    xs, w = random(3, 2, 8, 8, 4), random(kernel, kernel, 4, 5, seed=1)

    def loss(conv, x, w):
        return jnp.sum(jnp.tanh(conv(x, w, (2, 2), "SAME", dimension_numbers=LAYOUT)))

    ours = jax.vmap(jax.grad(jax.checkpoint(functools.partial(loss, conv_general_dilated)), (0, 1)), (0, None))(xs, w)
    theirs = jax.vmap(jax.grad(functools.partial(loss, lax.conv_general_dilated), (0, 1)), (0, None))(xs, w)
    assert_same(ours, theirs)


@pytest.mark.parametrize(
    "options",
    [
        {"feature_group_count": 2},
        {"rhs_dilation": (2, 2)},
        {"lhs_dilation": (2, 1)},
        {"preferred_element_type": jnp.float32},
    ],
)
def test_uncovered_cases_are_laxs_own(options):
    groups = options.get("feature_group_count", 1)
    args = (random(2, 8, 8, 4), random(3, 3, 4 // groups, 6, seed=1), (1, 1), ((1, 1), (1, 1)))
    ours, theirs = (
        value_and_gradients(conv, *args, **options) for conv in (conv_general_dilated, lax.conv_general_dilated)
    )
    assert_same(ours, theirs)


@pytest.mark.parametrize("groups", [1, 4])
def test_flax_takes_it(groups):
    x = random(1, 9, 9, 4)
    plain = nn.Conv(8, (3, 3), 2, feature_group_count=groups)
    ours = nn.Conv(8, (3, 3), 2, feature_group_count=groups, conv_general_dilated=conv_general_dilated)
    variables = plain.init(jax.random.key(0), x)
    assert_same([ours.apply(variables, x)], [plain.apply(variables, x)])


def test_shape_errors_are_laxs_own():
    with pytest.raises(ValueError, match="feature"):
        conv_general_dilated(random(1, 8, 8, 3), random(3, 3, 4, 4), (1, 1), "SAME", dimension_numbers=LAYOUT)


@pytest.mark.parametrize(("platform", "products"), [("cpu", True), ("tpu", False)])
def test_the_platform_of_lowering_decides(platform, products):
    def loss(x, w):
        return jnp.sum(conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=LAYOUT) ** 2)

    step = jax.jit(jax.grad(loss, (0, 1)))
    text = step.trace(random(1, 8, 8, 4), random(1, 1, 4, 4)).lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.dot_general" in text) == products
    assert ("stablehlo.convolution" in text) != products


@pytest.mark.parametrize(("kernel", "size"), [(3, (2, 10, 7)), (5, (1, 2, 3)), (5, (1, 9, 8))])
def test_max_pool_equals_a_window_reduction(kernel, size):
    x = random(*size, 3)
    pads = ((kernel // 2, kernel // 2),) * 2

    def theirs(x):
        return nn.max_pool(x, (kernel, kernel), (1, 1), pads)

    @functools.partial(jax.jit, static_argnums=0)
    def run(pool, x):
        y, pullback = jax.vjp(pool, x)
        return y, *pullback(y)

    y, gradient = run(functools.partial(max_pool, kernel=kernel), x)
    expected, expected_gradient = run(theirs, x)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-5)


def test_max_pool_shares_the_gradient_of_ties():
    gradient = jax.grad(lambda x: jnp.sum(max_pool(x, 3)))(jnp.zeros((1, 4, 4, 2)))
    np.testing.assert_allclose(gradient.sum((1, 2)), 16.0)
    assert float(gradient.min()) > 0


def test_max_pool_refuses_even_kernels():
    with pytest.raises(ValueError, match="use 5"):
        max_pool(jnp.zeros((1, 4, 4, 1)), 4)
