import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from ylosia_jax import rle
from ylosia_jax.answers import paste, true_segments, unpad
from ylosia_jax.data.pipeline import Letterbox
from ylosia_jax.predict import Labels, Result, Segments, write_maps
from ylosia_jax.types import VOID, BoxMasks, Categories, Detections, Example, Masks, PanopticMap, Poses, SemanticMap

CANVAS = (32, 48)


def bilinear(logits, y, x):
    """One sample of a grid whose cells have their centres at halves; edges are repeated."""
    h, w = logits.shape
    y, x = min(max(y - 0.5, 0), h - 1), min(max(x - 0.5, 0), w - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, h - 1), min(left + 1, w - 1)
    fy, fx = y - top, x - left
    upper = logits[top, left] * (1 - fx) + logits[top, right] * fx
    lower = logits[bottom, left] * (1 - fx) + logits[bottom, right] * fx
    return upper * (1 - fy) + lower * fy


@pytest.mark.parametrize("size", [(32, 48), (64, 96), (20, 48), (50, 31)])
def test_paste_equals_loops(size):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 8, 12)).astype(np.float32)
    low = rng.uniform(0, 0.6, (4, 2)) * size[::-1]
    boxes = np.concatenate([low, low + rng.uniform(0, 0.5, (4, 2)) * size[::-1]], 1).astype(np.float32)
    boxes[3, 2:] = boxes[3, :2]  # no area
    letterbox = Letterbox.fit(size, CANVAS)
    found = paste(logits, boxes, letterbox, CANVAS)
    sx, sy = letterbox.scale[:2]
    for logit, (x0, y0, x1, y1), counts in zip(logits, boxes, found, strict=True):
        mask = rle.decode(counts, size)
        for i in range(size[0]):
            for j in range(size[1]):
                inside = x0 <= j + 0.5 < x1 and y0 <= i + 0.5 < y1
                value = bilinear(logit.astype(float), (i + 0.5) * sy / 4, (j + 0.5) * sx / 4)
                if abs(value) > 1e-5:
                    assert mask[i, j] == (inside and value > 0), (i, j)
    assert not rle.decode(found[3], size).any()


def answers():
    """Two rows of detections, the second of which is padding, of an image of half the canvas's scale."""
    segments = np.zeros((1, *CANVAS), np.int32)
    segments[0, :16], segments[0, 16:, :8] = 1, 1 + 3 + 2
    return {
        "box": Detections(
            boxes=np.array([[[0, 0, 24, 16], [0, 0, 0, 0], [8, 8, 16, 16]]], np.float32),
            scores=np.array([[0.9, 0, 0.5]], np.float32),
            labels=np.array([[1, 0, 0]]),
            valid=np.array([[True, False, True]]),
            index=np.zeros((1, 3), int),
        ),
        "mask": Masks(logits=np.ones((1, 3, 8, 12), np.float32)),
        "keypoint": Poses(keypoints=np.array([[[[8, 6, 0.7]]] * 3], np.float32)),
        "semantic": SemanticMap(labels=np.repeat(np.arange(4), 8)[None, :, None] * np.ones((1, 1, 48), int)),
        "panoptic": PanopticMap(segments=segments),
        "classification": Categories(scores=np.array([[0.25, 0.75]], np.float32)),
    }


def test_unpad_brings_everything_into_the_image():
    found = unpad(answers(), 0, Letterbox.fit((16, 24), CANVAS), CANVAS)
    assert found.detections is not None
    np.testing.assert_allclose(found.detections.boxes, [[0, 0, 12, 8], [4, 4, 8, 8]])
    np.testing.assert_array_equal(found.detections.labels, [1, 0])
    assert [rle.area(counts, (16, 24)) for counts in found.detections.masks or ()] == [96, 16]
    np.testing.assert_allclose(found.detections.keypoints, [[[4, 3, 0.7]]] * 2)
    np.testing.assert_array_equal(found.semantic, np.repeat(np.arange(4), 4)[:, None] * np.ones((1, 24)))
    # The third row of the padded detections is the second that is left.
    assert found.segment_labels == {1: 1, 6: 2}
    assert (found.segments == 1).sum() == 8 * 24
    np.testing.assert_array_equal(found.categories, [0.25, 0.75])


