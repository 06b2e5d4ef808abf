import colorsys
import math

import jax
import jax.numpy as jnp
import numpy as np

from ylosia_jax.ops import image as image_ops


def by_loops(out_size, in_size, extent, scale=1.0, offset=0.0, flip=False):
    """The matrix an output pixel and an input pixel at a time: a triangle round the place that the pixel shows."""
    matrix = np.zeros((out_size, in_size))
    for i in range(out_size):
        place = (i + 0.5 - offset) / scale
        if not 0 < place < extent:
            continue
        place = min(max(extent - place if flip else place, 0.5), extent - 0.5)
        for j in range(in_size):
            if j + 0.5 < extent:
                matrix[i, j] = max(0.0, 1 - abs(place - j - 0.5) * min(scale, 1))
        matrix[i] /= matrix[i].sum()
    return matrix


_matrix = jax.jit(image_ops.interpolation_matrix, static_argnums=(0, 1))


def matrix(out_size, in_size, extent, scale=1.0, offset=0.0, flip=False):
    """Compiled once a size."""
    return np.asarray(_matrix(out_size, in_size, extent, scale=scale, offset=offset, flip=flip))


def test_the_defaults_are_the_identity():
    np.testing.assert_array_equal(matrix(5, 5, 5.0), np.eye(5))
    # What lies past the picture's end is not read.
    np.testing.assert_array_equal(matrix(5, 5, 3.0), np.diag([1, 1, 1, 0, 0]))


def test_flip_mirrors_the_picture_in_place():
    np.testing.assert_array_equal(matrix(5, 5, 5.0, flip=True), np.eye(5)[::-1])
    expected = np.zeros((5, 5))
    expected[[0, 1, 2], [2, 1, 0]] = 1
    np.testing.assert_array_equal(matrix(5, 5, 3.0, flip=True), expected)


def test_whole_offsets_shift():
    np.testing.assert_array_equal(matrix(5, 5, 5.0, offset=2.0), np.eye(5, k=-2))
    np.testing.assert_array_equal(matrix(5, 5, 5.0, offset=-1.0), np.eye(5, k=1))
    assert not matrix(5, 5, 5.0, offset=7.0).any()


