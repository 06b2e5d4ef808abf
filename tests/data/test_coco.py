import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ylosia_jax.data import coco
from ylosia_jax.types import UserError

WIDTH, HEIGHT = 64, 48
MISSING: Any = object()


def image(number: Any = 7, file: str = "a.jpg", **fields) -> dict:
    return {"id": number, "file_name": file, "width": WIDTH, "height": HEIGHT, **fields}


def thing(number: Any = 1, image_id: Any = 7, box: Any = (10, 5, 20, 15), category: int = 3, **fields) -> dict:
    full = {"id": number, "image_id": image_id, "bbox": box, "category_id": category, "area": 120.5, "iscrowd": 0}
    return {key: value for key, value in {**full, **fields}.items() if value is not MISSING}


CATEGORIES = [{"id": 9, "name": "dog"}, {"id": 3, "name": "cat", "supercategory": "animal"}]


@pytest.fixture
def write(tmp_path: Path):
    """Writes the JSON of images a.jpg (id 7) and b.jpg (id 8), which lie beside it."""
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    for name in "ab":
        cv2.imwrite(str(tmp_path / f"{name}.jpg"), pixels)

    def write(annotations=(), images=None, categories=CATEGORIES) -> Path:
        images = [image(), image(8, "b.jpg")] if images is None else images
        content = {"images": images, "annotations": list(annotations), "categories": categories}
        (tmp_path / "set.json").write_text(json.dumps(content))
        return tmp_path / "set.json"

    return write


def test_reads_boxes_labels_and_ids(write):
    file = write([thing(4, box=[10, 5, 20, 15]), thing(5, 8, [0, 0, 64, 48], 9, iscrowd=1), thing(6, 8, category=3)])
    found = coco.read(file, split="val")
    assert found.classes == ("cat", "dog")
    assert found.category_ids == (3, 9)
    a, b = found.splits["val"]
    assert (a.name, a.image_id, a.width, a.height) == ("a.jpg", 7, WIDTH, HEIGHT)
    assert (a.boxes.tolist(), a.area.tolist(), a.ids.tolist()) == ([[10, 5, 30, 20]], [120.5], [4])
    assert (b.labels.tolist(), b.crowd.tolist(), b.difficult.tolist()) == ([1, 0], [True, False], [False, False])


def test_optional_fields(write):
    bare = thing(box=[1, 2, 3, 4.5], area=MISSING, iscrowd=MISSING, id=MISSING)
    file = write([bare, bare], [{"id": 7, "file_name": "a.jpg"}])
    (record,) = coco.read(file, split="val").splits["val"]
    assert (record.area.tolist(), record.crowd.tolist(), record.ids.tolist()) == (
        [13.5, 13.5],
        [False, False],
        [-1, -1],
    )
    assert (record.width, record.height) == (WIDTH, HEIGHT)


def test_no_annotations_are_all_background(write):
    found = coco.read(write([]), split="val")
    assert [record.boxes.shape for record in found.splits["val"]] == [(0, 4), (0, 4)]
    assert found.classes == ("cat", "dog")


def test_images_lie_beside_the_file_or_in_the_given_folder(write, tmp_path):
    (tmp_path / "pictures/deep").mkdir(parents=True)
    for name in "ab":
        (tmp_path / f"{name}.jpg").rename(tmp_path / f"pictures/deep/{name}.jpg")
    file = write([], [image(7, "deep/a.jpg"), image(8, "deep/b.jpg")])
    found = coco.read(file, split="val", images=tmp_path / "pictures")
    assert [record.name for record in found.splits["val"]] == ["deep/a.jpg", "deep/b.jpg"]
    with pytest.raises(UserError, match=f"none of the 2 images .* is in {tmp_path}; .*--images"):
        coco.read(file, split="val")


def test_long_paths_are_told_apart(write, tmp_path):
    names = [f"pictures/of/camera_{number}/2024/frame_000001.jpg" for number in range(2)]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes((tmp_path / "a.jpg").read_bytes())
    found = coco.read(write([], [image(7, names[0]), image(8, names[1])]), split="val")
    assert [record.name for record in found.splits["val"]] == names


