import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ylosia_jax.ops.crops import warp_regions

IMAGE = np.random.default_rng(0).uniform(size=(1, 40, 60, 3)).astype(np.float32)


def warp(boxes, size, context):
    return np.asarray(warp_regions(jnp.asarray(IMAGE), jnp.array([boxes], jnp.float32), size, context=context)[0])


def test_a_region_of_whole_pixels_without_rim_is_itself():
    np.testing.assert_allclose(warp([[10, 5, 26, 21]], 16, 0)[0], IMAGE[0, 5:21, 10:26], atol=1e-6)


def test_the_rim_shows_what_is_around():
    np.testing.assert_allclose(warp([[10, 5, 26, 21]], 20, 2)[0], IMAGE[0, 3:23, 8:28], atol=1e-6)


def test_any_shape_becomes_a_square():
    found = warp([[4, 8, 36, 16]], 32, 0)[0]
    expected = cv2.resize(IMAGE[0, 8:16, 4:36], (32, 32), interpolation=cv2.INTER_LINEAR)
    # Inside the region's outermost pixels, where OpenCV repeats the edge and the image goes on here.
    np.testing.assert_allclose(found[2:-2], expected[2:-2], atol=1e-5)


def test_zeros_beyond_the_canvas_and_for_what_has_no_area():
    found = warp([[-8, 0, 8, 16], [5, 5, 5, 9], [0, 0, 0, 0]], 16, 0)
    assert (found[0, :, :8] == 0).all()
    np.testing.assert_allclose(found[0, :, 8:], IMAGE[0, :16, :8], atol=1e-6)
    assert (found[1:] == 0).all()


def test_gradients_are_finite_where_there_is_no_area():
    def loss(image, boxes):
        return (warp_regions(image, boxes, 8, context=1) ** 2).sum()

    boxes = jnp.array([[[5.0, 5, 5, 5], [1, 2, 30, 31]]])
    image, box = jax.jit(jax.grad(loss, argnums=(0, 1)))(jnp.asarray(IMAGE), boxes)
    assert np.isfinite(image).all()
    assert np.isfinite(box).all()


def test_a_rim_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match="context is 16 on every side of a crop of 32 pixels"):
        warp([[0, 0, 9, 9]], 32, 16)
