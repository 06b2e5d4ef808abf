import resource
import struct
import subprocess
import sys
import textwrap
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ylosia_jax.data import images, records, store, voc
from ylosia_jax.types import Source, UserError

CLASSES = ("cat", "dog", "Zebra ähnlich")


def picture(seed: int, height: int = 24, width: int = 32) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def gather(tmp_path: Path):
    """Makes a set of `count` images; image i has i objects of class i % 3, the first crowd, the second difficult."""

    def gather(count: int = 4, split: str = "train", classes=CLASSES, **fields) -> records.Imported:
        entries = []
        (tmp_path / "images").mkdir(exist_ok=True)
        for i in range(count):
            path = tmp_path / f"images/{split}{i}.jpg"
            cv2.imwrite(str(path), picture(i))
            objects = [
                records.Object(
                    f"object {j}", classes[i % 3], (j, 0.5, 10 + i, 12), 7.5 * j, j == 0, j == 1, 100 * i + j
                )
                for j in range(i)
            ]
            entries.append(records.Entry(f"annotation {i}", path, path.name, objects, (32, 24), i))
        return records.gather({split: entries}, classes, source="set", **fields)

    return gather


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_shapes_are_told_without_decoding_the_images(gather, tmp_path):
    root = tmp_path / "data"
    store.write(gather(), name="pets", root=root)
    folder = store.write(gather(3, split="val"), name="pets", root=root).folder
    source = store.open("pets", "val", root=root)
    assert source.kept_shapes is not None
    assert source.shapes.tolist() == [list(source[i].image.shape[:2]) for i in range(3)] == [[24, 32]] * 3
    assert store.open("pets", "val", root=root, first=2).shapes.tolist() == [[24, 32]] * 2
    path = folder / "pets-val.shapes.npy"
    np.save(path, np.zeros((2, 2), np.int32))
    for content in (path.read_bytes(), b"nothing of the kind", b""):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"pets-val.shapes.npy does not hold 3 heights and widths: remove it, and"):
            store.open("pets", "val", root=root)
    # As in sets of before that file was.
    path.unlink()
    assert store.open("pets", "val", root=root).shapes.tolist() == [[24, 32]] * 3


def test_what_is_written_is_read_back(gather, tmp_path):
    found = gather()
    report = store.write(found, name="pets", root=tmp_path / "data")
    assert report.folder == tmp_path / "data/pets/1.0.0"
    assert report.shards == {"train": 1}
    source: Source = store.open("pets", "train", root=tmp_path / "data")
    assert source.classes == CLASSES
    assert len(source) == 4
    for i, record in enumerate(found.splits["train"]):
        example = source[i]
        assert example.name == f"train{i}.jpg"
        assert example.boxes.tolist() == [[j, 0.5, 10 + i, 12] for j in range(i)]
        assert example.labels.tolist() == [i % 3] * i
        assert example.area.tolist() == [7.5 * j for j in range(i)]
        types = [array.dtype for array in (example.boxes, example.labels, example.area, example.crowd)]
        assert types == [np.float32, np.int64, np.float32, bool]
        assert np.array_equal(example.image, images.decode(record.image.read_bytes()))
    assert source[3].crowd.tolist() == [True, True, False]  # a crowd, then a difficult one
    error = source[3].image.astype(int) - picture(3)[..., ::-1]
    assert np.abs(error).mean() < 5  # red is red: what JPEG loses is small


def test_index_must_be_in_range(gather, tmp_path):
    store.write(gather(), name="pets", root=tmp_path)
    source = store.open("pets", "train", root=tmp_path)
    assert source[np.int64(3)].name == "train3.jpg"
    for index in (4, -1):
        with pytest.raises(IndexError, match=r"0\.\.3"):
            source[index]


def test_the_first_of_a_split(gather, tmp_path):
    store.write(gather(), name="pets", root=tmp_path)
    few = store.open("pets", "train", root=tmp_path, first=2)
    assert [few[i].name for i in range(len(few))] == ["train0.jpg", "train1.jpg"]
    with pytest.raises(IndexError, match=r"0\.\.1"):
        few[2]
    assert len(store.open("pets", "train", root=tmp_path, first=9)) == 4


