import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ylosia_jax.nn.conv import ConvTranspose


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [(2, 2, 0), (4, 2, 1), (3, 2, 1), (5, 3, 2), (2, 3, 0), (3, 1, 1), (1, 1, 0)],
)
def test_a_transposed_convolution_is_one_of_a_dilated_map(kernel: int, stride: int, padding: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 7, 4)).astype(np.float32)
    layer = ConvTranspose(3, kernel, stride, padding=padding)
    params = {
        "transposed_kernel": rng.normal(size=(kernel, kernel, 4, 3)).astype(np.float32),
        "bias": rng.normal(size=3).astype(np.float32),
    }
    form = jax.eval_shape(lambda: layer.init(jax.random.key(0), x))["params"]
    assert {name: leaf.shape for name, leaf in form.items()} == {name: leaf.shape for name, leaf in params.items()}

    def plain(params: dict[str, np.ndarray], x: np.ndarray) -> jax.Array:
        pad = kernel - 1 - padding
        return (
            lax.conv_general_dilated(
                x,
                params["transposed_kernel"][::-1, ::-1],
                (1, 1),
                ((pad, pad), (pad, pad)),
                lhs_dilation=(stride, stride),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            + params["bias"]
        )

    def ours(params: dict[str, np.ndarray], x: np.ndarray) -> jax.Array:
        return layer.apply({"params": params}, x)  # type: ignore[return-value]

    shape = tuple((side - 1) * stride + kernel - 2 * padding for side in x.shape[1:3])
    assert ours(params, x).shape == (2, *shape, 3)
    weights = jnp.asarray(rng.normal(size=(2, *shape, 3)), jnp.float32)
    with jax.default_matmul_precision("highest"):
        for found, wanted in zip(
            *(
                jax.tree.leaves(
                    (f(params, x), jax.grad(lambda p, x, f=f: (f(p, x) * weights).sum(), argnums=(0, 1))(params, x))
                )
                for f in (ours, plain)
            ),
            strict=True,
        ):
            np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_each_cell_is_spread_over_the_kernel_s_patch() -> None:
    x = np.zeros((1, 2, 2, 1), np.float32)
    x[0, 0, 1] = 2
    kernel = np.array([[1, 2], [3, 4]], np.float32).reshape(2, 2, 1, 1)
    layer = ConvTranspose(1, use_bias=False)
    found = layer.apply({"params": {"transposed_kernel": kernel}}, x)
    np.testing.assert_array_equal(found[0, :, :, 0], [[0, 0, 2, 4], [0, 0, 6, 8], [0, 0, 0, 0], [0, 0, 0, 0]])  # type: ignore[index]
