import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from ylosia_jax.data.affine import Affine
from ylosia_jax.data.augment import Augment, augment
from ylosia_jax.types import Batch, Objects

CANVAS = (64, 80)


def affine_of(*, extent=(50, 61), flips=(False, False), scale=1.0, start=(4.0, 7.0), turn=None, canvas=CANVAS):
    turn = None if turn is None else jnp.array(turn, jnp.float32)
    return Affine(jnp.array(extent, jnp.float32), jnp.array(flips), jnp.float32(scale), jnp.array(start), turn, canvas)


def turned(degrees, slant=(0.0, 0.0)):
    angle = np.radians(degrees)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return rotation @ np.array([[1, np.tan(np.radians(slant[0]))], [np.tan(np.radians(slant[1])), 1]])


def noise(canvas=CANVAS, seed=0):
    return np.random.default_rng(seed).uniform(size=(*canvas, 3)).astype(np.float32)


def matrix_of(affine):
    """[3, 3] from the picture's places to the canvas's, in float64."""
    mirror = np.eye(3)
    for axis, flip in enumerate(np.array(affine.flips)[::-1]):
        if flip:
            mirror[axis, axis], mirror[axis, 2] = -1, float(affine.extent[1 - axis])
    place = np.diag([float(affine.scale), float(affine.scale), 1])
    place[:2, 2] = np.array(affine.start)[::-1]
    turn, there = np.eye(3), np.eye(3)
    turn[:2, :2] = np.array(affine.turn)
    there[:2, 2] = affine.canvas[1] / 2, affine.canvas[0] / 2
    return there @ turn @ np.linalg.inv(there) @ place @ mirror


@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True), (True, True)])
def test_a_turn_is_what_scipy_samples(flips):
    affine, image = affine_of(flips=flips, scale=1.3, turn=turned(25, (10, -5))), noise()
    height, width = CANVAS
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    x, y, _ = np.einsum("ij,jhw->ihw", np.linalg.inv(matrix_of(affine)), np.stack([x, y, np.ones_like(x)]))
    extent = np.array(affine.extent)
    inside = (x > 0) & (y > 0) & (x < extent[1]) & (y < extent[0])
    picture = image[: int(extent[0]), : int(extent[1])]
    places = np.stack([y, x]) - 0.5
    wanted = np.stack([ndimage.map_coordinates(picture[..., c], places, order=1, mode="nearest") for c in range(3)], -1)
    found, cover = affine.image(image)
    np.testing.assert_array_equal(np.asarray(cover)[..., 0], inside)
    np.testing.assert_allclose(found, wanted * inside[..., None], atol=2e-4)
    assert 0.2 < inside.mean() < 0.95


def test_points_go_where_the_matrix_sends_them():
    affine = affine_of(flips=(True, False), scale=0.7, turn=turned(-40, (12, 7)))
    places = np.random.default_rng(1).uniform(0, 50, (20, 2))
    wanted = np.concatenate([places, np.ones((20, 1))], axis=1) @ matrix_of(affine).T
    np.testing.assert_allclose(affine.points(jnp.asarray(places, jnp.float32)), wanted[:, :2], atol=1e-4)


def test_no_turn_is_what_the_matrices_do():
    """Enlarged and mirrored, on a canvas that it leaves on two sides."""
    upright = affine_of(flips=(False, True), scale=1.25, start=(-6.3, 9.1))
    image, numbers = noise(), np.random.default_rng(3).integers(0, 9, CANVAS)
    same = upright.replace(turn=jnp.eye(2))
    for found, wanted in zip(same.image(image), upright.image(image), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-4)
    np.testing.assert_array_equal(same.labels(numbers), upright.labels(numbers))
    boxes = jnp.array([[3.0, 4, 20, 33]])
    np.testing.assert_allclose(same.boxes(boxes), upright.boxes(boxes), atol=1e-5)


def test_a_quarter_turn_is_numpys():
    affine = affine_of(extent=(64, 64), start=(0, 0), turn=turned(90), canvas=(64, 64))
    image, numbers = noise((64, 64)), np.random.default_rng(0).integers(0, 9, (64, 64))
    # From x to y, which points down: clockwise.
    np.testing.assert_allclose(affine.image(image)[0], np.rot90(image, -1), atol=1e-4)
    np.testing.assert_array_equal(affine.labels(numbers), np.rot90(numbers, -1))
    np.testing.assert_allclose(affine.boxes(jnp.array([[0.0, 0, 10, 20]])), [[44, 0, 64, 10]], atol=1e-4)


