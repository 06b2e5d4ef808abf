import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ylosia_jax.data.augment import FILL, Augment, augment, image_keys
from ylosia_jax.data.copy_paste import copy_paste
from ylosia_jax.data.pasted import Pasted
from ylosia_jax.ops.masks import cell_shares
from ylosia_jax.types import VOID, Batch, Objects

CANVAS = (96, 128)
# Pictures that fill the canvas, or leave a margin on the right, below, or on both sides, odd ones too.
EXTENTS = [(96, 128), (96, 81), (61, 128), (72, 72)]
COUNT = len(EXTENTS)
GREY = FILL / 255
# Colours that stay apart when they are mixed with black: each has a full channel, and none is grey.
COLOURS = np.array([c for c in itertools.product((0, 0.5, 1), repeat=3) if max(c) == 1 and min(c) < 1])
EACH = 3  # objects a picture
ROWS = 7  # too few for all objects of a mosaic

GEOMETRY = {"flip": 0.5, "flip_vertical": 0.5, "scale": (0.6, 1.6), "translate": 0.2, "min_visible": 0.0}
ALONE, SHARED = Augment(**GEOMETRY), Augment(**GEOMETRY, mosaic=0.6)
PASTED = Augment(**GEOMETRY, copy_paste=0.8)

traces: list[tuple[Augment, tuple[int, ...]]] = []


@functools.partial(jax.jit, static_argnums=(0, 3))
def jitted(config, batch, progress, seed):
    traces.append((config, batch.objects.boxes.shape))
    return augment(config, batch, seed, progress)


def run(config, batch, *, progress=0.0, seed=5):
    """The augmented batch on the host."""
    return jax.device_get(jitted(config, batch, np.float32(progress), seed))


def same(found, expected, atol=0.0):
    """Two trees, leaf by leaf."""
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=atol)


def batch_of(image, objects, extents=EXTENTS, epoch=0):
    count = len(extents)
    return Batch(
        image=image,
        extent=np.array(extents, np.float32),
        size=np.array(extents, np.float32) * 3,
        index=np.arange(10, 10 + count, dtype=np.int32),
        epoch=np.full(count, epoch, np.int32),
        objects=objects,
    )


def separate_boxes(rng, height, width):
    """Whole-pixel boxes of at least 12 px with 6 px between them; some touch the picture's edge."""
    boxes = []
    while len(boxes) < EACH:
        high, wide = rng.integers(12, 30, 2)
        y, x = rng.integers(0, height - high + 1), rng.integers(0, width - wide + 1)
        box = np.array([x, y, x + wide, y + high])
        if all((box[:2] >= b[2:] + 6).any() or (box[2:] + 6 <= b[:2]).any() for b in boxes):
            boxes.append(box)
    return boxes


def drawn(seed):
    """Black pictures in which each object is a rectangle of its own colour that fills its box; labels are colours."""
    rng = np.random.default_rng(seed)
    image = np.full((COUNT, *CANVAS, 3), FILL, np.uint8)
    boxes, labels = np.zeros((COUNT, ROWS, 4), np.float32), np.zeros((COUNT, ROWS), np.int32)
    for i, (height, width) in enumerate(EXTENTS):
        image[i, :height, :width] = 0
        for j, (x1, y1, x2, y2) in enumerate(separate_boxes(rng, height, width)):
            labels[i, j], boxes[i, j] = EACH * i + j, (x1, y1, x2, y2)
            image[i, y1:y2, x1:x2] = np.round(255 * COLOURS[labels[i, j]])
    valid = np.tile(np.arange(ROWS) < EACH, (COUNT, 1))
    crowd = valid & (np.arange(ROWS) == 1)
    return batch_of(image, Objects(boxes=boxes, labels=labels, valid=valid, crowd=crowd), epoch=seed)


