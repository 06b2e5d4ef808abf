"""Masks, poses and maps on images: the pixels that they should colour, and no others."""

import numpy as np
import pytest

from ylosia_jax.visualize.boxes import enlarge, palette
from ylosia_jax.visualize.maps import draw_map, paint_masks, paint_poses, shade
from ylosia_jax.visualize.objects import draw_objects

BLUE, RED = (0, 114, 178), (120, 0, 40)
GREY = 100


def grey(height=600, width=600):
    return np.full((height, width, 3), GREY, np.uint8)


def tinted(colour):
    """What a colour makes of the ground."""
    return np.round(GREY * 0.55 + np.array(colour) * 0.45).astype(np.uint8)


def test_masks_tint_their_pixels_and_the_last_lies_on_top():
    canvas = grey()
    masks = np.zeros((2, 600, 600), bool)
    masks[0, 100:300, 100:300] = masks[1, 200:400, 200:400] = True
    paint_masks(canvas, masks, [BLUE, RED])
    np.testing.assert_array_equal(canvas[150, 150], tinted(BLUE))
    np.testing.assert_array_equal(canvas[250, 250], tinted(RED))
    np.testing.assert_array_equal(canvas[350, 350], tinted(RED))
    np.testing.assert_array_equal(canvas[150, 350], [GREY] * 3)
    np.testing.assert_allclose(canvas[100, 150].astype(int), BLUE, atol=8)  # the outline, but for its soft edge


def test_masks_of_a_small_image_are_enlarged_with_it():
    canvas, factor = enlarge(grey(60, 60))
    mask = np.zeros((1, 60, 60), bool)
    mask[0, 20:40, 10:30] = True
    paint_masks(canvas, mask, [BLUE])
    rows, columns = (np.flatnonzero((canvas != GREY).any(axis=-1).any(axis=axis)) for axis in (1, 0))
    width = 2
    assert abs(rows[0] - 20 * factor) <= width
    assert abs(rows[-1] + 1 - 40 * factor) <= width
    assert abs(columns[0] - 10 * factor) <= width
    assert abs(columns[-1] + 1 - 30 * factor) <= width


def test_a_pose_is_drawn_at_its_points_and_along_its_edges():
    canvas = grey()
    points = np.array([[[100.5, 100.5, 1], [300.5, 100.5, 0.9], [100.5, 400.5, 0.2], [500.5, 500.5, np.nan]]])
    paint_poses(canvas, points, [(0, 1), (0, 2), (1, 3)], [BLUE])
    for x, y in ((100, 100), (300, 100)):
        np.testing.assert_array_equal(canvas[y, x], [255] * 3)
    np.testing.assert_array_equal(canvas[100, 200], BLUE)
    # A point that is not believed is not drawn, nor the edges at it.
    changed = (canvas != GREY).any(axis=-1)
    assert not changed[120:].any()
    assert not changed[:, 320:].any()


def test_poses_lie_on_their_image_however_it_is_enlarged():
    points = np.array([[[10.5, 20.5, 2], [40.5, 50.5, 2]]])
    drawn = draw_objects(
        grey(60, 60), np.array([[5, 5, 50, 55]]), np.array([0.9]), np.array([0]), ("cat",), keypoints=points
    )
    factor = drawn.shape[0] // 60
    for x, y in ((10.5, 20.5), (40.5, 50.5)):
        np.testing.assert_array_equal(drawn[int(y * factor), int(x * factor)], [255] * 3)


def test_objects_of_one_class_differ_in_shade():
    masks = np.zeros((2, 600, 600), bool)
    masks[0, 100:200, 100:200] = masks[1, 100:200, 400:500] = True
    boxes = np.array([[100, 100, 200, 200], [400, 100, 500, 200]])
    drawn = draw_objects(grey(), boxes, np.array([0.9, 0.8]), np.array([0, 0]), ("cat",), masks=masks)
    colour = palette(1)[0]
    np.testing.assert_array_equal(drawn[150, 150], tinted(colour))
    np.testing.assert_array_equal(drawn[150, 450], tinted(shade(colour, 1)))


@pytest.mark.parametrize("labels", [{1: 0, 2: 1}, {1: 0, 2: 1, 9: 2}])
def test_a_map_colours_its_segments_and_leaves_the_rest(labels):
    numbers = np.zeros((600, 600), np.int32)
    numbers[50:250, 50:550], numbers[350:550, 50:550], numbers[280:300] = 1, 2, 7
    drawn = draw_map(grey(), numbers, labels, ("sky", "sea", "sand"))
    colours = palette(3)
    np.testing.assert_array_equal(drawn[60, 300], tinted(colours[0]))
    np.testing.assert_array_equal(drawn[540, 300], tinted(colours[1]))
    np.testing.assert_array_equal(drawn[290, 300], [GREY] * 3)  # of a number without a label
    np.testing.assert_array_equal(drawn[10, 10], [GREY] * 3)