def test_plain_tfds_opens_it_and_agrees(gather, tmp_path):
    import tensorflow_datasets as tfds

    found = gather()
    store.write(found, name="pets", root=tmp_path)
    source = store.open("pets", "train", root=tmp_path)
    builder: Any = tfds.builder_from_directory(tmp_path / "pets/1.0.0")
    assert builder.info.features["objects"]["label"].feature.names == list(CLASSES)
    rows = builder.as_data_source("train")
    assert len(rows) == 4
    by_name: Any = tfds.data_source("pets", split="train", data_dir=tmp_path)  # pyright: ignore[reportCallIssue]
    assert by_name[3]["name"] == b"train3.jpg"
    for i in range(4):
        row, example = rows[i], source[i]
        assert (row["name"].decode(), row["image_id"], row["width"], row["height"]) == (example.name, i, 32, 24)
        assert np.array_equal(row["image"], example.image)
        assert np.array_equal(row["objects"]["bbox"], example.boxes)
        assert np.array_equal(row["objects"]["label"], example.labels)
        assert np.array_equal(row["objects"]["area"], example.area)
        assert row["objects"]["crowd"].tolist() == [j == 0 for j in range(i)]
        assert row["objects"]["difficult"].tolist() == [j == 1 for j in range(i)]
        assert row["objects"]["id"].tolist() == [100 * i + j for j in range(i)]


def test_tensorflow_is_not_imported(gather, tmp_path):
    store.write(gather(), name="pets", root=tmp_path)
    script = f"""
        import sys
        from pathlib import Path
        from ylosia_jax.data import coco, records, store, voc
        assert "tensorflow_datasets" not in sys.modules  # a command that needs no set does not wait for it
        found = store.open("pets", "train", root={str(tmp_path)!r})
        entry = records.Entry("x", Path({str(tmp_path)!r}) / "images/train0.jpg", "x.jpg")
        store.write(records.gather({{"train": [entry]}}, ["cat"], source="x"), name="more", root={str(tmp_path)!r})
        assert found[1].labels.tolist() == [1]
        assert "tensorflow_datasets" in sys.modules
        assert "tensorflow" not in sys.modules
    """
    subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(script)], check=True, cwd=Path.cwd())


def test_large_sets_get_several_shards(gather, tmp_path):
    found = gather(7)
    size = sum(record.image.stat().st_size for record in found.splits["train"]) / 7
    report = store.write(found, name="pets", root=tmp_path, shard_bytes=int(2 * size))
    assert report.shards == {"train": 4}
    assert len(list(report.folder.glob("pets-train.array_record-*"))) == 4
    source = store.open("pets", "train", root=tmp_path)
    assert [source[i].name for i in range(7)] == [f"train{i}.jpg" for i in range(7)]


def test_threads_read_the_same(gather, tmp_path):
    store.write(gather(7), name="pets", root=tmp_path, shard_bytes=1)
    source = store.open("pets", "train", root=tmp_path)
    order = np.random.default_rng(0).integers(0, 7, 300).tolist()
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda i: source[i].name, order))
    assert names == [f"train{i}.jpg" for i in order]


def test_splits_are_added_and_the_old_ones_stay(gather, tmp_path):
    store.write(gather(4), name="pets", root=tmp_path, shard_bytes=1)
    before = content(tmp_path / "pets")
    report = store.write(gather(3, "val"), name="pets", root=tmp_path)
    assert report.shards == {"val": 1}
    after = content(tmp_path / "pets")
    assert {name for name in before if before[name] != after[name]} == {"1.0.0/dataset_info.json"}
    assert [len(store.open("pets", split, root=tmp_path)) for split in ("train", "val")] == [4, 3]
    assert store.open("pets", "val", root=tmp_path)[2].name == "val2.jpg"


def test_nothing_is_overwritten(gather, tmp_path):
    store.write(gather(4), name="pets", root=tmp_path)
    before = content(tmp_path / "pets")
    with pytest.raises(UserError, match="'pets' already has a split 'train'"):
        store.write(gather(2), name="pets", root=tmp_path)
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="mine exists but is no imported set"):
        store.write(gather(2), name="mine", root=tmp_path)
    assert content(tmp_path / "pets") == before
    assert not any((tmp_path / "mine").iterdir())


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("cat", "dog", "mouse"), "only in the new split: 'mouse'; only in the set: 'Zebra ähnlich'"),
        ((*CLASSES, "mouse"), "only in the new split: 'mouse'; choose"),
        (("dog", "cat", "Zebra ähnlich"), "another order"),
    ],
)
def test_added_splits_must_have_the_same_classes(gather, tmp_path, classes, message):
    store.write(gather(4), name="pets", root=tmp_path)
    with pytest.raises(UserError, match=message):
        store.write(gather(4, "val", classes), name="pets", root=tmp_path)


def test_category_ids_are_kept_and_must_agree(gather, tmp_path):
    store.write(gather(category_ids=(1, 5, 90)), name="pets", root=tmp_path)
    store.write(gather(2, "val", category_ids=(1, 5, 90)), name="pets", root=tmp_path)
    assert store.open("pets", "train", root=tmp_path).category_ids == (1, 5, 90)
    with pytest.raises(UserError, match="other category ids"):
        store.write(gather(2, "test", category_ids=(1, 5, 91)), name="pets", root=tmp_path)
    with pytest.raises(UserError, match="other category ids"):
        store.write(gather(2, "test"), name="pets", root=tmp_path)


