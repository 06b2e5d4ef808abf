import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ylosia_jax.ops import masks


def test_assemble_mixes_prototypes():
    rng = np.random.default_rng(0)
    coefficients = rng.normal(size=(2, 3, 4)).astype(np.float32)
    prototypes = rng.normal(size=(2, 5, 6, 4)).astype(np.float32)
    expected = [
        [sum(c * p[..., k] for k, c in enumerate(row)) for row in rows]
        for rows, p in zip(coefficients, prototypes, strict=True)
    ]
    np.testing.assert_allclose(masks.assemble(coefficients, prototypes), expected, atol=1e-5)


def test_inside_boxes_by_hand():
    # Centres at halves: a box from 0.5 to 2.5 holds the cells 0, 1 and not 2.
    found = masks.inside_boxes(jnp.array([[0.5, 1.0, 2.5, 2.0], [0, 0, 4, 3], [2, 2, 2, 2], [-5, -5, 0.6, 0.6]]), 3, 4)
    np.testing.assert_array_equal(found[0], [[0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]])
    assert found[1].all()
    assert not found[2].any()
    np.testing.assert_array_equal(np.argwhere(found[3]), [[0, 0]])


def test_cell_shares_by_hand():
    page = jnp.array([[[0, 1, 1, 1], [3, 3, 0, 1]]], jnp.int32)
    wanted = jnp.array([[1, 3, 2]], jnp.int32)
    np.testing.assert_array_equal(masks.cell_shares(page, wanted, 1, 2)[0], [[[0.25, 0.75]], [[0.5, 0]], [[0, 0]]])
    np.testing.assert_array_equal(masks.cell_shares(page, wanted, 2, 4)[0, 0], [[0, 1, 1, 1], [0, 0, 0, 1]])
    with pytest.raises(ValueError, match="no whole multiple"):
        masks.cell_shares(page, wanted, 2, 3)


@pytest.mark.parametrize(
    ("shape", "factor"), [((2, 5, 7, 3), 4), ((1, 1, 4, 2), 2), ((1, 6, 1, 4), 3), ((1, 3, 3, 1), 1)]
)
def test_enlarged_argmax_is_the_argmax_of_the_enlarged(shape, factor):
    logits = jnp.asarray(np.random.default_rng(0).normal(size=shape).astype(np.float32))
    _, height, width, _ = shape
    whole = jax.image.resize(logits, (len(logits), height * factor, width * factor, logits.shape[3]), "bilinear")
    found = jax.jit(masks.enlarged_argmax, static_argnums=1)(logits, factor)
    np.testing.assert_array_equal(found, jnp.argmax(whole, axis=3))


def test_enlarged_is_a_bilinear_picture_with_its_pixels_sorted():
    maps = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype(np.float32)
    apart = masks.enlarged(maps, 3)
    assert apart.shape == (3, 3, 2, 3, 5, 4)
    expected = jax.image.resize(maps, (2, 3, 15, 12), "bilinear")
    np.testing.assert_allclose(masks.pixel_shuffle(apart), expected, atol=1e-5)
    np.testing.assert_array_equal(masks.pixel_unshuffle(masks.pixel_shuffle(apart), 3), apart)


def test_enlarged_by_hand():
    found = masks.pixel_shuffle(masks.enlarged(jnp.array([[0.0, 4.0]]), 2))
    np.testing.assert_array_equal(found, [[0, 1, 3, 4], [0, 1, 3, 4]])
