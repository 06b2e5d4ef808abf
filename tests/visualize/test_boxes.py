import itertools

import numpy as np
import pytest

from ylosia_jax.visualize.boxes import (
    Plate,
    _rim,
    _seen,
    contact_sheet,
    draw_boxes,
    draw_plates,
    enlarge,
    palette,
    stroke,
)

NAMES = ("cat", "dog", "owl")
BLUE, RED = (0, 114, 178), (120, 0, 40)  # dark, so that the ink is white and no pixel of a plate is black


def black(height=600, width=600):
    image = np.zeros((height, width, 3), np.uint8)
    image.flags.writeable = False
    return image


def draw(boxes, scores=None, labels=None, names=NAMES, image=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    labels = np.zeros(len(boxes), int) if labels is None else np.array(labels)
    return draw_boxes(black() if image is None else image, boxes, scores, labels, names)


def is_colour(canvas, colour):
    return (canvas == np.array(colour, np.uint8)).all(axis=-1)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 50, 100])
def test_palette_gives_distinct_colours_and_grows_at_its_end(count):
    colours = palette(count)
    assert len(colours) == len(set(colours)) == count
    assert palette(100)[:count] == colours
    assert all(0 <= channel <= 255 and isinstance(channel, int) for colour in colours for channel in colour)


def test_palette_repeats_once_its_grid_is_used_up():
    colours = palette(8000)
    size = len(set(colours))
    assert 1000 < size < 8000
    assert colours[:1000] == palette(1000)
    assert colours[size:] == colours[: 8000 - size]


def test_palette_keeps_colours_apart_for_every_eye():
    seen = _seen(np.array(palette(12)))
    apart = [np.linalg.norm(seen[:, i] - seen[:, j], axis=-1).min() for i, j in itertools.combinations(range(12), 2)]
    assert min(apart) > 15


def test_seen_is_cielab_and_grey_looks_the_same_to_every_eye():
    # White, and the published CIELAB of sRGB's red, green and blue under D65.
    colours = np.array([[255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]])
    expected = [[100, 0, 0], [53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86]]
    np.testing.assert_allclose(_seen(colours)[0], expected, atol=0.05)
    greys = np.repeat(np.array([[0], [4], [77], [255]]), 3, axis=1)
    normal, protan, deutan = _seen(greys)
    np.testing.assert_allclose(protan, normal, atol=1e-3)
    np.testing.assert_allclose(deutan, normal, atol=1e-3)


@pytest.mark.parametrize(
    ("size", "factor"), [((160, 160), 3), ((1, 1), 480), ((100, 479), 2), ((480, 10), 1), ((2000, 3000), 1)]
)
def test_enlarge_makes_small_images_legible(size, factor):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    canvas, found = enlarge(image)
    assert found == factor
    assert canvas.shape == (size[0] * factor, size[1] * factor, 3)
    assert not np.shares_memory(canvas, image)
    if factor == 1:
        np.testing.assert_array_equal(canvas, image)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (0, 4, 3)])
def test_enlarge_refuses_what_is_no_rgb_image(shape):
    with pytest.raises(ValueError, match="expected a uint8 RGB image"):
        enlarge(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="float32"):
        enlarge(np.zeros((4, 4, 3), np.float32))


def test_no_boxes_leave_the_enlarged_image():
    image = np.random.default_rng(1).integers(0, 256, (100, 120, 3), np.uint8)
    np.testing.assert_array_equal(draw([], scores=[], image=image), enlarge(image)[0])
    np.testing.assert_array_equal(draw([], image=image, names=()), enlarge(image)[0])


def test_input_is_not_modified():
    image = np.full((200, 200, 3), 90, np.uint8)
    boxes, scores, labels = np.array([[10.0, 20, 90, 95]]), np.array([0.5]), np.array([1])
    for array in (image, boxes, scores, labels):
        array.flags.writeable = False
    assert (draw_boxes(image, boxes, scores, labels, NAMES) != 90).any()
    assert (image == 90).all()


def test_frame_lies_on_the_edges_of_the_box():
    canvas = draw([[100, 200, 300, 400]], scores=[0.5])
    assert stroke(canvas) == 2
    lines = is_colour(canvas, palette(3)[0])
    # Two pixels wide, half on either side of the edge, between rims of one pixel.
    np.testing.assert_array_equal(np.flatnonzero(lines[300]), [99, 100, 299, 300])
    np.testing.assert_array_equal(np.flatnonzero(is_colour(canvas, _rim(palette(3)[0]))[300]), [98, 101, 298, 301])
    np.testing.assert_array_equal(np.flatnonzero(lines[:, 250]), [199, 200, 399, 400])
    assert not canvas[203:398, 103:298].any()