def test_a_failed_write_leaves_no_trace(gather, tmp_path):
    found = gather()
    found.splits["train"][3].image.unlink()
    with pytest.raises(UserError, match=r"cannot store 'pets' .*train3\.jpg"):
        store.write(found, name="pets", root=tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_a_full_disk_is_an_error(gather, tmp_path):
    found = gather()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"cannot store 'pets' .*too large"):
            store.write(found, name="pets", root=tmp_path / "data")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "data").iterdir()) == []


KILLED = """
    import os, sys
    from pathlib import Path
    from ylosia_jax.data import records, store

    data, when = sys.argv[1:]
    images = sorted((Path(data).parent / "images").glob("val*.jpg"))
    entries = [records.Entry(path.name, path, path.name) for path in images]
    found = records.gather({"val": entries}, ("cat", "dog", "Zebra ähnlich"), source="set")
    if when == "writing":
        rows = store._rows
        store._rows = lambda records: (os._exit(9) if row["name"] == "val2.jpg" else row for row in rows(records))
    else:
        replace = Path.replace
        Path.replace = lambda path, to: os._exit(9) if path.name == "dataset_info.json" else replace(path, to)
    store.write(found, name="pets", root=data)
"""


@pytest.mark.parametrize("when", ["writing", "moving"])
def test_a_killed_write_leaves_what_was_there(gather, tmp_path, when):
    store.write(gather(4), name="pets", root=tmp_path / "data")
    found = gather(4, "val")
    before = content(tmp_path / "data/pets")
    script = textwrap.dedent(KILLED)
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "data"), when], check=False, cwd=Path.cwd())
    assert done.returncode == 9
    after = content(tmp_path / "data/pets")
    assert {name: after[name] for name in before} == before
    assert store.open("pets", "train", root=tmp_path / "data")[3].name == "train3.jpg"
    with pytest.raises(UserError, match="no split 'val'; it has train"):
        store.open("pets", "val", root=tmp_path / "data")
    store.write(found, name="pets", root=tmp_path / "data")
    assert len(store.open("pets", "val", root=tmp_path / "data")) == 4


def test_a_set_changed_in_the_meantime_is_an_error(gather, tmp_path, monkeypatch):
    store.write(gather(2), name="pets", root=tmp_path)
    found, other, rows = gather(2, "val"), gather(2, "test"), store._rows

    def interrupted(records):
        monkeypatch.setattr(store, "_rows", rows)
        store.write(other, name="pets", root=tmp_path)
        return rows(records)

    monkeypatch.setattr(store, "_rows", interrupted)
    with pytest.raises(UserError, match="changed by another import"):
        store.write(found, name="pets", root=tmp_path)
    assert len(store.open("pets", "test", root=tmp_path)) == 2