def test_stripes_that_are_shrunk_become_grey():
    """Sampled as they are, every fourth would be all white or all black."""
    stripes = np.zeros((*CANVAS, 3), np.float32)
    stripes[:, ::2] = 1
    affine = affine_of(extent=CANVAS, scale=0.25, start=(24, 30), turn=turned(0))
    found, cover = affine.image(stripes)
    inner = np.array(cover[..., 0] > 0)
    assert inner.sum() == 16 * 20
    # Those at the edge see one more of one kind.
    np.testing.assert_allclose(np.array(found)[25:39, 32:48], 0.5, atol=1e-5)


def test_stripes_that_a_slant_makes_narrow_become_grey():
    slant = turned(0, (30, 30))
    assert np.linalg.svd(slant)[1][1] < 0.45
    stripes = np.zeros((*CANVAS, 3), np.float32)
    across = np.add.outer(np.arange(CANVAS[0]), -np.arange(CANVAS[1])) % 2
    stripes[across == 0] = 1
    found, cover = affine_of(extent=CANVAS, start=(0, 0), turn=slant).image(stripes)
    inner = np.array(cover[..., 0] > 0)[8:-8, 8:-8]
    assert np.abs(np.array(found)[8:-8, 8:-8][inner] - 0.5).max() < 0.1


def test_a_mask_fills_its_box():
    affine = affine_of(extent=(40, 40), start=(12, 20), turn=turned(30, (8, -6)))
    numbers = np.zeros(CANVAS, int)
    numbers[8:30, 5:34] = 1
    y, x = np.nonzero(np.asarray(affine.labels(numbers)))
    found = np.asarray(affine.boxes(jnp.array([[5.0, 8, 34, 30]])))[0]
    np.testing.assert_allclose(found, [x.min(), y.min(), x.max() + 1, y.max() + 1], atol=1)


def batch_of(count, side=64):
    image = np.full((count, side, side, 3), 255, np.uint8)
    boxes = np.tile(np.array([24, 24, 40, 40], np.float32), (count, 1, 1))
    ones = np.ones((count, 1), bool)
    return Batch(
        image=image,
        extent=np.full((count, 2), side, np.float32),
        size=np.full((count, 2), side, np.float32),
        index=np.arange(count),
        epoch=np.zeros(count, int),
        objects=Objects(boxes=boxes, labels=np.zeros((count, 1), int), valid=ones, crowd=~ones),
    )


def test_images_turn_by_as_much_as_they_may_and_not_more():
    """A square of 16 px becomes a box of 16 (cos a + sin a) px."""
    found = jax.jit(lambda batch: augment(Augment(rotate=30), batch, 0, 0.0))(batch_of(200)).objects.boxes[:, 0]
    sides = np.asarray(found[:, 2:] - found[:, :2])
    np.testing.assert_allclose(sides[:, 0], sides[:, 1], atol=1e-3)
    most = 16 * (np.cos(np.pi / 6) + 0.5)
    assert sides.min() >= 16 - 1e-3
    assert sides.max() <= most + 1e-3
    assert sides.min() < 16.5
    assert sides.max() > most - 0.5


def test_images_slant_along_both_axes():
    found = jax.jit(lambda batch: augment(Augment(shear=20), batch, 0, 0.0))(batch_of(200)).objects.boxes[:, 0]
    slants = (np.asarray(found[:, 2:] - found[:, :2]) - 16) / 16  # tangents
    assert (slants.max(axis=0) > np.tan(np.radians(18))).all()
    assert (slants.max(axis=0) <= np.tan(np.radians(20)) + 1e-3).all()
    assert abs(np.corrcoef(slants.T)[0, 1]) < 0.2


def test_the_tiles_of_a_turned_mosaic_meet():
    """Of white pictures all is white, but for grey that comes in at the edges: no seam is lit twice or lies open."""
    shown = jax.jit(lambda batch: augment(Augment(rotate=10, shear=2, mosaic=1.0), batch, 0, 0.0))
    image = np.asarray(shown(batch_of(40)).image)
    white, grey = (np.isclose(image, level, atol=1e-3) for level in (1, 114 / 255))
    # A centre may lie on a seam, to the last digit.
    assert (white | grey).mean() > 0.9999
    assert white[:, 14:50, 14:50].mean() > 0.9999


@pytest.mark.parametrize(("wrong", "told"), [({"rotate": 181.0}, "rotate is 181"), ({"shear": 31.0}, "shear is 31")])
def test_turns_that_cannot_be_are_refused(wrong, told):
    with pytest.raises(ValueError, match=told):
        Augment(**wrong)