def test_frame_is_scaled_with_a_small_image():
    lines = is_colour(draw([[10, 20, 30, 40]], scores=[0.5], image=black(60, 60)), palette(3)[0])
    np.testing.assert_array_equal(np.flatnonzero(lines[240]), [79, 80, 239, 240])


def test_box_over_the_whole_image_is_framed_inside_it():
    for box in ([0, 0, 600, 600], [-50, -1e9, 700, 600], [-np.inf, -np.inf, np.inf, np.inf]):
        lines = is_colour(draw([box], scores=[0.5]), palette(3)[0])
        np.testing.assert_array_equal(np.flatnonzero(lines[300]), [0, 1, 598, 599])
        np.testing.assert_array_equal(np.flatnonzero(lines[:, 300]), [0, 1, 598, 599])


@pytest.mark.parametrize(
    "box", [[600, 0, 700, 50], [-90, -90, 0, 0], [50, 50, 50, 90], [90, 50, 50, 90], [np.nan, 0, 50, 50], [np.nan] * 4]
)
def test_box_without_area_inside_is_left_out(box):
    assert not draw([box], scores=[0.5]).any()
    other = [100, 100, 200, 200]
    np.testing.assert_array_equal(draw([box, other], [0.1, 0.5], [1, 0]), draw([other], [0.5]))


def test_speck_is_still_visible():
    canvas = draw([[300.2, 300.2, 300.3, 300.3]], scores=[0.5])
    assert is_colour(canvas, palette(3)[0])[299:301, 299:301].all()


def test_better_box_is_drawn_on_top_whatever_the_order():
    boxes = [[100, 100, 300, 300]] * 2
    worse_first, better_first = draw(boxes, [0.2, 0.9], [0, 1]), draw(boxes, [0.9, 0.2], [1, 0])
    np.testing.assert_array_equal(worse_first, better_first)
    assert is_colour(worse_first, palette(3)[1])[200, [99, 100, 299, 300]].all()
    assert not is_colour(worse_first, palette(3)[0])[200].any()