def test_doubling_by_hand():
    # Bilinear: quarters, and the edge pixel repeated past the outermost centres.
    expected = [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    np.testing.assert_allclose(matrix(4, 2, 2.0, scale=2.0), expected, atol=1e-6)


def test_halving_by_hand():
    # The triangle is four pixels wide, and cut off at the picture's edges.
    middle = np.array([1, 3, 3, 1, 0, 0]) / 8
    expected = [np.array([3, 3, 1, 0, 0, 0]) / 7, np.roll(middle, 1), np.array([0, 0, 0, 1, 3, 3]) / 7]
    np.testing.assert_allclose(matrix(3, 6, 6.0, scale=0.5), expected, atol=1e-6)


def test_half_a_pixel_averages_two():
    expected = [[1, 0, 0], [0.5, 0.5, 0], [0, 0.5, 0.5]]
    np.testing.assert_allclose(matrix(3, 3, 3.0, offset=0.4999999), expected, atol=1e-5)


def test_equals_loops():
    rng = np.random.default_rng(0)
    for _ in range(150):
        setting = {
            "extent": float(rng.integers(1, 13)) if rng.uniform() < 0.7 else rng.uniform(2, 12),
            "scale": float(np.exp(rng.uniform(-1.5, 1.5))),
            "offset": rng.uniform(-15, 15),
            "flip": bool(rng.uniform() < 0.5),
        }
        np.testing.assert_allclose(matrix(17, 12, **setting), by_loops(17, 12, **setting), atol=1e-4, err_msg=setting)


def test_eager_equals_jit():
    setting = {"extent": 9.0, "scale": 1.3, "offset": -2.1, "flip": True}
    np.testing.assert_allclose(image_ops.interpolation_matrix(17, 12, **setting), matrix(17, 12, **setting), atol=1e-6)


def test_equals_jax_image_where_all_of_the_axis_is_picture():
    """Another implementation of the same sampling; without an offset the pictures' edges are treated alike."""

    @jax.jit
    def both(signal, scale):
        ours = image_ops.interpolation_matrix(36, 12, 12.0, scale=scale) @ signal
        return ours, jax.image.scale_and_translate(
            signal, (36,), (0,), scale[None], jnp.zeros(1), method="linear", antialias=True
        )

    signal = np.random.default_rng(1).uniform(0, 1, 12).astype(np.float32)
    for scale in (0.31, 0.5, 0.8, 1.0, 1.7, 3.0):
        found, expected = both(signal, jnp.float32(scale))
        # Whether a picture's last, partly covered pixel is shown is a convention.
        whole = math.floor(12 * scale)
        np.testing.assert_allclose(found[:whole], expected[:whole], atol=1e-5)


def test_rows_sum_to_one_in_the_picture_and_to_zero_outside():
    for scale, offset in ((0.4, 3.3), (1.0, -2.6), (2.2, -4.9)):
        rows = matrix(17, 12, 7.0, scale=scale, offset=offset).sum(axis=1)
        centres = np.arange(17) + 0.5
        inside = (centres > offset) & (centres < offset + 7 * scale)
        assert 0 < inside.sum() < 17
        np.testing.assert_allclose(rows, inside, atol=1e-6)


def test_a_ramp_stays_a_ramp():
    """Linear interpolation reproduces places: away from the edges, each output pixel reads its own source place."""
    ramp = np.arange(12) + 0.5
    places = (np.arange(17) + 0.5 - 1.2) / 1.25
    inner = (places > 0.5) & (places < 11.5)
    found = matrix(17, 12, 12.0, scale=1.25, offset=1.2) @ ramp
    np.testing.assert_allclose(found[inner], places[inner], atol=1e-5)


def test_no_picture_gives_zeros():
    assert not matrix(5, 5, 0.0).any()


def test_resample_applies_one_matrix_to_each_axis():
    rng = np.random.default_rng(2)
    image, rows, columns = (
        rng.uniform(0, 1, shape).astype(np.float32) for shape in ((2, 5, 7, 3), (2, 4, 5), (2, 6, 7))
    )
    expected = np.zeros((2, 4, 6, 3))
    for b, h, w, c in np.ndindex(expected.shape):
        expected[b, h, w, c] = rows[b, h].astype(np.float64) @ image[b, :, :, c] @ columns[b, w]
    found = jax.jit(image_ops.resample)(image, rows, columns)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(image_ops.resample(*map(jnp.asarray, (image, rows, columns))), found, atol=1e-5)


def test_resample_moves_one_pixel_by_hand():
    image = np.zeros((4, 6, 1), np.float32)
    image[1, 2] = 1
    rows, columns = matrix(4, 4, 4.0, scale=2.0, offset=-1.0), matrix(6, 6, 6.0, offset=3.0)
    found = np.asarray(jax.jit(image_ops.resample)(image, rows, columns))[..., 0]
    expected = np.zeros((4, 6))
    expected[:, 5] = [0.25, 0.75, 0.75, 0.25]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_to_float():
    bytes_ = jnp.array([0, 51, 255], jnp.uint8)[None, None]
    np.testing.assert_allclose(image_ops.to_float(bytes_), [[[0, 0.2, 1]]], atol=1e-7)
    floats = jnp.array([0.0, 0.3, 1.0])[None, None]
    np.testing.assert_array_equal(image_ops.to_float(floats), floats)


colours = jax.jit(image_ops.colour_matrix)
recolour = jax.jit(image_ops.recolour)


def test_a_neutral_colour_matrix_is_the_identity():
    np.testing.assert_allclose(colours(0.0, 1.0, 1.0), np.eye(3), atol=1e-6)


def test_no_saturation_is_luma():
    np.testing.assert_allclose(colours(0.0, 0.0, 1.0), np.tile([0.299, 0.587, 0.114], (3, 1)), atol=1e-6)


def test_a_third_turn_of_hue_makes_red_green():
    third = colours(2 * math.pi / 3, 1.0, 1.0)
    np.testing.assert_allclose(third, [[0, 0, 1], [1, 0, 0], [0, 1, 0]], atol=1e-6)
    # The same way round as the usual colour circle.
    np.testing.assert_allclose(colorsys.rgb_to_hsv(*third[:, 0].tolist())[0], 1 / 3, atol=1e-6)


def test_greys_keep_their_hue_and_gain_scales():
    grey = np.full(3, 0.5)
    for hue, saturation, gain in ((1.0, 1.0, 1.0), (-2.0, 0.3, 1.2), (0.4, 1.7, 0.6)):
        np.testing.assert_allclose(colours(hue, saturation, gain) @ grey, gain * grey, atol=1e-6)


def test_hue_keeps_brightness_and_length():
    turn = np.asarray(colours(0.7, 1.0, 1.0))
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(turn), 1, atol=1e-6)


def test_recolour_by_hand():
    image = np.array([[[0.5, 0.25, 1.0], [0.0, 0.9, 0.6]]], np.float32)
    turn = np.array([[0, 1, 0], [0, 0, 0.5], [1, 0, 0]], np.float32)
    # Mapped to (0.25, 0.5, 0.5) and (0.9, 0.3, 0), then stretched by 2 about 0.5 and clipped.
    np.testing.assert_allclose(recolour(image, turn, 2.0), [[[0, 0.5, 0.5], [1, 0.1, 0]]], atol=1e-6)
    np.testing.assert_allclose(
        image_ops.recolour(*map(jnp.asarray, (image, turn)), 2.0), recolour(image, turn, 2.0), atol=1e-6
    )


def test_neutral_recolour_leaves_colours_alone():
    image = np.random.default_rng(3).uniform(0, 1, (4, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(recolour(image, np.eye(3, dtype=np.float32), 1.0), image, atol=1e-6)


def test_resize_by_hand_and_at_any_sizes():
    row = jnp.array([0.0, 4.0]).reshape(1, 1, 2, 1)
    np.testing.assert_allclose(image_ops.resize(row, 1, 4).ravel(), [0, 1, 3, 4], atol=1e-6)
    np.testing.assert_allclose(image_ops.resize(row, 1, 3).ravel(), [0, 2, 4], atol=1e-6)
    # Shrinking takes the two pixels beside each centre, and no others.
    wide = jnp.arange(8.0).at[0].set(100).reshape(1, 1, 8, 1)
    np.testing.assert_allclose(image_ops.resize(wide, 1, 2).ravel(), [1.5, 5.5], atol=1e-6)
    ones = image_ops.resize(jnp.ones((2, 5, 7, 3)), 13, 11)
    np.testing.assert_allclose(ones, np.ones((2, 13, 11, 3)), atol=1e-6)
