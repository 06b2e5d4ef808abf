import gzip
import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from ylosia_jax.cli import main
from ylosia_jax.data import idx, store
from ylosia_jax.data.pipeline import Needs, prepare
from ylosia_jax.types import UserError

IMAGES, LABELS = "{}-images-idx3-ubyte", "{}-labels-idx1-ubyte"


def packed(array: np.ndarray, magic: int | None = None) -> bytes:
    head = 0x0800 + array.ndim if magic is None else magic
    return struct.pack(f">I{array.ndim}I", head, *array.shape) + array.astype(np.uint8).tobytes()


def digits(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 7, 9), np.uint8), np.arange(count) % 3


def write(folder: Path, split: str, images: np.ndarray, labels: np.ndarray, suffix: str = "") -> None:
    folder.mkdir(exist_ok=True)
    pack = gzip.compress if suffix else bytes
    (folder / (IMAGES.format(split) + suffix)).write_bytes(pack(packed(images)))
    (folder / (LABELS.format(split) + suffix)).write_bytes(pack(packed(labels)))


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_splits_come_back_as_they_were(tmp_path: Path, suffix: str) -> None:
    both = {"train": digits(12), "t10k": digits(5, seed=1)}
    for split, arrays in both.items():
        write(tmp_path / "in", split, *arrays, suffix)
    (tmp_path / "in" / "README.md").write_text("digits")
    found = idx.read(tmp_path / "in")
    assert (found.classes, found.labels) == (("0", "1", "2"), {"category"})
    assert "12 images, 12 with a category, 1 shard" in str(store.write(found, name="digits", root=tmp_path))
    for split, (images, labels) in both.items():
        source = store.open("digits", split, root=tmp_path)
        assert (source.labels, len(source)) == ({"category"}, len(images))
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            example = source[i]
            # Grey in the file, RGB to a network, and not a bit lost.
            np.testing.assert_array_equal(example.image, np.repeat(image[..., None], 3, axis=-1))
            assert (example.category, len(example.boxes)) == (label, 0)
    assert store.open("digits", "train", root=tmp_path)[3].name == "03.png"


def test_a_batch_has_the_category_where_it_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "in", "train", *digits(3))
    store.write(idx.read(tmp_path / "in"), name="digits", root=tmp_path)
    example = store.open("digits", "train", root=tmp_path)[2]
    assert prepare(example, 2, 0, (32, 32), 4).category is None
    category = prepare(example, 2, 0, (32, 32), 4, Needs(categories=True)).category
    assert category == 2
    assert np.asarray(category).dtype == np.int32


def test_classes_can_be_named(tmp_path: Path) -> None:
    write(tmp_path, "train", *digits(4))
    assert idx.read(tmp_path, classes=["zero", "one", "two", "three"]).classes == ("zero", "one", "two", "three")
    with pytest.raises(UserError, match="labels run from 0 to 2, but 2 classes are named"):
        idx.read(tmp_path, classes=["zero", "one"])


def test_more_splits_are_added_and_old_sets_have_no_category(tmp_path: Path) -> None:
    write(tmp_path / "a", "train", *digits(4))
    write(tmp_path / "b", "val", *digits(6))
    store.write(idx.read(tmp_path / "a"), name="digits", root=tmp_path)
    store.write(idx.read(tmp_path / "b"), name="digits", root=tmp_path)
    assert len(store.open("digits", "val", root=tmp_path)) == 6
    # A set of the layout before categories says nothing of them, neither in its index nor in its records.
    folder = tmp_path / "digits/1.0.0"
    metadata = folder / "metadata.json"
    metadata.write_text(json.dumps({**json.loads(metadata.read_text()), "labels": ["box"]}))
    features = json.loads((folder / "features.json").read_text())
    del features["featuresDict"]["features"]["category"]
    (folder / "features.json").write_text(json.dumps(features))
    assert store.open("digits", "val", root=tmp_path)[1].category is None


def big(shape: tuple[int, ...]) -> bytes:
    return struct.pack(">I3I", 0x0803, *shape)