def test_clipped_and_dropped_boxes_are_reported(write):
    found = coco.read(write([thing(1, box=[60, 40, 5, 5]), thing(2, box=[5, 5, 0, 9])]), split="val")
    assert found.splits["val"][0].boxes.tolist() == [[60, 40, 64, 45]]
    assert found.splits["val"][0].area.tolist() == [120.5]
    assert [line.split(": ", 1)[1] for line in found.clipped] == ["image 7: annotation 1 (cat)"]
    assert [line.split(": ", 1)[1] for line in found.dropped] == ["image 7: annotation 2 (cat)"]


@pytest.mark.parametrize(
    ("annotation", "messages"),
    [
        (thing(category=4), ["image 7: annotation 1: its category_id 4 is not among"]),
        (thing(category=MISSING, category_id=MISSING), ["category_id None is not a whole number"]),
        (thing(box=[1, 2, 3]), ["bbox [1, 2, 3] is not [x, y, width, height]"]),
        (thing(box=MISSING, bbox=MISSING), ["bbox None is not"]),
        (thing(box=[1, 2, "3", 4]), ["bbox '3' is not a number"]),
        (thing(box=[1, 2, True, 4]), ["bbox True is not a number"]),
        (thing(box=[1, 2, float("nan"), 4]), ["annotation 1 (cat)", "is not finite"]),
        (thing(box=[1, 2, float("inf"), 4]), ["annotation 1 (cat)", "is not finite"]),
        (thing(box=[1, 2, 10**400, 4]), ["annotation 1", "is not finite"]),
        (thing(box=[1, 2, -3, 4]), ["annotation 1 (cat)", "ends before it begins"]),
        (thing(box=[70, 2, 3, 4]), ["annotation 1 (cat)", "wholly outside the 64x48 image"]),
        (thing(area=-1), ["annotation 1 (cat)", "area -1 is negative"]),
        (thing(area="big"), ["annotation 1", "area 'big' is not a number"]),
        (thing(iscrowd=2), ["annotation 1", "iscrowd 2 is not 0 or 1"]),
        (thing(number=2), ["annotation 2", "another annotation has the same id"]),
        (thing(number="x"), ["annotation 'x'", "id 'x' is not a whole number"]),
    ],
)
def test_bad_annotation_is_named_and_its_image_can_be_skipped(write, annotation, messages):
    file = write([thing(2, 8), annotation])
    with pytest.raises(UserError) as error:
        coco.read(file, split="val")
    assert all(message in str(error.value) for message in [str(file), "1 problem;", *messages]), error.value
    found = coco.read(file, split="val", skip_bad=True)
    assert [record.name for record in found.splits["val"]] == ["b.jpg"]
    assert len(found.bad) == 1


@pytest.mark.parametrize("image_id", [99, "7", None, 7.0])
def test_annotation_of_an_unknown_image_is_an_error(write, image_id):
    file = write([thing(), thing(5, image_id)])
    with pytest.raises(UserError, match=rf"annotation 5: there is no image with its image_id {image_id!r}"):
        coco.read(file, split="val")
    found = coco.read(file, split="val", skip_bad=True)
    assert len(found.splits["val"]) == 2
    assert len(found.bad) == 1


