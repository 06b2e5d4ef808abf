import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from ylosia_jax.data import records, store, voc
from ylosia_jax.types import UserError

WIDTH, HEIGHT = 64, 48


def jpeg(width: int = WIDTH, height: int = HEIGHT) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def thing(*box, name: str = "cat", extra: str = "") -> str:
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name>{extra}<bndbox>{corners}</bndbox></object>"


def xml(*objects: str, size: tuple[int, int] | None = (WIDTH, HEIGHT)) -> str:
    head = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>" if size else ""
    return f"<annotation><filename>not_to_be_trusted.jpg</filename>{head}{''.join(objects)}</annotation>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images, `a` with a cat in train and `b` with a dog in val."""
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / part).mkdir(parents=True)
    for stem, split, name in (("a", "train", "cat"), ("b", "val", "dog")):
        (tmp_path / f"JPEGImages/{stem}.jpg").write_bytes(jpeg())
        (tmp_path / f"Annotations/{stem}.xml").write_text(xml(thing(10, 5, 30, 25, name=name)))
        (tmp_path / f"ImageSets/Main/{split}.txt").write_text(f"{stem}\n")
    return tmp_path


def boxes(found: records.Imported, split: str = "train") -> list[list[float]]:
    return found.splits[split][0].boxes.tolist()


def test_reads_splits_classes_and_boxes(folder):
    found = voc.read(folder)
    assert found.classes == ("cat", "dog")
    assert [record.name for record in found.splits["train"]] == ["a.jpg"]
    record = found.splits["val"][0]
    assert (record.name, record.width, record.height, record.image_id) == ("b.jpg", WIDTH, HEIGHT, -1)
    assert record.boxes.tolist() == [[10, 5, 30, 25]]
    assert record.labels.tolist() == [1]
    assert record.area.tolist() == [400]
    assert (record.crowd.tolist(), record.difficult.tolist(), record.ids.tolist()) == ([False], [False], [-1])


def test_given_classes_set_the_labels(folder):
    found = voc.read(folder, classes=["dog", "bird", "cat"])
    assert found.classes == ("dog", "bird", "cat")
    assert found.splits["train"][0].labels.tolist() == [2]


def test_one_based_corners_are_the_first_and_last_pixel(folder):
    (folder / "Annotations/a.xml").write_text(xml(thing(1, 1, WIDTH, HEIGHT), thing(7, 7, 7, 7)))
    assert boxes(voc.read(folder, one_based=True)) == [[0, 0, WIDTH, HEIGHT], [6, 6, 7, 7]]
    found = voc.read(folder)
    assert boxes(found) == [[1, 1, WIDTH, HEIGHT]]
    assert len(found.dropped) == 1


def test_difficult_is_kept_apart_from_crowd(folder):
    flags = [thing(1, 1, 9, 9, extra=f"<difficult>{flag}</difficult>") for flag in ("0", "1", "")]
    (folder / "Annotations/a.xml").write_text(xml(*flags))
    record = voc.read(folder).splits["train"][0]
    assert record.difficult.tolist() == [False, True, False]
    assert record.crowd.tolist() == [False, False, False]


def test_parts_of_an_object_are_no_objects(folder):
    part = "<part><name>head</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>4</xmax><ymax>4</ymax></bndbox></part>"
    (folder / "Annotations/a.xml").write_text(xml(thing(1, 1, 9, 9, extra=part)))
    found = voc.read(folder)
    assert found.classes == ("cat", "dog")
    assert boxes(found) == [[1, 1, 9, 9]]


def test_image_without_objects_is_background(folder):
    (folder / "Annotations/a.xml").write_text("<annotation/>")
    record = voc.read(folder).splits["train"][0]
    assert record.boxes.shape == (0, 4)
    assert record.labels.shape == record.area.shape == record.crowd.shape == (0,)


@pytest.mark.parametrize("size", [None, (0, 0)])
def test_size_comes_from_the_image_where_the_xml_has_none(folder, size):
    (folder / "Annotations/a.xml").write_text(xml(thing(1, 1, 9, 9), size=size))
    record = voc.read(folder).splits["train"][0]
    assert (record.width, record.height) == (WIDTH, HEIGHT)


def test_box_over_the_edge_is_clipped_and_reported(folder):
    (folder / "Annotations/a.xml").write_text(xml(thing(-3, 5.5, 30, 25), thing(60, 40, 70, 50), thing(0, 0, 64, 48)))
    found = voc.read(folder)
    assert boxes(found) == [[0, 5.5, 30, 25], [60, 40, 64, 48], [0, 0, 64, 48]]
    assert found.splits["train"][0].area.tolist() == [585, 32, 3072]
    assert [line.split(": ")[1] for line in found.clipped] == ["object 1 (cat)", "object 2 (cat)"]