def test_what_reaches_into_the_padding_keeps_its_mask_s_place_and_what_lies_there_is_dropped():
    canvas = (32, 64)  # of which a picture of 16 x 16 fills the left half
    boxes = np.array([[[16, 8, 48, 24], [40, 0, 60, 20], [0, 0, 16, 16]]], np.float32)
    logits = np.full((1, 3, 14, 14), -9, np.float32)
    logits[0, 0, :, :7] = 9  # its left half
    logits[0, 2] = 9
    found = unpad(
        {
            "box": Detections(
                boxes=boxes,
                scores=np.array([[0.9, 0.8, 0.7]], np.float32),
                labels=np.array([[0, 1, 2]]),
                valid=np.ones((1, 3), bool),
                index=np.zeros((1, 3), int),
            ),
            "mask": BoxMasks(logits=logits),
            "keypoint": Poses(keypoints=np.arange(9, dtype=np.float32).reshape(1, 3, 1, 3)),
        },
        0,
        Letterbox.fit((16, 16), canvas),
        canvas,
    )
    assert found.detections is not None
    assert found.detections.masks is not None
    np.testing.assert_allclose(found.detections.boxes, [[8, 4, 16, 12], [0, 0, 8, 8]])
    np.testing.assert_array_equal(found.detections.labels, [0, 2])
    np.testing.assert_allclose(found.detections.keypoints, [[[0, 0.5, 2]], [[3, 3.5, 8]]])
    mask = rle.decode(found.detections.masks[0], (16, 16)).astype(bool)
    # The left half of [8, 24): all that is seen of it. Squeezed into the clipped box it would end at 12.
    assert mask[6:10, 9:15].all()
    assert not mask[:, :7].any()


def test_true_segments_lay_small_things_on_large_ones_and_stuff_below():
    masks = np.zeros((3, 8, 8), bool)
    masks[0, :6, :6], masks[1, 1:3, 1:3], masks[2, 5:, :] = True, True, True
    semantic = np.full((8, 8), 3, np.uint8)
    semantic[0, 7] = VOID
    example = Example(
        image=np.zeros((8, 8, 3), np.uint8),
        name="a",
        boxes=np.zeros((3, 4), np.float32),
        labels=np.array([0, 1, 0]),
        crowd=np.array([False, False, True]),
        area=np.zeros(3, np.float32),
        masks=tuple(map(rle.encode, masks)),
        semantic=semantic,
    )
    found = true_segments(example, 2)
    assert found is not None
    areas = [rle.area(counts, (8, 8)) for counts in found.masks]
    # The group lies at the bottom: it keeps what the first thing does not cover.
    assert dict(zip(found.labels.tolist(), areas, strict=True)) == {0: 24 - 6, 1: 4, 3: 64 - 36 - 18 - 1}
    assert areas[0] == 36 - 4
    np.testing.assert_array_equal(found.crowd, [False, False, True, False])


def test_a_mask_over_its_box_is_pasted_into_the_image():
    """In an image of half the canvas's pixels; the second detection is padding."""
    detections = Detections(
        boxes=np.array([[[16.0, 8.0, 72.0, 64.0], [0, 0, 0, 0]]], np.float32),
        scores=np.array([[0.9, 0.0]], np.float32),
        labels=np.zeros((1, 2), int),
        valid=np.array([[True, False]]),
        index=np.zeros((1, 2), int),
    )
    logits = np.full((1, 2, 28, 28), -20.0, np.float32)
    logits[0, 0, :, :14] = 20
    canvas = (80, 96)
    answer = unpad({"box": detections, "mask": BoxMasks(logits)}, 0, Letterbox.fit((40, 48), canvas), canvas)
    assert answer.detections is not None
    assert answer.detections.masks is not None
    (found,) = (rle.decode(mask, (40, 48)) for mask in answer.detections.masks)
    wanted = np.zeros((40, 48), bool)
    # The box is 28 pixels wide here, a cell each, of which the left half is the object's.
    wanted[4:32, 8:22] = True
    assert (found ^ wanted).sum() <= 28 + 14 + 28
    assert found[5:31, 9:21].all()
    assert not found[:, 24:].any()