@pytest.mark.parametrize("name", ["coco-instances", "../x", "1st", "", "a/b", "é"])
def test_set_names_are_plain(gather, tmp_path, name):
    with pytest.raises(UserError, match="cannot be a set's name"):
        store.write(gather(), name=name, root=tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_root(monkeypatch):
    monkeypatch.delenv("YLOSIA_DATA_DIR", raising=False)
    assert store.root() == Path("data")
    monkeypatch.setenv("YLOSIA_DATA_DIR", "/sets")
    assert store.root() == Path("/sets")
    assert store.root("here") == Path("here")


def test_open_takes_a_folder_too(gather, tmp_path, monkeypatch):
    folder = store.write(gather(), name="pets", root=tmp_path / "data").folder
    monkeypatch.setenv("YLOSIA_DATA_DIR", str(tmp_path / "data"))
    for name in ("pets", folder, folder.parent, str(folder)):
        assert len(store.open(name, "train")) == 4


def test_unknown_names_are_errors_that_help(gather, tmp_path):
    with pytest.raises(UserError, match=r"no data set 'pets' in .*: there is none at all; import it with: ylosia data"):
        store.open("pets", "train", root=tmp_path)
    store.write(gather(), name="pets", root=tmp_path)
    store.write(gather(2, "val"), name="cars", root=tmp_path)
    (tmp_path / ".pets-left-over/pets/1.0.0").mkdir(parents=True)
    with pytest.raises(UserError, match=r"there are cars, pets; the nearest is 'pets'; .* --name petz --out"):
        store.open("petz", "train", root=tmp_path)
    with pytest.raises(UserError, match="no split 'trian'; it has train; the nearest is 'train'"):
        store.open("pets", "trian", root=tmp_path)


def test_damage_is_an_error(gather, tmp_path):
    folder = store.write(gather(), name="pets", root=tmp_path).folder
    (shard,) = folder.glob("*.array_record*")
    data = shard.read_bytes()
    shard.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="pets/train is damaged at 0; import it again"):
        store.open("pets", "train", root=tmp_path)[0]
    shard.unlink()
    with pytest.raises(UserError, match="array_record-00000 is missing"):
        store.open("pets", "train", root=tmp_path)
    (folder / "dataset_info.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        store.open("pets", "train", root=tmp_path)


def test_report_tells_what_was_stored(gather, tmp_path):
    found = gather(3)
    extra = records.Imported(found.classes, found.splits, ("x: bad",) * 12, ("y: dropped",) * 12, ("z: clipped",) * 12)
    lines = str(store.write(extra, name="pets", root=tmp_path)).splitlines()
    assert lines[0] == f"3 classes, 1 split in {tmp_path}/pets/1.0.0"
    assert lines[1] == "  train: 3 images (1 without objects), 3 objects, 2 crowd, 1 difficult, 1 shard"
    assert "12 objects without area dropped:" in lines
    assert lines.count("  y: dropped") == 10
    assert lines.count("  z: clipped") == 3
    assert lines.count("  x: bad") == 12
    assert "  … and 2 more" in lines


def encoded(extension: str, pixels: np.ndarray) -> bytes:
    return cv2.imencode(extension, pixels)[1].tobytes()


def with_exif_rotation(data: bytes) -> bytes:
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<HHHIHH", 1, 0x0112, 3, 1, 6, 0) + bytes(4)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff + data[2:]


def check(path: Path, data: bytes) -> records.Record:
    path.write_bytes(data)
    (record,) = records.gather({"x": [records.Entry("e", path, "e")]}, ["cat"], source="set").splits["x"]
    return record


@pytest.mark.parametrize(
    "data",
    [
        encoded(".jpg", picture(0)),
        encoded(".png", picture(0)),
        encoded(".bmp", picture(0)),
        encoded(".jpg", picture(0)[..., 0]),
        encoded(".png", np.dstack([picture(0), picture(1)[..., 0]])),
        encoded(".png", picture(0).astype(np.uint16) * 257),
        cv2.imencode(".jpg", picture(0), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 1])[
            1
        ].tobytes(),
        encoded(".jpg", picture(0)) + b"trailing bytes of a camera",
        with_exif_rotation(encoded(".jpg", picture(0))),
    ],
    ids=["jpeg", "png", "bmp", "grey", "alpha", "16 bit", "progressive", "trailer", "exif"],
)
def test_every_kind_of_image_is_taken_as_its_pixels_are_stored(tmp_path, data):
    record = check(tmp_path / "image", data)
    assert (record.width, record.height) == (32, 24)
    assert images.decode(data).shape == (24, 32, 3)
    cut = [data[: len(data) * part // 8] for part in range(8)]
    for damaged in cut:
        with pytest.raises(UserError, match=r"cut off|empty|no JPEG, PNG or BMP|cannot be decoded"):
            check(tmp_path / "image", damaged)


def test_exif_rotation_is_ignored(tmp_path):
    plain = encoded(".jpg", picture(0))
    rotated = with_exif_rotation(plain)
    turned: Any = cv2.imdecode(np.frombuffer(rotated, np.uint8), cv2.IMREAD_COLOR)
    assert turned.shape == (32, 24, 3)
    assert np.array_equal(images.decode(rotated), images.decode(plain))


def test_images_of_absurd_size_are_refused(tmp_path, monkeypatch):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    with pytest.raises(UserError, match="30000x30000 pixels, more than the limit"):
        check(tmp_path / "image", bomb)
    monkeypatch.setattr(images, "MAX_IMAGE_BYTES", 100)
    with pytest.raises(UserError, match="more than the limit of 100"):
        check(tmp_path / "image", encoded(".png", picture(0)))


def test_bccd_round_trip(shared, tmp_path):
    found = voc.read(shared / "data/bccd")
    store.write(found, name="bccd", root=tmp_path)
    for split, members in found.splits.items():
        source = store.open("bccd", split, root=tmp_path)
        assert source.classes == ("Platelets", "RBC", "WBC")
        assert len(source) == len(members)
        for i, record in enumerate(members):
            example = source[i]
            assert example.name == record.name
            assert example.image.shape == (480, 640, 3)
            for field in ("boxes", "labels", "crowd", "area"):
                assert np.array_equal(getattr(example, field), getattr(record, field))