def test_box_without_area_is_dropped_and_reported(folder):
    (folder / "Annotations/a.xml").write_text(xml(thing(5, 5, 5, 5), thing(5, 5, 9, 5), thing(1, 2, 3, 4)))
    found = voc.read(folder)
    assert boxes(found) == [[1, 2, 3, 4]]
    assert [line.split(": ")[1] for line in found.dropped] == ["object 1 (cat)", "object 2 (cat)"]
    assert all(line.startswith(f"{folder / 'Annotations/a.xml'}: ") for line in found.dropped)


def test_per_class_lists_are_no_splits(folder):
    (folder / "ImageSets/Main/cat_train.txt").write_text("a  1\nb -1\n")
    (folder / "ImageSets/Main/trainval.txt").write_text("a\n\nb \n")
    found = voc.read(folder)
    assert sorted(found.splits) == ["train", "trainval", "val"]
    assert [record.name for record in found.splits["trainval"]] == ["a.jpg", "b.jpg"]


def test_passed_over_files_are_noted(folder):
    (folder / "ImageSets/Main/test.txt").write_text("\n")
    (folder / "ImageSets/Main/val.txt").unlink()
    found = voc.read(folder)
    assert sorted(found.splits) == ["train"]
    assert len(found.notes) == 2
    assert "test.txt is empty" in found.notes[0]
    assert "1 annotated images stand in no split list" in found.notes[1]


BOMB = '<!DOCTYPE b [<!ENTITY l "ha"><!ENTITY m "&l;&l;">]><annotation>&m;</annotation>'


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("", ["a.xml", "the annotation is empty"]),
        ("<annotation>", ["a.xml", "cannot be read"]),
        (BOMB, ["a.xml", "cannot be read", "DTD"]),
        ("<html/>", ["a.xml", "<html>"]),
        (xml(thing("x", 1, 9, 9)), ["a.xml", "object 1: xmin 'x' is not a number"]),
        (xml(thing("nan", 1, 9, 9)), ["a.xml", "object 1 (cat)", "not finite"]),
        (xml(thing(1, 1, 9, "inf")), ["a.xml", "object 1 (cat)", "not finite"]),
        (xml("<object><name>cat</name></object>"), ["a.xml", "object 1: xmin is missing"]),
        (xml(thing(1, 1, 9, 9, name=" ")), ["a.xml", "object 1: it has no name"]),
        (xml(thing(1, 1, 9, 9, extra="<difficult>maybe</difficult>")), ["a.xml", "difficult is 'maybe'"]),
        (xml(thing(9, 1, 1, 9)), ["a.xml", "box (9, 1, 1, 9) ends before it begins"]),
        (xml(thing(64, 1, 70, 9)), ["a.xml", "box (64, 1, 70, 9) is wholly outside the 64x48 image"]),
        (xml(thing(1, 1, 9, 9), size=(65, 48)), ["a.xml", "says 65x48", "a.jpg is 64x48"]),
        (xml(thing(1, 1, 9, 9), size=(48, 64)), ["a.xml", "says 48x64", "a.jpg is 64x48", "EXIF"]),
        (xml(thing(1, 1, 9, 9), thing(2, 2, 9, 9, name="dgo")), ["a.xml", "object 2", "'dgo'", "nearest is 'dog'"]),
    ],
)
def test_bad_annotation_is_named_and_can_be_skipped(folder, text, messages):
    (folder / "Annotations/a.xml").write_text(text)
    (folder / "ImageSets/Main/train.txt").write_text("a\nb\n")
    with pytest.raises(UserError) as error:
        voc.read(folder, classes=["cat", "dog"])
    assert all(message in str(error.value) for message in [*messages, "1 problem;", "--skip-bad"]), error.value
    found = voc.read(folder, classes=["cat", "dog"], skip_bad=True)
    assert [record.name for record in found.splits["train"]] == ["b.jpg"]
    assert len(found.bad) == 1
    assert all(message in found.bad[0] for message in messages)


def cut_behind_thumbnail() -> bytes:
    """A cut off JPEG whose EXIF segment holds a whole one, as cameras' files do."""
    thumbnail = jpeg(8, 8)
    segment = b"\xff\xe1" + (len(thumbnail) + 8).to_bytes(2, "big") + b"Exif\0\0" + thumbnail
    return jpeg()[:2] + segment + jpeg()[2:-20]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (jpeg()[:-2], "cut off"),
        (jpeg()[: len(jpeg()) // 2], "cut off"),
        (jpeg()[:100], "cut off"),
        (cut_behind_thumbnail(), "cut off"),
        (b"", "the file is empty"),
        (b"GIF89a", "no JPEG, PNG or BMP"),
        (b"<html>not found</html>", "no JPEG, PNG or BMP"),
        (None, "missing"),
    ],
)
def test_bad_image_is_named_and_can_be_skipped(folder, data, message):
    path = folder / "JPEGImages/a.jpg"
    path.unlink() if data is None else path.write_bytes(data)
    (folder / "ImageSets/Main/train.txt").write_text("a\nb\n")
    with pytest.raises(UserError) as error:
        voc.read(folder)
    assert str(path) in str(error.value)
    assert message in str(error.value)
    assert [record.name for record in voc.read(folder, skip_bad=True).splits["train"]] == ["b.jpg"]


