from pathlib import Path

import cv2
import numpy as np
import pytest

from ylosia_jax.cli import main
from ylosia_jax.data import folders, records, store
from ylosia_jax.types import UserError


def picture(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def test_a_split_a_folder(tmp_path: Path) -> None:
    for i, name in enumerate(("train/cat/1.png", "train/dog/1.png", "train/dog/2.JPEG", "val/dog/1.png")):
        picture(tmp_path / "in" / name, i)  # what a file is, its content says
    picture(tmp_path / "in/train/.thumbnails/1.png")
    (tmp_path / "in/train/cat/notes.txt").write_text("")
    (tmp_path / "in/README.md").write_text("pets")
    found = folders.read(tmp_path / "in")
    assert (found.classes, found.labels) == (("cat", "dog"), {"category"})
    assert "train/cat: 1 file or folder beside the images left out" in found.notes[0]
    assert found.notes[1:] == ("split 'val' has no image of cat",)
    store.write(found, name="pets", root=tmp_path)
    source = store.open("pets", "train", root=tmp_path)
    seen = [(source[i].name, source[i].category) for i in range(len(source))]
    assert seen == [("cat/1.png", 0), ("dog/1.png", 1), ("dog/2.JPEG", 1)]
    first = cv2.imread(str(tmp_path / "in/train/cat/1.png"))
    np.testing.assert_array_equal(source[0].image, first[..., ::-1])
    assert store.open("pets", "val", root=tmp_path)[0].category == 1


def test_classes_alone_are_one_split_in_the_order_that_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "cat/1.png")
    picture(tmp_path / "dog/1.png")
    assert {split: len(x) for split, x in folders.read(tmp_path).splits.items()} == {"train": 2}
    found = folders.read(tmp_path, classes=["dog", "cow", "cat"])
    assert [record.category for record in found.splits["train"]] == [2, 0]
    assert found.notes == ("split 'train' has no image of cow",)
    with pytest.raises(UserError, match="class 'dog' is not in the list; the nearest is 'dogs'"):
        folders.read(tmp_path, classes=["dogs", "cat"])


def test_another_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder"):
        folders.read(tmp_path / "none")
    with pytest.raises(UserError, match="has no images: expected <split>/<class>/<image>"):
        folders.read(tmp_path)
    picture(tmp_path / "train/cat/1.png")
    picture(tmp_path / "dog/1.png")
    with pytest.raises(UserError, match="dog holds images, as a class does, but train folders of them"):
        folders.read(tmp_path)


def test_damaged_images_are_named_or_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(tmp_path / "in/cat/1.png")
    picture(tmp_path / "in/dog/1.png")
    (tmp_path / "in/dog/2.png").write_bytes(b"")
    command = ["data", "import", "folders", str(tmp_path / "in"), "--name", "pets", "--out", str(tmp_path)]
    assert main(command) == 2
    assert "dog/2.png: the file is empty" in capsys.readouterr().err
    assert main(["data", "check", "folders", str(tmp_path / "in")]) == 1
    assert main([*command, "--skip-bad"]) == 1
    assert len(store.open("pets", "train", root=tmp_path)) == 2


def test_objects_beside_a_category_make_boxes_known(tmp_path: Path) -> None:
    picture(tmp_path / "1.png")
    thing = records.Object("object 1", "dog", (1, 2, 8, 9))
    for objects, labels in (((), {"category"}), ((thing,), {"box", "category"})):
        entry = records.Entry("e", tmp_path / "1.png", "1.png", objects, category="cat")
        assert records.gather({"train": [entry]}, ["cat", "dog"], source="x").labels == labels
    bare = records.Entry("e", tmp_path / "1.png", "1.png")
    found = records.gather({"train": [bare]}, ["cat", "dog"], source="x")
    assert found.labels == {"box"}
    assert found.splits["train"][0].category == -1