def test_truth_is_drawn_with_broken_lines_and_without_score():
    truth, found = draw([[100, 200, 400, 500]]), draw([[100, 200, 400, 500]], scores=[0.5])
    colour = palette(3)[0]
    assert is_colour(found, colour)[499, 100:400].all()
    dashes = is_colour(truth, colour)[499, 99:401]
    np.testing.assert_array_equal(dashes, np.arange(302) // 8 % 2 == 0)
    assert (is_colour(truth, colour) | is_colour(truth, _rim(colour)))[499, 99:401].all()
    assert truth[182:199].any(axis=(0, 2)).sum() < found[182:197].any(axis=(0, 2)).sum()


def test_plate_stands_on_the_top_left_corner():
    canvas = black().copy()
    draw_plates(canvas, [Plate("dog", np.array([100, 200, 300, 400]), BLUE)])
    rows, columns = np.nonzero(canvas.any(axis=-1))
    assert (rows.max(), columns.min()) == (198, 99)  # the frame begins at 199
    plate = canvas[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert plate.any(axis=-1).all()
    assert plate.max() > max(BLUE)  # white ink on a dark colour


@pytest.mark.parametrize("x", [0, 2, 300, 590, 599])
@pytest.mark.parametrize("y", [0, 5, 300, 599])
def test_whole_plate_stays_inside(x, y):
    def area(box):
        canvas = black().copy()
        draw_plates(canvas, [Plate("cormorant 0.87", np.array(box), BLUE)])
        return canvas.any(axis=-1).sum()

    assert area([x, y, 600, 600]) == area([300, 300, 400, 400]) > 0


def test_each_plate_belongs_to_its_box():
    first = Plate("a", np.array([20, 100, 200, 200]), RED)
    second = Plate("cormorant", np.array([300, 400, 500, 500]), BLUE)
    alone, both, other = black().copy(), black().copy(), black().copy()
    draw_plates(alone, [first])
    draw_plates(other, [second])
    draw_plates(both, [first, second])
    np.testing.assert_array_equal(both, alone + other)
    assert alone[80:99, 19:60].any()
    assert other[380:399, 299:400].any()


def test_plates_make_way_for_better_ones():
    box = np.array([200, 200, 400, 400])
    canvas, both = black().copy(), black().copy()
    draw_plates(canvas, [Plate("dog", box, BLUE)])
    draw_plates(both, [Plate("dog", box, RED), Plate("dog", box, BLUE)])
    plate = canvas.any(axis=-1)
    np.testing.assert_array_equal(both[plate], canvas[plate])
    assert both.any(axis=-1).sum() == 2 * plate.sum()


def test_in_a_crowd_the_best_plate_is_whole():
    box = np.array([10, 10, 14, 14])
    alone, crowd = black(480, 60).copy(), black(480, 60).copy()
    draw_plates(alone, [Plate("dog 0.99", box, BLUE)])
    draw_plates(crowd, [Plate(f"cat 0.{i}", box, RED) for i in range(10, 40)] + [Plate("dog 0.99", box, BLUE)])
    np.testing.assert_array_equal(crowd[alone.any(axis=-1)], alone[alone.any(axis=-1)])


def test_in_a_crowd_no_plate_hides_an_object():
    """Where there is room for no text the frame's colour tells the class."""
    corners = np.stack(np.meshgrid(np.arange(0, 600, 20), np.arange(0, 600, 20)), -1).reshape(-1, 2)
    boxes = np.concatenate([corners + 2, corners + 18], axis=1)
    canvas = draw(boxes, scores=np.linspace(0.3, 0.9, len(boxes)), labels=np.arange(len(boxes)) % 3)
    frames = draw(boxes, labels=np.arange(len(boxes)) % 3, names=("", "", ""), scores=None)
    assert frames.any()
    for x1, y1, x2, y2 in boxes + np.array([4, 4, -4, -4]):
        assert (canvas[y1:y2, x1:x2].any(axis=-1)).mean() <= 0.5
    # With room beside one of them its text is written.
    alone = draw(boxes[:1], scores=[0.9])
    assert is_colour(alone[20:], palette(3)[0]).any()


def test_a_text_that_would_hide_an_object_gives_way_to_its_score():
    box = np.array([270, 300, 330, 340])
    beside = [np.array([x, y, x + 40, y + 18]) for x in (200, 340) for y in range(240, 400, 20)]
    others = [Plate("", neighbour, RED) for neighbour in beside]
    name = "a" * 40 + " 0.9"
    drawn = []
    for plates in ([*others, Plate(name, box, BLUE, short="0.9")], [Plate("0.9", box, BLUE)], [Plate(name, box, BLUE)]):
        canvas = black().copy()
        draw_plates(canvas, plates)
        drawn.append(canvas)
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()


@pytest.mark.parametrize(
    "name", ["", " ", "a" * 10_000, "Leukozyt ä ß", "红细胞", "клетка", "😀", "tab\tnew\nline\0", "<b>"]
)
@pytest.mark.parametrize("size", [(160, 160), (1, 700), (700, 1), (3, 3)])
def test_any_name_on_any_image(name, size):
    canvas = draw([[0, 0, *size[::-1]]], scores=[0.5], names=(name,), image=black(*size))
    assert canvas.any()
    assert canvas.shape == enlarge(black(*size))[0].shape


def test_long_name_keeps_its_score():
    def texts(*scores):
        canvas = black().copy()
        draw_plates(canvas, [Plate("x" * 300 + score, np.array([0, 300, 600, 600]), BLUE) for score in scores])
        return canvas

    assert (texts(" 0.87") != texts(" 0.12")).any()
    # The cut text fills the width as far as whole letters do.
    assert 560 < texts(" 0.87").any(axis=(0, 2)).sum() <= 600


def test_control_characters_show_as_question_marks():
    box = [[10, 300, 400, 500]]
    np.testing.assert_array_equal(draw(box, names=("a\nb",)), draw(box, names=("a?b",)))


@pytest.mark.parametrize(
    ("scores", "labels", "words"),
    [
        ([0.5], [0, 0], "2 boxes, 2 labels and 1 scores"),
        ([0.5, 0.5], [0], "2 boxes, 1 labels"),
        ([0.5, 0.5], [0, 3], "from 0 to 3, but there are 3 names"),
        (None, [-1, 0], "from -1 to 0"),
    ],
)
def test_what_does_not_belong_together_is_refused(scores, labels, words):
    with pytest.raises(ValueError, match=words):
        draw([[0, 0, 10, 10]] * 2, scores, labels)


def test_contact_sheet_centres_images_in_equal_cells():
    images = [np.full((h, w, 3), value, np.uint8) for h, w, value in [(100, 200, 1), (50, 100, 2), (100, 200, 3)]]
    sheet = contact_sheet(images, 2)
    assert sheet.shape == (2 * 104 + 4, 2 * 204 + 4, 3)
    assert (sheet[4:104, 4:204] == 1).all()
    assert (sheet[29:79, 258:358] == 2).all()
    assert (sheet[108:208, 4:204] == 3).all()
    assert (sheet[sheet > 3] == 245).all()
    assert [(sheet == value).sum() for value in (1, 2, 3)] == [60_000, 15_000, 60_000]


def test_contact_sheet_needs_no_more_columns_than_images():
    assert contact_sheet([black(100, 100)], 5).shape == (108, 108, 3)


@pytest.mark.parametrize(("images", "columns"), [(0, 1), (1, 0), (1, -2)])
def test_contact_sheet_of_nothing_is_refused(images, columns):
    with pytest.raises(ValueError, match=f"{images} images in {columns} columns"):
        contact_sheet([black()] * images, columns)