def test_image_without_annotation_is_an_error(folder):
    (folder / "Annotations/a.xml").unlink()
    with pytest.raises(UserError, match=r"Annotations/a\.xml: .*missing"):
        voc.read(folder)


def test_image_must_be_a_regular_file(folder):
    (folder / "JPEGImages/a.jpg").unlink()
    os.mkfifo(folder / "JPEGImages/a.jpg")
    with pytest.raises(UserError, match="not a regular file"):
        voc.read(folder)


def test_two_images_of_one_stem_are_an_error(folder):
    (folder / "JPEGImages/a.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"a\.jpg, .*a\.png: which of them is meant"):
        voc.read(folder)


def test_names_cannot_lead_out_of_the_folder(folder):
    (folder / "secret.jpg").write_bytes(jpeg())
    (folder / "ImageSets/Main/train.txt").write_text("../secret\n")
    with pytest.raises(UserError, match=r"\.\./secret\.jpg: .*missing"):
        voc.read(folder)


def test_image_listed_twice_is_an_error_but_no_loss(folder):
    (folder / "ImageSets/Main/train.txt").write_text("a\na\n")
    with pytest.raises(UserError, match=r"a\.xml: image 'a\.jpg' stands in split 'train' twice"):
        voc.read(folder)
    assert len(voc.read(folder, skip_bad=True).splits["train"]) == 1


def test_all_problems_are_counted_and_ten_are_shown(folder):
    (folder / "Annotations/a.xml").write_text(xml(*[thing("x", 1, 9, 9)] * 14))
    with pytest.raises(UserError) as error:
        voc.read(folder)
    lines = str(error.value).splitlines()
    assert "14 problems" in lines[0]
    assert len(lines) == 12
    assert lines[-1] == "  … and 4 more"


def test_control_characters_do_not_reach_the_terminal(folder):
    (folder / "ImageSets/Main/train.txt").write_text("a\n\x1b[2Jb\n")
    with pytest.raises(UserError) as error:
        voc.read(folder)
    assert "\x1b" not in str(error.value) + voc.read(folder, skip_bad=True).bad[0]


def test_nothing_left_is_not_stored_even_when_skipping(folder, tmp_path):
    for stem in "ab":
        (folder / f"Annotations/{stem}.xml").write_text("")
    found = voc.read(folder, skip_bad=True)
    assert len(found.bad) == 2
    with pytest.raises(UserError, match="'train' of 'pets' has no image to import, because all are bad"):
        store.write(found, name="pets", root=tmp_path / "sets")
    assert not (tmp_path / "sets").exists()


def test_no_class_at_all_is_an_error(folder):
    for stem in "ab":
        (folder / f"Annotations/{stem}.xml").write_text("<annotation/>")
    with pytest.raises(UserError, match="not one class"):
        voc.read(folder)


@pytest.mark.parametrize(("classes", "message"), [(["cat", "cat"], "twice"), (["c\nat"], "printable")])
def test_class_list_must_be_sound(folder, classes, message):
    with pytest.raises(UserError, match=message):
        voc.read(folder, classes=classes)


def test_folder_must_have_the_layout(folder, tmp_path):
    with pytest.raises(UserError, match="Annotations is missing"):
        voc.read(tmp_path / "nothing")
    for path in (folder / "ImageSets/Main").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="has no split list"):
        voc.read(folder)
    (folder / "ImageSets/Main/my-split.txt").write_text("a\n")
    with pytest.raises(UserError, match="'my-split' cannot be a split's name"):
        voc.read(folder)


def test_bccd(shared):
    found = voc.read(shared / "data/bccd")
    assert found.classes == ("Platelets", "RBC", "WBC")
    assert {split: len(records) for split, records in found.splits.items()} == {"train": 205, "val": 87}
    counts = {split: np.zeros(3, int) for split in found.splits}
    for split, members in found.splits.items():
        for record in members:
            np.add.at(counts[split], record.labels, 1)
    assert counts["train"].tolist() == [209, 2382 - 1, 214]
    assert counts["val"].tolist() == [83, 968 - 1, 87]
    assert sorted(Path(line.split(":")[0]).stem for line in found.dropped) == ["BloodImage_00338", "BloodImage_00343"]
    assert found.clipped == found.bad == ()
    edges = np.concatenate([record.boxes for records in found.splits.values() for record in records])
    assert edges.min() == 1
    assert edges[:, 2:].max(0).tolist() == [640, 480]