def test_maps_are_written_in_the_panoptic_coding(tmp_path: Path):
    numbers = np.zeros((6, 5), np.int32)
    numbers[:3], numbers[3:, 2:] = 1, 70_000
    result = Result(
        image=np.zeros((6, 5, 3), np.uint8),
        name="b.jpg",
        boxes=np.zeros((0, 4), np.float32),
        scores=np.zeros(0),
        labels=np.zeros(0, int),
        meaning=Labels(("cat",), ("sky", "sea")),
        semantic=np.full((6, 5), 2, np.uint8),
        panoptic=Segments(numbers, {1: 0, 70_000: 2}),
    )
    entries = json.loads(json.dumps(write_maps(result, tmp_path, "b")))
    entry = entries["panoptic"]
    assert entries["semantic"] == {"image_id": entry["image_id"], "file_name": entry["file_name"]}
    assert entry["image_id"] == "b.jpg"
    assert entry["segments_info"][1] == {"id": 70_000, "category_id": 3, "area": 9, "bbox": [2, 3, 3, 3], "iscrowd": 0}
    coded = cv2.cvtColor(cv2.imread(str(tmp_path / "panoptic" / entry["file_name"])), cv2.COLOR_BGR2RGB).astype(int)
    np.testing.assert_array_equal(coded @ [1, 256, 65536], numbers)
    coded = cv2.cvtColor(cv2.imread(str(tmp_path / "semantic" / "b.png")), cv2.COLOR_BGR2RGB).astype(int)
    assert (coded @ [1, 256, 65536] == 3).all()


def test_drawings_show_masks_poses_and_maps():
    found = unpad(answers(), 0, Letterbox.fit((16, 24), CANVAS), CANVAS)
    assert found.detections is not None
    result = Result(
        image=np.full((16, 24, 3), 128, np.uint8),
        name="",
        boxes=found.detections.boxes,
        scores=found.detections.scores,
        labels=found.detections.labels,
        meaning=Labels(("cat", "dog"), ("sky", "sea")),
        rles=found.detections.masks,
        semantic=found.semantic,
    )
    drawn = result.draw()
    single = Result(**{**vars(result), "semantic": None}).draw()
    assert drawn.shape[1] > 2 * single.shape[1]  # the map stands beside it
    assert not (single == 128).all(axis=-1).all()
    assert result.above(0.8).masks is not None
    assert len(result.above(0.8)) == 1


def test_the_best_category_is_written_into_the_corner():
    image = np.full((48, 64, 3), 128, np.uint8)
    nothing = np.zeros((0, 4), np.float32), np.zeros(0), np.zeros(0, int)
    bare = Result(image, "a.png", *nothing, meaning=Labels(("cat", "dog", "cow")))
    assert (bare.top(), bare.to_category()) == ([], None)
    assert (bare.draw() == 128).all()
    result = Result(image, "a.png", *nothing, meaning=bare.meaning, categories=np.array([0.25, 0.5, 0.25]))
    assert result.top() == [("dog", 0.5), ("cat", 0.25), ("cow", 0.25)]  # of equal scores the first class first
    assert result.top(1) == [("dog", 0.5)]
    entry = result.to_category()
    assert entry is not None
    assert json.loads(json.dumps(entry)) == entry
    assert (entry["image_id"], entry["category"], entry["score"]) == ("a.png", "dog", 0.5)
    assert [one["category"] for one in entry["top"]] == ["dog", "cat", "cow"]
    written = (result.draw() != 128).any(axis=-1)
    rows, columns = (np.flatnonzero(written.any(axis=axis)) for axis in (1, 0))
    assert rows[0] == columns[0] == 0
    assert rows[-1] < len(written) / 8
    assert columns[-1] < written.shape[1] / 2
