import io
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ylosia_jax.predict import STDIN, Labels, Result, find_images, name_of, predict_files, read_image
from ylosia_jax.types import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "notes.txt", "sub/c.jpeg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


def test_files_folders_and_globs_are_found_in_order_and_once(folder: Path) -> None:
    assert find_images([str(folder)]) == [folder / "a.PNG", folder / "b.jpg"]
    assert find_images([str(folder / "**" / "*.jp*g")]) == [folder / "b.jpg", folder / "sub" / "c.jpeg"]
    assert find_images([str(folder / "b.jpg"), str(folder)]) == [folder / "b.jpg", folder / "a.PNG"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("b.jgp", r"b.jgp: no such file or folder; did you mean .*b.jpg\?"),
        ("none/x.jpg", "x.jpg: no such file or folder"),
        ("*.gif", "no image in it"),
    ],
)
def test_what_is_not_there_is_named(folder: Path, source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_images([str(folder / source)])
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match="no image in it"):
        find_images([str(folder / "empty")])


MEANING = Labels(("cat",), ("sky",))


def guess(path: Path) -> Result:
    """Stands in for a model: sky everywhere."""
    nothing = np.zeros(0)
    image = read_image(path)
    return Result(
        image=image,
        name=name_of(path),
        boxes=np.zeros((0, 4)),
        scores=nothing,
        labels=nothing.astype(int),
        meaning=MEANING,
        semantic=np.ones(image.shape[:2], np.uint8),
    )


guess.meaning = MEANING


def png() -> bytes:
    return cv2.imencode(".png", np.zeros((8, 9, 3), np.uint8))[1].tobytes()


def test_inputs_that_differ_in_their_suffixes_keep_them(tmp_path: Path) -> None:
    sources = [tmp_path / "in" / name for name in ("x.png", "x.bmp", "y.bmp")]
    sources[0].parent.mkdir()
    for path in sources:
        path.write_bytes(png())  # what a file is, its content says
    model: Any = guess
    assert predict_files(model, sources, tmp_path / "out") == []
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    maps = {f"semantic/{name}.png" for name in ("x.png", "x.bmp", "y")}
    assert found == maps | {"x.png", "x.bmp.png", "y.png", "predictions.json", "semantic.json"}
    legend = json.loads((tmp_path / "out" / "semantic.json").read_text())
    assert [entry["file_name"] for entry in legend["annotations"]] == ["x.png.png", "x.bmp.png", "y.png"]
    assert legend["categories"][1] == {"id": 2, "name": "sky", "isthing": 0}
    with pytest.raises(UserError, match=r"two inputs are called x\.png"):
        predict_files(model, [sources[0], tmp_path / "x.png"], tmp_path / "out")


def test_standard_input_is_one_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_images(["-"]) == [STDIN]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(png())))
    model: Any = guess
    predict_files(model, [STDIN], tmp_path)
    assert (tmp_path / "stdin.png").exists()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(UserError, match="-: the file is empty"):
        predict_files(model, [STDIN], tmp_path)


def test_a_picture_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    with pytest.raises(UserError, match=r"b.foo: cannot write this format; use .png or .jpg"):
        guess(tmp_path / "a.png").save(tmp_path / "b.foo")