@pytest.mark.parametrize(
    ("images", "message", "count"),
    [
        ([image(), image(7, "c.jpg")], "another image has the same id", 3),
        ([image(), image(9)], "another image has the same file_name 'a.jpg'", 2),
        ([image("7")], "id '7' is not a whole number", 1),
        ([image(2**70)], "is not a whole number", 1),
        ([{"id": 7}], "file_name None is not a text", 1),
        ([image(width=0)], "says 0x48 but", 1),
        ([image(width=WIDTH + 1)], "says 65x48 but", 1),
        ([image(width="64")], "width '64' is not a whole number", 1),
        ([{"id": 7, "file_name": "a.jpg", "width": 64}], "height None is not a whole number", 1),
        ([image(file="../a.jpg")], "file_name '../a.jpg' leads out", 1),
        ([image(file="x/../../a.jpg")], "leads out", 1),
        ([image(file="/etc/passwd")], "leads out", 1),
        ([image(file="C:\\a.jpg")], "leads out", 1),
        ([image(file="..\\a.jpg")], "leads out", 1),
        ([image(file="a\0.jpg")], "unprintable", 1),
        ([image(file="a\x1b[2J.jpg")], "unprintable", 1),
        ([image(file="x" * 5000)], "too long", 1),
        ([image(file="c.jpg")], "c.jpg: No such file", 1),
        ([image(file=".")], "not a regular file", 1),
    ],
)
def test_bad_image_is_named_and_can_be_skipped(write, images, message, count):
    file = write([], [*images, image(8, "b.jpg")])
    with pytest.raises(UserError) as error:
        coco.read(file, split="val")
    assert message in str(error.value)
    assert "\x1b" not in str(error.value)
    found = coco.read(file, split="val", skip_bad=True)
    assert [record.name for record in found.splits["val"]] == ["b.jpg"]
    assert len(found.bad) == count


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([], "not one class"),
        ([{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}], "category 'dog': 'cat' has the same id 1"),
        ([{"id": 1, "name": "cat"}, {"id": 2, "name": "cat"}], "class 'cat' is listed twice"),
        ([{"id": "1", "name": "cat"}], "category 'cat': id '1' is not a whole number"),
        ([{"id": 1}], "name None is not a text"),
        ([{"id": 1, "name": " "}], "cannot be a class name"),
    ],
)
def test_bad_categories_are_an_error_always(write, categories, message):
    file = write([], categories=categories)
    for skip_bad in (False, True):
        with pytest.raises(UserError, match=message):
            coco.read(file, split="val", skip_bad=skip_bad)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (b'{"images": [', "cannot be read as COCO's JSON"),
        (b"\xff\xfe\x00", "cannot be read as COCO's JSON"),
        (b"[" * 100_000, "cannot be read as COCO's JSON"),
        (b"[]", "no list of images"),
        (b'{"images": [1], "annotations": [], "categories": []}', "no list of images"),
        (b'{"images": [], "categories": []}', "no list of annotations"),
        (b'{"images": [], "annotations": [], "categories": []}', "list of images is empty"),
    ],
)
def test_not_coco_is_an_error(tmp_path, data, message):
    (tmp_path / "set.json").write_bytes(data)
    with pytest.raises(UserError, match=message):
        coco.read(tmp_path / "set.json", split="val")


def test_file_must_be_there_regular_and_of_bounded_size(write, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="No such file"):
        coco.read(tmp_path / "missing.json", split="val")
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(UserError, match="not a regular file"):
        coco.read(tmp_path / "pipe.json", split="val")
    file = write([])
    monkeypatch.setattr(coco, "MAX_JSON_BYTES", 10)
    with pytest.raises(UserError, match=f"it has {file.stat().st_size} bytes, more than the limit of 10"):
        coco.read(file, split="val")


def test_coco_instances(shared):
    folder = shared / "data/coco-instances"
    for split, images, annotations, crowd in (("train", 80, 770, 9), ("val", 47, 440, 6)):
        file = folder / f"annotations/instances_{split}.json"
        found = coco.read(file, split=split, images=folder / "images")
        records = found.splits[split]
        assert len(records) == images
        assert sum(len(record.labels) for record in records) == annotations
        assert sum(record.crowd.sum() for record in records) == crowd
        assert found.clipped == found.dropped == found.bad == ()
        assert found.category_ids
        assert (found.classes[0], found.classes[79]) == ("person", "toothbrush")
        assert (found.category_ids[0], found.category_ids[11], found.category_ids[79]) == (1, 13, 90)
        truth = {annotation["id"]: annotation for annotation in json.loads(file.read_text())["annotations"]}
        for record in records:
            for box, label, area, number in zip(record.boxes, record.labels, record.area, record.ids, strict=True):
                annotation = truth.pop(int(number))
                x, y, width, height = annotation["bbox"]
                assert box.tolist() == np.array([x, y, x + width, y + height], np.float32).tolist()
                assert found.category_ids[label] == annotation["category_id"]
                assert area == np.float32(annotation["area"])
                assert record.image_id == annotation["image_id"]
        assert not truth
        used = Counter(int(label) for record in records for label in record.labels)
        assert len(used) == {"train": 67, "val": 58}[split]
