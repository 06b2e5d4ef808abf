from pathlib import Path

import pytest

from ylosia_jax.predict import find_images
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
