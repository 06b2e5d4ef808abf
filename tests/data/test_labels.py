"""Masks, poses and maps through every reader, the store and back."""

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ylosia_jax import rle
from ylosia_jax.cli import main
from ylosia_jax.data import coco, masks, panoptic, records, store
from ylosia_jax.data.pipeline import Needs, prepare
from ylosia_jax.metrics.instances import ImageDetections, image_truth, mask_metrics
from ylosia_jax.types import VOID, UserError

HEIGHT, WIDTH = 24, 32
SQUARE = [4, 4, 12, 4, 12, 10, 4, 10]


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(str(path))).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return path


def write_png(path: Path, numbers: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", numbers)[1].tobytes())


def coco_file(folder: Path, *annotations: dict[str, Any], **category: Any) -> Path:
    picture(folder / "a.png")
    rows = [
        {"id": i + 1, "image_id": 7, "category_id": 3, "bbox": [4, 4, 8, 6], **a} for i, a in enumerate(annotations)
    ]
    images = [{"id": 7, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}]
    content = {"images": images, "annotations": rows, "categories": [{"id": 3, "name": "cat", **category}]}
    path = folder / "a.json"
    path.write_text(json.dumps(content))
    return path


def stored(found: records.Imported, folder: Path, split: str = "train") -> store.Stored:
    store.write(found, name="set", root=folder / "sets")
    return store.open("set", split, root=folder / "sets")


def test_polygons_and_run_lengths_come_back_as_masks(tmp_path: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[4:10, 4:12] = True
    runs = [4 * HEIGHT + 4, *[6, HEIGHT - 6] * 7, 6]
    runs.append(HEIGHT * WIDTH - sum(runs))
    whole = {"size": [HEIGHT, WIDTH]}
    source = stored(
        coco.read(
            coco_file(
                tmp_path,
                {"segmentation": [SQUARE]},
                {"segmentation": {**whole, "counts": runs}},
                {"segmentation": {**whole, "counts": rle.encode(mask).decode()}},
                {"segmentation": [SQUARE, [20, 2, 28, 2, 28, 20]], "iscrowd": 0},
            ),
            split="train",
        ),
        tmp_path,
    )
    assert source.labels == {"box", "mask"}
    example = source[0]
    assert example.masks is not None
    drawn = [rle.decode(counts, (HEIGHT, WIDTH)) for counts in example.masks]
    for same in drawn[:3]:
        np.testing.assert_array_equal(same, mask)
    assert (drawn[3] & mask).sum() == mask.sum()
    assert drawn[3][5, 26]


def test_of_an_image_with_an_object_that_nobody_drew_the_others_are_learned(tmp_path: Path) -> None:
    found = coco.read(coco_file(tmp_path, {"segmentation": []}, {"segmentation": [SQUARE]}), split="train")
    assert any("1 object of 2 without a mask" in note for note in found.notes)
    example = stored(found, tmp_path)[0]
    # What is found there could be neither right nor wrong.
    assert image_truth(example).masks is None
    batch = prepare(example, 0, 0, (32, 32), 4, Needs(masks=True))
    np.testing.assert_array_equal(batch.objects.masked, [False, True, False, False])
    assert set(np.unique(np.asarray(batch.instances)).tolist()) == {0, 2}


LINE, OUTSIDE = [4, 4, 12, 4, 8, 4], [WIDTH + 4, 4, WIDTH + 9, 4, WIDTH + 9, 9]


@pytest.mark.parametrize("drawn", [[LINE], [OUTSIDE], {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}])
def test_a_mask_without_a_pixel_is_noted_and_taken_as_not_drawn(tmp_path: Path, drawn: Any) -> None:
    found = coco.read(coco_file(tmp_path, {"segmentation": drawn}, {"segmentation": [SQUARE]}), split="train")
    assert any("its mask has no pixel" in note for note in found.notes)
    example = stored(found, tmp_path)[0]
    assert example.masks is not None
    assert [bool(mask) for mask in example.masks] == [False, True]


def test_of_an_object_wholly_under_another_no_shape_is_learned(tmp_path: Path) -> None:
    found = coco.read(coco_file(tmp_path, *[{"segmentation": [SQUARE]}] * 2), split="train")
    batch = prepare(stored(found, tmp_path)[0], 0, 0, (32, 32), 4, Needs(masks=True))
    np.testing.assert_array_equal(batch.objects.valid, [True, True, False, False])
    np.testing.assert_array_equal(batch.objects.masked, [False, True, False, False])


def test_an_objects_area_is_that_of_its_mask(tmp_path: Path) -> None:
    found = coco.read(coco_file(tmp_path, {"segmentation": [SQUARE[:6]]}, {}, {"area": 7.0}), split="train")
    example = stored(found, tmp_path)[0]
    assert example.masks is not None
    np.testing.assert_array_equal(example.area, [rle.area(example.masks[0], (HEIGHT, WIDTH)), 48, 7])


def palette_png(numbers: np.ndarray, depth: int, colours: list[tuple[int, int, int]]) -> bytes:
    """A PNG of indices into a palette, some of them transparent, as drawing programs write them."""
    bits = np.unpackbits(numbers[..., None].astype(np.uint8), axis=-1)[..., 8 - depth :]
    rows = np.packbits(bits.reshape(len(numbers), -1), axis=-1)
    pixels = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", numbers.shape[1], numbers.shape[0], depth, 3, 0, 0, 0)
    parts = [(b"IHDR", head), (b"PLTE", bytes(np.array(colours, np.uint8))), (b"tRNS", b"\0")]
    parts += [(b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("depth", [2, 4, 8])
@pytest.mark.parametrize("colours", [[(0, 0, 0), (128, 0, 0), (0, 128, 0)], [(200,) * 3, (0,) * 3, (90,) * 3]])
def test_the_numbers_of_a_png_with_a_palette_are_its_indices(tmp_path: Path, depth: int, colours: Any) -> None:
    numbers = np.random.default_rng(0).integers(0, 3, (HEIGHT, WIDTH))
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.png").write_bytes(palette_png(numbers, depth, colours))
    source = stored(masks.read(tmp_path, classes=("zero", "one", "two")), tmp_path)
    np.testing.assert_array_equal(source[0].semantic, numbers)


def test_a_crowd_may_go_without_its_mask(tmp_path: Path) -> None:
    """It is not learned, and where it is scored it fills its box: what is found there counts nowhere."""
    crowd = {"iscrowd": 1, "bbox": [20, 10, 8, 8]}
    found = coco.read(coco_file(tmp_path, {"segmentation": [SQUARE]}, crowd), split="train")
    source = stored(found, tmp_path)
    example = source[0]
    masks = image_truth(example).masks
    assert masks is not None
    assert [rle.area(mask, (HEIGHT, WIDTH)) for mask in masks] == [48, 64]
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[12:16, 21:25] = True
    answer = ImageDetections(
        np.array([[4, 4, 8, 8], [21, 12, 25, 16]], np.float32),
        np.array([0.8, 0.9], np.float32),
        np.array([0, 0]),
        masks=(masks[0], rle.encode(inside)),
    )
    assert mask_metrics([image_truth(example)], [answer], source.classes)["AP"] == pytest.approx(1)
    assert example.masks is not None
    batch = prepare(example, 0, 0, (32, 32), 4, Needs(masks=True))
    assert set(np.unique(np.asarray(batch.instances)).tolist()) == {0, 1}


def test_keypoints_come_back_with_their_skeleton(tmp_path: Path) -> None:
    path = coco_file(
        tmp_path,
        {"keypoints": [5, 6, 2, 7, 8, 1, 99, 99, 0]},
        keypoints=["snout", "left_ear", "right_ear"],
        skeleton=[[1, 2], [1, 3]],
    )
    source = stored(coco.read(path, split="train"), tmp_path)
    assert source.labels == {"box", "keypoint"}
    assert source.skeleton is not None
    assert source.skeleton.mirror == (0, 2, 1)
    assert source.skeleton.edges == ((0, 1), (0, 2))
    assert source.skeleton.classes == ("cat",)
    np.testing.assert_array_equal(source[0].keypoints, [[[5, 6, 2], [7, 8, 1], [0, 0, 0]]])


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"segmentation": [[1, 1, 2, 2]]}, "at least 3 points"),
        ({"segmentation": [[1, 1, 2, 2, 3]]}, "at least 3 points"),
        ({"segmentation": [[1, 1, 2, 2, 3, "x"]]}, "no finite number"),
        ({"segmentation": {"size": [WIDTH, HEIGHT], "counts": "04"}}, r"size \[32, 24\], the image \[24, 32\]"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [5, 5]}}, "add up to 10"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "~~"}}, "no character of compressed"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": 7}}, "neither a list"),
        ({"segmentation": "left"}, "has the size"),
        ({"keypoints": [1, 2, 2]}, "has 3 keypoint numbers, 2 points have 6"),
        ({"keypoints": [1, 2, 2, 3, 4, 5]}, "v of a keypoint is 5, not 0, 1 or 2"),
        ({"keypoints": [1, 2, 2, 3, float("nan"), 1]}, "no finite number"),
    ],
)
def test_what_is_wrong_is_named_and_can_be_skipped(tmp_path: Path, annotation: dict[str, Any], message: str) -> None:
    path = coco_file(tmp_path, annotation, keypoints=["a", "b"])
    with pytest.raises(UserError, match=message):
        coco.read(path, split="train")
    assert len(coco.read(path, split="train", skip_bad=True).bad) == 1


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"keypoints": 5}, "its keypoints 5 are no list of numbers"),
        ({"keypoints": [10**400, 2, 2, 3, 4, 1]}, "no finite number"),
        ({"segmentation": [[4, 4, 10**400, 4, 8, 8]]}, "no finite number"),
    ],
)
def test_odd_numbers_are_named(tmp_path: Path, annotation: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        coco.read(coco_file(tmp_path, annotation, keypoints=["a", "b"]), split="train")


def test_keypoints_are_those_of_their_category(tmp_path: Path) -> None:
    """A ball has none, whether or not its annotations say so; a cat with an empty list was not looked at."""
    path = coco_file(
        tmp_path,
        {"keypoints": []},
        {"category_id": 5, "keypoints": []},
        {"category_id": 5, "keypoints": [1, 2, 2]},
        keypoints=["left_ear", "right_ear"],
    )
    content = json.loads(path.read_text())
    content["categories"].append({"id": 5, "name": "ball"})
    path.write_text(json.dumps(content))
    found = coco.read(path, split="train")
    assert not found.splits["train"][0].keypoints.any()
    assert "left_ear and right_ear change places in a mirror" in found.notes[0]
    assert "the keypoints of 1 object of 'ball' are left out" in found.notes[1]


@pytest.mark.parametrize(
    ("points", "noted"),
    [
        ([WIDTH + 1, 2, 2, 3, 3, 2], True),
        ([4, -1, 1, 3, 3, 2], True),
        # The rim is inside, and what is not labelled lies nowhere.
        ([WIDTH, HEIGHT, 2, -5, -5, 0], False),
    ],
)
def test_a_labelled_point_outside_of_the_image_is_noted(tmp_path: Path, points: list[int], noted: bool) -> None:
    found = coco.read(coco_file(tmp_path, {"keypoints": points}, keypoints=["a", "b"]), split="train")
    notes = [note for note in found.notes if f"keypoint lies outside of the {WIDTH}x{HEIGHT} image" in note]
    assert len(notes) == noted
    assert len(found.splits["train"]) == 1


def test_a_polygon_that_crosses_itself_is_noted(tmp_path: Path) -> None:
    found = coco.read(coco_file(tmp_path, {"segmentation": [[4, 4, 12, 10, 12, 4, 4, 10]]}), split="train")
    assert "crosses itself" in found.notes[0]
    assert not coco.read(coco_file(tmp_path, {"segmentation": [SQUARE]}), split="train").notes


# ---- Panoptic


def coded(numbers: np.ndarray) -> np.ndarray:
    """Segment numbers as OpenCV's blue, green, red."""
    return np.stack([numbers // 65536, numbers // 256 % 256, numbers % 256], axis=-1).astype(np.uint8)


def panoptic_file(
    folder: Path, segments: list[dict[str, Any]] | None = None, numbers: np.ndarray | None = None
) -> Path:
    picture(folder / "a.png")
    if numbers is None:
        numbers = np.zeros((HEIGHT, WIDTH), np.int32)
        numbers[:10], numbers[2:8, 5:9] = 70_000, 300
    if segments is None:
        segments = [{"id": 70_000, "category_id": 9}, {"id": 300, "category_id": 4, "iscrowd": 0}]
    write_png(folder / "pan" / "a.png", coded(numbers))
    categories = [{"id": 9, "name": "sky", "isthing": 0}, {"id": 4, "name": "cat", "isthing": 1}]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
        "categories": categories,
    }
    path = folder / "pan.json"
    path.write_text(json.dumps(content))
    return path


def test_panoptic_segments_become_objects_and_a_semantic_map(tmp_path: Path) -> None:
    source = stored(panoptic.read(panoptic_file(tmp_path), split="train"), tmp_path)
    assert (source.classes, source.stuff, source.labels) == (("cat",), ("sky",), {"box", "mask", "semantic"})
    example = source[0]
    np.testing.assert_array_equal(example.boxes, [[5, 2, 9, 8]])
    assert example.masks is not None
    assert rle.decode(example.masks[0], (HEIGHT, WIDTH)).sum() == 24
    expected = np.full((HEIGHT, WIDTH), VOID)
    expected[:10], expected[2:8, 5:9] = 1, 0
    np.testing.assert_array_equal(example.semantic, expected)


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([{"id": 300, "category_id": 4}], "pixels of segment 70000, which the JSON does not list"),
        ([{"id": 300, "category_id": 4}] * 2, "another segment has the same id"),
        ([{"id": 5, "category_id": 4}], "no pixel of .* has its id"),
        ([{"id": 300, "category_id": 1}], "category_id 1 is not among"),
    ],
)
def test_panoptic_segments_that_do_not_fit_are_named(tmp_path: Path, segments: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        panoptic.read(panoptic_file(tmp_path, segments), split="train")
    assert "--images" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0].update(segments_info=None), "segments_info None is no list"),
        (lambda c: c["annotations"][0].update(segments_info=[5]), r"segments_info \[5\] is no list"),
        (lambda c: c["annotations"][0].update(image_id=[1]), r"image_id \[1\] is not a whole number"),
        (lambda c: c["annotations"][0].update(file_name="b.png"), "b.png: No such file"),
        (lambda c: c["annotations"].append({**c["annotations"][0], "image_id": 8}), "no image with the image_id 8"),
        (lambda c: c["images"].append({**c["images"][0], "file_name": "b.png"}), "another image has the same id 1"),
        (lambda c: c["categories"].append({"id": "x", "name": "dog"}), "id 'x' is not a whole number"),
        (lambda c: c["categories"].append({"id": 5, "name": "cat", "isthing": 1}), "class 'cat' is listed twice"),
        (lambda c: c["categories"][0].pop("isthing"), "the isthing of category .* is None, not 0 or 1"),
        (lambda c: c["annotations"][0]["segments_info"][0].update(iscrowd=7), "iscrowd 7 is not 0 or 1"),
    ],
)
def test_what_is_wrong_with_a_panoptic_file_is_named(tmp_path: Path, change: Any, message: str) -> None:
    path = panoptic_file(tmp_path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        panoptic.read(path, split="train")


def test_an_empty_png_is_named(tmp_path: Path) -> None:
    path = panoptic_file(tmp_path)
    (tmp_path / "pan" / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"pan/a.png: the file is empty"):
        panoptic.read(path, split="train")
    picture(tmp_path / "set" / "images" / "a.png")
    (tmp_path / "set" / "masks").mkdir()
    (tmp_path / "set" / "masks" / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"masks/a.png: the file is empty"):
        masks.read(tmp_path / "set")


def test_a_panoptic_png_of_another_size_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is 8x8, its image 32x24"):
        panoptic.read(panoptic_file(tmp_path, [], np.zeros((8, 8), np.int32)), split="train")


# ---- Folders of masks


def test_semantic_folder(tmp_path: Path) -> None:
    for stem in "abc":
        picture(tmp_path / "images" / f"{stem}.png")
        numbers = np.zeros((HEIGHT, WIDTH), np.uint8)
        numbers[4:], numbers[9:] = 128, 255
        write_png(tmp_path / "masks" / f"{stem}.png", numbers)
    (tmp_path / "train.txt").write_text("a\nb\n")
    (tmp_path / "val.txt").write_text("c.png\n")
    (tmp_path / "notes.txt").write_text("nothing to do with it\n")
    found = masks.read(tmp_path, classes=["ground", "cell", "core"])
    assert {split: len(members) for split, members in found.splits.items()} == {"train": 2, "val": 1}
    source = stored(found, tmp_path, "val")
    assert (source.classes, source.stuff, source.labels) == ((), ("ground", "cell", "core"), {"semantic"})
    np.testing.assert_array_equal(source[0].semantic, np.repeat([0, 1, 2], [4, 5, 15])[:, None] * np.ones(WIDTH))
    assert "0 is 'ground', 128 is 'cell', 255 is 'core'" in found.notes[0]
    with pytest.raises(UserError, match=r"values \[0, 128, 255\], but 2 classes are named"):
        masks.read(tmp_path, classes=["ground", "cell"])


@pytest.mark.parametrize("flat", [True, False])
def test_instance_folders(tmp_path: Path, flat: bool) -> None:
    numbers = np.zeros((HEIGHT, WIDTH), np.uint16)
    numbers[2:6, 3:9], numbers[10:20, 12:30] = 1, 700
    if flat:
        picture(tmp_path / "images" / "a.png")
        write_png(tmp_path / "masks" / "a.png", numbers)
    else:
        picture(tmp_path / "stage" / "a" / "images" / "a.png")
        for number in (1, 700):
            write_png(tmp_path / "stage" / "a" / "masks" / f"{number}.png", (numbers == number).astype(np.uint8) * 255)
    source = stored(masks.read(tmp_path, classes=["nucleus"], instances=flat), tmp_path)
    example = source[0]
    assert source.classes == ("nucleus",)
    np.testing.assert_array_equal(example.boxes, [[3, 2, 9, 6], [12, 10, 30, 20]])
    np.testing.assert_array_equal(example.area, [24, 180])


def test_an_image_folder_without_masks_is_no_image_without_objects(tmp_path: Path) -> None:
    picture(tmp_path / "x" / "images" / "x.png")
    picture(tmp_path / "y" / "images" / "y.png")
    (tmp_path / "x" / "masks").mkdir()
    with pytest.raises(UserError, match="y/masks: the folder is missing"):
        masks.read(tmp_path)
    found = masks.read(tmp_path, skip_bad=True)
    assert [record.name for record in found.splits["train"]] == ["x.png"]


def test_images_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for name in "ab":
        picture(tmp_path / name / "images" / "image.png")
        write_png(tmp_path / name / "masks" / "0.png", np.pad(np.ones((4, 4), np.uint8), ((0, 20), (0, 28))))
    (tmp_path / "val.txt").write_text("b\n")
    found = masks.read(tmp_path)
    assert [record.name for record in found.splits["val"]] == ["b.png"]
    picture(tmp_path / "a" / "images" / "other.png")
    with pytest.raises(UserError, match="are both called 'a': rename one"):
        masks.read(tmp_path)


def test_lists_know_names_with_dots(tmp_path: Path) -> None:
    for name in ("a.v1", "b.v1"):
        picture(tmp_path / "images" / f"{name}.png")
        write_png(tmp_path / "masks" / f"{name}.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    (tmp_path / "train.txt").write_text("a.v1\n")
    (tmp_path / "val.txt").write_text("images/b.v1.png\n")
    assert {split: len(members) for split, members in masks.read(tmp_path).splits.items()} == {"train": 1, "val": 1}
    (tmp_path / "val.txt").write_text("c\n")
    with pytest.raises(UserError, match="no image of 'c'; mend the list"):
        masks.read(tmp_path)


def test_what_is_left_out_is_noted(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b", "c"):
        cv2.imwrite(str(tmp_path / f"images/{name}.png"), np.zeros((8, 8, 3), np.uint8))
    for name in ("a", "b", "c", "d"):
        cv2.imwrite(str(tmp_path / f"masks/{name}.png"), np.zeros((8, 8), np.uint8))
    (tmp_path / "train.txt").write_text("a\n")
    for instances in (False, True):
        notes = " ".join(masks.read(tmp_path, instances=instances).notes)
        assert "2 files left out, in no list: b, c" in notes
        assert "1 file left out, a mask without an image: d.png" in notes


def test_values_of_semantic_maps_keep_their_names_where_some_do_not_occur(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    write_png(tmp_path / "masks" / "a.png", np.repeat([0, 2], [9, 15]).astype(np.uint8)[:, None].repeat(WIDTH, 1))
    found = masks.read(tmp_path, classes=["road", "sky", "sea", "sand"], void=255)
    source = stored(found, tmp_path)
    assert source.stuff == ("road", "sky", "sea", "sand")
    assert np.unique(source[0].semantic).tolist() == [0, 2]
    assert [note for note in found.notes if "no pixel has the value 255" in note] == list(found.notes)


def test_void_values_are_neither_learned_nor_named(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    numbers = np.zeros((HEIGHT, WIDTH), np.uint8)
    numbers[4:], numbers[9:] = 1, 255
    write_png(tmp_path / "masks" / "a.png", numbers)
    source = stored(masks.read(tmp_path, classes=["road", "sky"], void=255), tmp_path)
    assert source.stuff == ("road", "sky")
    np.testing.assert_array_equal(source[0].semantic, np.repeat([0, 1, 255], [4, 5, 15])[:, None] * np.ones(WIDTH))
    with pytest.raises(UserError, match="say with --void which value is of no class"):
        masks.read(tmp_path, classes=["road", "sky"])
    with pytest.raises(UserError, match="class 'road' is listed twice"):
        masks.read(tmp_path, classes=["road", "road"], void=255)


def test_a_map_of_another_size_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    write_png(tmp_path / "masks" / "a.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(UserError, match="semantic map: it is 8x8, the image 32x24"):
        masks.read(tmp_path)


def test_a_folder_of_another_layout_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "import", "masks", str(tmp_path), "--name", "x", "--out", str(tmp_path / "sets")]) == 2
    assert "expected images/ beside masks/" in capsys.readouterr().err


@pytest.mark.slow
def test_the_shared_sets_are_read_whole(shared: Path, tmp_path: Path) -> None:
    both = {}
    for name, found in (
        ("png", masks.read(shared / "data/nuclei-dsb2018", classes=["nucleus"])),
        ("json", coco.read(shared / "data/nuclei-dsb2018/instances_val.json", split="val")),
    ):
        store.write(found, name=name, root=tmp_path)
        source = store.open(name, "val", root=tmp_path)
        assert len(source) == 28
        both[name] = sorted(m for i in range(28) for m in source[i].masks or ())
        assert len(both[name]) == 512
    assert both["png"] == both["json"]