GOOD = packed(digits(4)[0])
DAMAGED = [
    (b"", "the file is empty"),
    (packed(digits(4)[0], 0x0D03), "it begins with 00000d03, an IDX file of bytes with 3 axes with 00000803"),
    (packed(digits(4)[1]), "it begins with 00000801, an IDX file of bytes with 3 axes"),
    (GOOD[:10], "the header is cut off"),
    (GOOD[:-1], "it is cut off: 4x7x9 are 252 bytes, it has 251"),
    (GOOD + b"\0", "it goes on after its 252 bytes, 4x7x9"),
    (packed(digits(3)[0]), "has 3 images, but .*labels.* 4 labels: they are not of one set"),
    (big((0, 28, 28)), "it is 0x28x28: there is nothing in it"),
    (big((4, 0, 28)), "it is 4x0x28: there is nothing in it"),
    (big((2**32 - 1, 2**32 - 1, 2**32 - 1)), "beyond the limits"),
    (big((1, 1, 2**20)), "beyond the limits"),
    (big((2**20, 2**7, 2**3)), "it is cut off"),
]


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(("data", "message"), DAMAGED)
def test_what_is_wrong_with_a_file_is_named(tmp_path: Path, data: bytes, message: str, suffix: str) -> None:
    write(tmp_path, "train", *digits(4), suffix)
    path = tmp_path / (IMAGES.format("train") + suffix)
    path.write_bytes(gzip.compress(data) if suffix else data)
    with pytest.raises(UserError, match=f"{re.escape(str(path))}.*{message}"):
        idx.read(tmp_path)


@pytest.mark.parametrize("cut", [5, 18, 100, -1])
def test_a_damaged_gzip_file_is_named(tmp_path: Path, cut: int) -> None:
    write(tmp_path, "train", *digits(4), ".gz")
    path = tmp_path / (IMAGES.format("train") + ".gz")
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    with pytest.raises(UserError, match=r"ubyte.gz: (it is no whole gzip file|the file is empty|.* cut off)"):
        idx.read(tmp_path)
    path.write_bytes(whole[:-6] + bytes([whole[-6] ^ 1]) + whole[-5:])  # in the checksum
    with pytest.raises(UserError, match="it is no whole gzip file"):
        idx.read(tmp_path)
    path.write_bytes(GOOD)
    with pytest.raises(UserError, match="it is no whole gzip file"):
        idx.read(tmp_path)


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    import resource

    write(tmp_path, "train", *digits(4), ".gz")
    with gzip.open(tmp_path / (IMAGES.format("train") + ".gz"), "wb", compresslevel=1) as file:
        file.write(GOOD)
        for _ in range(256):
            file.write(bytes(1 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match="it goes on after its 252 bytes"):
        idx.read(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


def test_files_must_be_in_pairs_and_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no IDX files: expected <split>-images-idx3-ubyte"):
        idx.read(tmp_path)
    write(tmp_path, "train", *digits(4))
    (tmp_path / LABELS.format("train")).rename(tmp_path / "x")
    with pytest.raises(UserError, match="train-labels-idx1-ubyte: the file is missing"):
        idx.read(tmp_path)
    write(tmp_path, "train", *digits(4))
    write(tmp_path, "train", *digits(4), ".gz")
    with pytest.raises(UserError, match=r"ubyte, .*ubyte.gz: which of them is meant\? Keep one"):
        idx.read(tmp_path)
    with pytest.raises(UserError, match="is no folder"):
        idx.read(tmp_path / "x")


def test_a_damaged_split_can_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "train", *digits(4))
    command = ["data", "import", "idx", str(tmp_path), "--out", str(tmp_path / "sets"), "--skip-bad", "--name"]
    write(tmp_path, "val", digits(4)[0], digits(3)[1])
    assert main([*command, "a"]) == 1
    assert "left out" in capsys.readouterr().out
    assert main(["data", "check", "idx", str(tmp_path)]) == 1
    assert "4 good images, 3 classes; 1 errors" in capsys.readouterr().out
    (tmp_path / IMAGES.format("train")).write_bytes(b"")
    assert main([*command, "b"]) == 2
    assert "has no image to import, because all are bad" in capsys.readouterr().err


@pytest.mark.slow
def test_the_shared_digits_are_read_whole(shared: Path, tmp_path: Path) -> None:
    found = idx.read(shared / "data/mnist-subset")
    assert {split: len(members) for split, members in found.splits.items()} == {"train": 5000, "val": 1000}
    assert found.classes == tuple("0123456789")
    store.write(found, name="mnist", root=tmp_path)
    source = store.open("mnist", "train", root=tmp_path)
    assert [source[i].category for i in range(10)] == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]  # as MNIST begins
    assert source[0].image.shape == (28, 28, 3)