@pytest.fixture(scope="module")
def textured():
    """Pictures of noise, with two objects each."""
    rng = np.random.default_rng(0)
    image = np.full((COUNT, *CANVAS, 3), FILL, np.uint8)
    for i, (height, width) in enumerate(EXTENTS):
        image[i, :height, :width] = rng.integers(0, 256, (height, width, 3))
    boxes, valid = np.zeros((COUNT, ROWS, 4), np.float32), np.tile(np.arange(ROWS) < 2, (COUNT, 1))
    boxes[:, 0], boxes[:, 1] = [10, 20.5, 41.25, 50], [0, 5, 60, 61]
    labels = np.where(valid, np.arange(ROWS) + 3, 0).astype(np.int32)
    return batch_of(image, Objects(boxes=boxes, labels=labels, valid=valid, crowd=valid & (labels == 4)))


def colour_boxes(image):
    """For every colour the box round the pixels that show more of it than of black; zeros where there is none."""
    peak = image.max(axis=-1, keepdims=True)
    pure = image / np.maximum(peak, 0.1)
    boxes = np.zeros((COUNT * EACH, 4))
    for label, colour in enumerate(COLOURS[: COUNT * EACH]):
        shown = (peak[..., 0] >= 0.5) & (np.abs(pure - colour) < 0.2).all(axis=-1)
        rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
        if len(rows):
            boxes[label] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def check_boxes(batch):
    """Every valid box is round its colour, and every colour in view has a box while rows are left.

    Returns the number of boxes of each image.
    """
    for place, image in enumerate(batch.image):
        objects = jax.tree.map(lambda x, place=place: x[place], batch.objects)
        boxes, labels = objects.boxes[objects.valid], objects.labels[objects.valid].tolist()
        assert not objects.boxes[~objects.valid].any()

        def rank(label, place=place):
            # The own picture's objects come first, then those of the next pictures of the batch.
            return (label // EACH - place) % COUNT, label % EACH

        assert [*map(rank, labels)] == sorted({*map(rank, labels)})
        for label, found in enumerate(colour_boxes(image)):
            if label in labels:
                np.testing.assert_allclose(boxes[labels.index(label)], found, atol=1)
            elif len(labels) < ROWS or rank(label) < rank(labels[-1]):
                # Nothing of it is in view, or too thin a strip.
                assert (found[2:] - found[:2]).min() < 3
    return batch.objects.valid.sum(axis=1)


@pytest.mark.slow
def test_boxes_stay_on_their_objects():
    counts = [check_boxes(run(ALONE, drawn(seed))) for seed in range(20)]
    # Most objects stay in view.
    assert np.mean(counts) > 2.5


@pytest.mark.slow
def test_boxes_stay_on_their_objects_in_a_mosaic():
    batches = [run(SHARED, drawn(seed)) for seed in range(25)]
    counts = np.concatenate([check_boxes(batch) for batch in batches])
    # Some mosaics show fewer objects than there are rows, some more.
    assert 0.05 < np.mean(counts == ROWS) < 0.5
    assert len(np.unique(counts)) > 4
    # Crowds are still those that were crowds: every picture's second object.
    for objects in (batch.objects for batch in batches):
        np.testing.assert_array_equal(objects.crowd, objects.valid & (objects.labels % EACH == 1))


def test_a_mosaic_shows_each_pixel_once():
    """Of white pictures, all is white or the grey between them: no seam is lit twice, and none lies open."""
    white = drawn(0)
    white = white.replace(image=np.full_like(white.image, 255))
    for epoch in range(10):
        image = run(SHARED, white.replace(epoch=np.full(COUNT, epoch, np.int32))).image
        assert (np.isclose(image, 1, atol=1e-4) | np.isclose(image, GREY, atol=1e-4)).all()


def test_the_defaults_leave_a_full_canvas_alone(textured):
    whole = textured.replace(extent=np.tile(np.float32(CANVAS), (COUNT, 1)))
    found = run(Augment(), whole)
    np.testing.assert_allclose(found.image, whole.image / 255, atol=1e-6)
    same(found.objects, whole.objects)
    for name in ("extent", "size", "index", "epoch"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    assert found.image.dtype == np.float32


def centred(textured, i):
    """Image i with its picture in the middle of the canvas, and by how much (x, y) it moved."""
    height, width = EXTENTS[i]
    top, left = (CANVAS[0] - height) // 2, (CANVAS[1] - width) // 2
    page = np.full((*CANVAS, 3), GREY)
    page[top : top + height, left : left + width] = textured.image[i, :height, :width] / 255
    return page, np.array([left, top] * 2)


def test_the_defaults_centre_a_picture_by_whole_pixels(textured):
    found = run(Augment(), textured)
    for i in range(COUNT):
        page, moved = centred(textured, i)
        np.testing.assert_allclose(found.image[i], page, atol=1e-6)
        np.testing.assert_array_equal(found.objects.boxes[i, :2], textured.objects.boxes[i, :2] + moved)
    np.testing.assert_array_equal(found.extent, [CANVAS] * COUNT)
    assert not found.objects.boxes[:, 2:].any()


def test_the_rest_of_the_canvas_has_the_grey_that_is_asked_for(textured):
    image = augment(Augment(scale=(0.5, 0.5)), textured, 5, 0.0, fill=51).image
    np.testing.assert_allclose(image[:, [0, -1]], 0.2, atol=1e-6)
    assert np.std(image) > 0.1


def test_flips_mirror_pixels_and_boxes(textured):
    """Every image is one of four mirrorings of its picture in place, and its boxes are mirrored alike."""
    seen = set()
    for epoch in range(4):
        found = run(Augment(flip=0.5, flip_vertical=0.5), textured.replace(epoch=np.full(COUNT, epoch, np.int32)))
        for i, (height, width) in enumerate(EXTENTS):
            matches = []
            for across, down in itertools.product((False, True), repeat=2):
                own, boxes = textured.image[i, :height, :width], textured.objects.boxes[i, :2].copy()
                if across:
                    own, boxes[:, [0, 2]] = own[:, ::-1], width - boxes[:, [2, 0]]
                if down:
                    own, boxes[:, [1, 3]] = own[::-1], height - boxes[:, [3, 1]]
                image = textured.image.copy()
                image[i, :height, :width] = own
                page, moved = centred(textured.replace(image=image), i)
                if np.allclose(found.image[i], page, atol=1e-6):
                    np.testing.assert_array_equal(found.objects.boxes[i, :2], boxes + moved)
                    matches.append((across, down))
            assert len(matches) == 1
            seen.update(matches)
    assert len(seen) == 4


def test_a_draw_depends_on_seed_epoch_and_index_alone(textured):
    expected = run(ALONE, textured)
    order = np.array([2, 0, 3, 1])
    moved = run(ALONE, jax.tree.map(lambda x: x[order], textured))
    same(moved, jax.tree.map(lambda x: x[order], expected))
    few = run(ALONE, jax.tree.map(lambda x: x[1:3], textured))
    same(few, jax.tree.map(lambda x: x[1:3], expected), atol=1e-4)


def test_another_seed_epoch_or_index_is_another_draw(textured):
    def keys(seed=5, **fields):
        return jax.random.key_data(image_keys(seed, textured.replace(**fields)))

    some = np.concatenate(
        [
            keys(),
            keys(seed=6),
            keys(epoch=textured.epoch + 1),
            keys(index=textured.index + 100),
            # Epoch and index are not interchangeable.
            keys(epoch=textured.index, index=textured.epoch),
        ]
    )
    assert len(np.unique(some, axis=0)) == 5 * COUNT
    np.testing.assert_array_equal(keys(), keys())
    before = run(ALONE, textured)
    after = run(ALONE, textured.replace(epoch=textured.epoch + 1))
    assert (np.abs(before.image - after.image).max(axis=(1, 2, 3)) > 0.1).all()


def test_the_mosaic_closes_without_another_compilation(textured):
    """The last tenth of a run, by default, is without mosaic."""
    alone, before = run(ALONE, textured), run(SHARED, textured, progress=0.8999)
    assert np.abs(before.image - alone.image).max() > 0.1
    for progress in (0.9, 0.95, 1.0):
        closed = run(SHARED, textured, progress=progress)
        same(closed, alone, atol=1e-5)
    same(run(SHARED, textured), before)
    assert traces.count((SHARED, textured.objects.boxes.shape)) == 1


def test_pictures_without_mosaic_are_alone_in_a_batch_with_mosaics(textured):
    lone = 0
    for epoch in range(4):
        batch = textured.replace(epoch=np.full(COUNT, epoch, np.int32))
        shared, alone = run(SHARED, batch), run(ALONE, batch)
        for i in np.flatnonzero(np.abs(shared.image - alone.image).max(axis=(1, 2, 3)) < 1e-5):
            lone += 1
            # The same objects, moved up to the first rows.
            left, right = (jax.tree.map(lambda x, i=i: x[i], b.objects) for b in (shared, alone))
            count = right.valid.sum()
            np.testing.assert_array_equal(left.valid, np.arange(ROWS) < count)
            for name in ("boxes", "labels", "crowd"):
                np.testing.assert_allclose(getattr(left, name)[:count], getattr(right, name)[right.valid], atol=1e-5)
    assert 1 < lone < 4 * COUNT - 1


def test_objects_out_of_view_are_dropped():
    """By hand, at the defaults: a fifth of the box in view, and 2 px a side."""
    expected = [
        ([-10, 0, 10, 20], [0, 0, 10, 20]),  # a half
        ([-17, 0, 3, 20], None),  # three twentieths
        ([108, 76, 148, 116], [108, 76, 128, 96]),  # a quarter, over a corner
        ([118, 86, 138, 126], None),  # an eighth, over a corner
        ([-8, -8, 136, 104], [0, 0, 128, 96]),  # over every edge
        ([50, 50, 52, 52], [50, 50, 52, 52]),  # just long enough
        ([50, 50, 51.5, 60], None),  # too narrow
        ([50, 50, 60, 51.5], None),  # too low
        ([-6, 0, 1.75, 20], None),  # too narrow a strip in view
        ([200, 0, 230, 20], None),  # nowhere in view
    ]
    boxes = np.zeros((COUNT, ROWS, 4), np.float32)
    places = [divmod(i, 5) for i in range(len(expected))]
    for place, (box, _) in zip(places, expected, strict=True):
        boxes[place] = box
    valid = boxes.any(axis=-1)
    objects = Objects(boxes=boxes, labels=valid * np.int32(2), valid=valid, crowd=valid)
    image = np.zeros((COUNT, *CANVAS, 3), np.uint8)
    found = run(Augment(), batch_of(image, objects, extents=[CANVAS] * COUNT)).objects
    for place, (_, box) in zip(places, expected, strict=True):
        assert found.valid[place] == (box is not None)
        np.testing.assert_array_equal(found.boxes[place], box or [0, 0, 0, 0])
    assert found.valid.sum() == 4
    np.testing.assert_array_equal(found.crowd, found.valid)
    np.testing.assert_array_equal(found.labels, 2 * found.valid)


def test_padding_rows_stay_padding(textured):
    """What stands in an invalid row reaches nothing."""
    objects = textured.objects
    hidden = ~objects.valid
    noisy = objects.replace(
        boxes=np.where(hidden[..., None], np.float32([0, 0, 96, 96]), objects.boxes),
        labels=np.where(hidden, 7, objects.labels).astype(np.int32),
        crowd=objects.crowd | hidden,
    )
    for config in (ALONE, SHARED):
        same(run(config, textured.replace(objects=noisy)), run(config, textured))


def test_colours_change_within_bounds_and_leave_boxes_and_grey_margins_alone(textured):
    config = Augment(hue=0.1, saturation=0.5, brightness=0.4, contrast=0.3)
    found, plain = run(config, textured), run(Augment(), textured)
    same(found.objects, plain.objects)
    assert found.image.min() >= 0
    assert found.image.max() <= 1
    assert (np.abs(found.image - plain.image).max(axis=(1, 2, 3)) > 0.1).all()
    for i, (height, width) in enumerate(EXTENTS):
        page, _ = centred(textured.replace(image=np.zeros_like(textured.image)), i)
        margin = page > 0
        assert margin.sum() == 3 * (CANVAS[0] * CANVAS[1] - height * width)
        np.testing.assert_allclose(found.image[i][margin], GREY, atol=1e-6)


def test_brightness_and_contrast_of_greys(textured):
    """Greys stay grey: hue and saturation leave them alone, brightness scales, contrast stretches about one half."""
    config = Augment(hue=0.1, saturation=0.5, brightness=0.4, contrast=0.3)
    ramp = np.broadcast_to(np.arange(64, 192, dtype=np.uint8)[None, :, None], (COUNT, *CANVAS, 3))
    batch = textured.replace(image=ramp, extent=np.tile(np.float32(CANVAS), (COUNT, 1)))
    found = run(config, batch).image
    np.testing.assert_allclose(found, np.broadcast_to(found[:, :1, :, :1], found.shape), atol=1e-5)
    gains = []
    for line in found[:, 0, :, 0].astype(np.float64):
        inner = (line > 0.01) & (line < 0.99)
        slope, start = np.polyfit(ramp[0, 0, inner, 0] / 255, line[inner], 1)
        contrast = 1 - 2 * start
        gains.append((slope / contrast, contrast))
    gains = np.array(gains)
    assert (np.abs(gains - 1) <= np.array([0.4, 0.3]) + 1e-3).all()
    assert len(np.unique(gains.round(3), axis=0)) == COUNT


def test_a_blank_that_fills_the_batch_does_no_harm(textured):
    extent = np.where(np.arange(COUNT)[:, None] == 3, 0, textured.extent)
    blank = textured.replace(index=np.where(np.arange(COUNT) == 3, -1, textured.index), extent=extent)
    blank = blank.replace(objects=blank.objects.replace(valid=blank.objects.valid & (np.arange(COUNT) < 3)[:, None]))
    alone, shared = run(ALONE, blank), run(SHARED, blank)
    assert np.isfinite(shared.image).all()
    np.testing.assert_allclose(alone.image[3], GREY, atol=1e-6)
    assert not alone.objects.valid[3].any()


@pytest.mark.parametrize("scale", [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0)])
def test_a_scale_that_is_no_range_is_refused(scale):
    with pytest.raises(ValueError, match="0 < low <= high"):
        Augment(scale=scale)


# ---- Masks, poses, semantic maps

POINTS = 3
MIRROR = (1, 0, 2)


def labelled(seed):
    """`drawn` with all labels: the objects' rectangles as masks, their colours as classes, three points in each."""
    batch = drawn(seed)
    instances = np.zeros((COUNT, *CANVAS), np.uint8)
    semantic = np.full((COUNT, *CANVAS), VOID, np.uint8)
    keypoints = np.zeros((COUNT, ROWS, POINTS, 3), np.float32)
    for i, (height, width) in enumerate(EXTENTS):
        semantic[i, :height, :width] = 100
        for j in range(EACH):
            x1, y1, x2, y2 = batch.objects.boxes[i, j].astype(int)
            instances[i, y1:y2, x1:x2] = j + 1
            semantic[i, y1:y2, x1:x2] = batch.objects.labels[i, j]
            # Near the top left, near the top right, and on the bottom's middle, which is hidden.
            keypoints[i, j] = [[x1 + 1, y1 + 1, 2], [x2 - 1, y1 + 1, 2], [(x1 + x2) / 2, y2 - 1, 1]]
    masked = batch.objects.valid & (np.arange(ROWS) != 2)
    objects = batch.objects.replace(masked=masked, keypoints=keypoints)
    known = np.ones((COUNT, 5), bool)
    known[1, 3] = False
    return batch.replace(objects=objects, instances=instances, semantic=semantic, known=known)


@functools.partial(jax.jit, static_argnums=0)
def jitted_labels(config, batch):
    return augment(config, batch, 5, 0.0, mirror=MIRROR)


@pytest.mark.slow
@pytest.mark.parametrize("config", [ALONE, SHARED, PASTED])
def test_masks_and_classes_stay_on_their_objects(config):
    for seed in range(8):
        batch = jax.device_get(jitted_labels(config, labelled(seed)))
        for image, objects, instances, semantic in zip(
            batch.image, objects_of(batch), batch.instances, batch.semantic, strict=True
        ):
            assert instances.max() <= ROWS
            shown = np.isclose(image, GREY, atol=1e-3).all(-1)
            assert (semantic[~shown] != VOID).mean() > 0.95
            assert not shown.any() or (semantic[shown] == VOID).mean() > 0.95
            for row in range(ROWS):
                cells = instances == row + 1
                if not objects.valid[row]:
                    assert not cells.any()
                    continue
                assert objects.masked[row] == (objects.labels[row] % EACH != 2)
                if config.copy_paste and not objects.masked[row]:
                    continue  # nobody knows how much of it is hidden
                y, x = np.nonzero(cells)
                found = [x.min(), y.min(), x.max() + 1, y.max() + 1]
                np.testing.assert_allclose(found, objects.boxes[row], atol=1)
                assert (semantic[cells] == objects.labels[row]).all()
                inner = image[cells] / np.maximum(image[cells].max(-1, keepdims=True), 0.1)
                assert np.isclose(inner, COLOURS[objects.labels[row]], atol=0.3).all(-1).mean() > 0.7


def objects_of(batch):
    """The objects of each image."""
    return [jax.tree.map(lambda x, i=i: x[i], batch.objects) for i in range(COUNT)]


@pytest.mark.slow
@pytest.mark.parametrize("config", [Augment(), Augment(flip=1.0), Augment(flip_vertical=1.0), ALONE, PASTED])
def test_what_the_cells_of_masks_are_asked_for_is_not_off_to_one_side(config):
    """Shares of cells have their middle where the pixels have theirs, whichever way a picture is turned."""
    off = []
    for seed in range(4):
        batch = jitted_labels(config, labelled(seed))
        rows = jnp.broadcast_to(1 + jnp.arange(ROWS), (COUNT, ROWS))
        shares = np.asarray(cell_shares(batch.instances, rows, CANVAS[0] // 4, CANVAS[1] // 4))
        fine = np.asarray(cell_shares(batch.instances, rows, *CANVAS))
        boxes = np.asarray(batch.objects.boxes)
        for i, row in np.argwhere(np.asarray(batch.objects.valid & batch.objects.masked)):
            y, x = np.mgrid[: shares.shape[2], : shares.shape[3]] * 4 + 2
            weights = shares[i, row]
            assert weights.sum() * 16 == pytest.approx(fine[i, row].sum())
            middle = np.array([(weights * axis).sum() for axis in (x, y)]) / weights.sum()
            # Objects are rectangles here; those that lie under others are none.
            if fine[i, row].sum() > 0.98 * np.prod(boxes[i, row, 2:] - boxes[i, row, :2]):
                off.append(middle - (boxes[i, row, :2] + boxes[i, row, 2:]) / 2)
    assert len(off) > 20
    np.testing.assert_allclose(np.mean(off, axis=0), [0, 0], atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(("flip", "flip_vertical"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_points_move_with_their_objects_and_mirrors_exchange_sides(flip, flip_vertical):
    config = Augment(flip=flip, flip_vertical=flip_vertical, scale=(0.8, 0.8), min_visible=0.0)
    batch = labelled(1)
    found = jax.device_get(jitted_labels(config, batch)).objects
    for i in range(COUNT):
        for j in range(EACH):
            before, after = batch.objects.boxes[i, j], found.boxes[i, j]
            points = batch.objects.keypoints[i, j].copy()
            size = before[2:] - before[:2]
            share = (points[:, :2] - before[:2]) / size
            share = np.where([flip, flip_vertical], 1 - share, share)
            expected = after[:2] + share * (after[2:] - after[:2])
            order = list(MIRROR) if flip != flip_vertical else [0, 1, 2]
            np.testing.assert_allclose(found.keypoints[i, j, :, :2], expected[order], atol=1e-3)
            np.testing.assert_array_equal(found.keypoints[i, j, :, 2], points[order, 2])
    assert not found.keypoints[:, EACH:].any()


@pytest.mark.slow
def test_points_out_of_view_are_not_labelled():
    found = jax.device_get(jitted_labels(Augment(scale=(2.5, 2.5), min_visible=0.0), labelled(2))).objects
    x, y, v = np.moveaxis(found.keypoints, -1, 0)
    inside = (x > 0) & (x < CANVAS[1]) & (y > 0) & (y < CANVAS[0])
    assert (inside == (v > 0)).all()
    assert 0.1 < (v[:, :EACH] > 0).mean() < 0.9
    assert not x[v == 0].any()
    assert not y[v == 0].any()


@pytest.mark.slow
def test_a_mosaic_knows_what_all_of_its_tiles_know():
    alone = jax.device_get(jitted_labels(ALONE, labelled(0)))
    np.testing.assert_array_equal(alone.known, labelled(0).known)
    shared = jax.device_get(jitted_labels(Augment(mosaic=1.0), labelled(0)))
    assert not shared.known[:, 3].any()  # every mosaic of four pictures has the second one in it
    assert shared.known[:, [0, 1, 2, 4]].all()


# ---- Copy-paste, large-scale jitter


def laid_out():
    """Two pictures by hand: a bar, and a square that would cover its right half and one of its points."""
    bar, square = (10, 20, 70, 40), (40, 10, 90, 60)
    image = np.zeros((2, *CANVAS, 3), np.float32)
    instances = np.zeros((2, *CANVAS), np.int32)
    boxes, keypoints = np.zeros((2, 3, 4), np.float32), np.zeros((2, 3, 1, 3), np.float32)
    for i, (x0, y0, x1, y1) in enumerate((bar, square)):
        image[i, y0:y1, x0:x1, i] = 1
        instances[i, y0:y1, x0:x1] = 1
        boxes[i, 0], keypoints[i, 0, 0] = (x0, y0, x1, y1), (60, 30, 2)
    valid = np.tile([True, False, False], (2, 1))
    objects = Objects(
        boxes=boxes,
        labels=np.array([[3, 0, 0], [4, 0, 0]], np.int32),
        valid=valid,
        crowd=np.zeros((2, 3), bool),
        masked=valid,
        keypoints=keypoints,
    )
    page = Pasted(
        image=jnp.asarray(image),
        cover=jnp.ones((2, *CANVAS, 1)),
        objects=jax.tree.map(jnp.asarray, objects),
        known=None,
        instances=jnp.asarray(instances),
        semantic=jnp.asarray(instances) * jnp.array([4, 5])[:, None, None],
    )
    return page, bar, square


def test_pasted_objects_hide_what_they_lie_on():
    pasted, bar, square = laid_out()
    chosen, picks = jnp.array([True, False]), jnp.ones((2, 3), bool)
    found = jax.device_get(copy_paste(pasted, chosen, picks, min_visible=0.2, min_side=2))
    np.testing.assert_array_equal(found.objects.valid, [[True, True, False], [True, False, False]])
    np.testing.assert_array_equal(found.objects.boxes[0], [[10, 20, 40, 40], square, [0] * 4])
    np.testing.assert_array_equal(found.objects.labels[0], [3, 4, 0])
    np.testing.assert_array_equal(found.objects.keypoints[0, :2, 0], [[60, 30, 1], [60, 30, 2]])
    for row, (x0, y0, x1, y1) in enumerate([(10, 20, 40, 40), square]):
        expected = np.zeros(CANVAS, bool)
        expected[y0:y1, x0:x1] = True
        np.testing.assert_array_equal(found.instances[0] == row + 1, expected)
        np.testing.assert_array_equal(found.image[0, ..., row] == 1, expected)
        np.testing.assert_array_equal(found.semantic[0] == row + 4, expected)
    for mine, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(pasted), strict=True):
        np.testing.assert_array_equal(mine[1], theirs[1])
    # Hidden too far, the bar leaves, and its mask with it.
    found = jax.device_get(copy_paste(pasted, chosen, picks, min_visible=0.6, min_side=2))
    np.testing.assert_array_equal(found.objects.labels[0], [4, 0, 0])
    np.testing.assert_array_equal(found.objects.boxes[0, 0], square)
    assert (found.instances[0] == 1).sum() == 50 * 50
    assert found.instances[0].max() == 1
    assert bar[2] > square[0]


def test_only_what_is_seen_is_pasted_and_only_into_free_rows():
    pasted, _, _ = laid_out()
    chosen, picks = jnp.array([True, False]), jnp.ones((2, 3), bool)
    run = functools.partial(copy_paste, min_visible=0.2, min_side=2)
    # The square lies under something that is not pasted, but for its left edge.
    instances = pasted.instances.at[1, :, 45:].set(3)
    found = jax.device_get(run(pasted.replace(instances=instances), chosen, picks))
    np.testing.assert_array_equal(found.objects.boxes[0, 1], [40, 10, 45, 60])
    assert (found.instances[0] == 2).sum() == 5 * 50
    # Under all of it, it is not there.
    found = jax.device_get(run(pasted.replace(instances=pasted.instances.at[1].set(3)), chosen, picks))
    np.testing.assert_array_equal(found.objects.valid[0], [True, False, False])
    np.testing.assert_array_equal(found.image[0], pasted.image[0])
    # Without a free row nothing is pasted: an object that nobody labels would be background.
    full = pasted.replace(objects=pasted.objects.replace(valid=jnp.array([[True] * 3, [True, False, False]])))
    found = jax.device_get(run(full, chosen, picks))
    np.testing.assert_array_equal(found.image[0], pasted.image[0])


def test_objects_of_unknown_shape_become_crowds_under_pasted_ones():
    pasted, _, _ = laid_out()
    masked = pasted.objects.masked.at[0].set(False)
    boxes = pasted.objects.boxes.at[0, 0].set(jnp.array([50.0, 20, 80, 50]))
    objects = pasted.objects.replace(masked=masked, boxes=boxes)
    chosen, picks = jnp.array([True, False]), jnp.ones((2, 3), bool)
    page = pasted.replace(objects=objects)
    found = jax.device_get(copy_paste(page, chosen, picks, min_visible=0.2, min_side=2))
    np.testing.assert_array_equal(found.objects.valid[0], [True, True, False])
    np.testing.assert_array_equal(found.objects.crowd[0], [True, False, False])


@pytest.mark.slow
def test_crowds_and_objects_without_masks_are_not_pasted():
    labels = set()
    for seed in range(8):
        batch = jax.device_get(jitted_labels(Augment(copy_paste=1.0, min_visible=0.0), labelled(seed)))
        for i, objects in enumerate(objects_of(batch)):
            foreign = objects.valid & (objects.labels // EACH != i)
            assert not (foreign & objects.crowd).any()
            assert (objects.masked | ~foreign).all()
            labels |= set(objects.labels[foreign] % EACH)
    assert labels == {0}


@pytest.mark.slow
def test_jitter_places_pictures_anywhere():
    """Small ones lie whole on the canvas, large ones cover it; both at places that differ."""
    for scale in (0.4, 2.0):
        found = jax.device_get(run(Augment(scale=(scale, scale), jitter=True, min_visible=0.0), drawn(0)))
        starts = set()
        for i, (height, width) in enumerate(EXTENTS):
            shown = ~np.isclose(found.image[i], GREY, atol=1e-3).all(-1)
            rows, columns = (np.flatnonzero(shown.any(axis)) for axis in (1, 0))
            for seen, side, canvas in ((rows, height, CANVAS[0]), (columns, width, CANVAS[1])):
                assert abs(len(seen) - min(scale * side, canvas)) <= 1
            starts.add((rows[0], columns[0]))
        assert len(starts) == (COUNT if scale < 1 else 1)


def test_copy_paste_needs_masks():
    empty = jax.tree.map(jnp.asarray, drawn(0).objects)
    cover = jnp.ones((COUNT, *CANVAS, 1))
    page = Pasted(jnp.zeros((COUNT, *CANVAS, 3)), cover, empty, None, instances=None, semantic=None)
    picks = jnp.ones((COUNT, ROWS), bool)
    with pytest.raises(ValueError, match="map of instances"):
        copy_paste(page, picks[:, 0], picks, min_visible=0.1, min_side=1)
