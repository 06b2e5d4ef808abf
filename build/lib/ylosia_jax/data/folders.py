"""Reads folders of images by class, as ImageNet's are laid out.

`<split>/<class>/<image>`, or `<class>/<image>` for one split, `train`. Images are JPEG, PNG or BMP files; they are
stored under the name `<class>/<image>`, since two classes may both have a 1.jpg. What begins with a dot is passed over.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from ylosia_jax.data import records
from ylosia_jax.types import UserError

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")


def read(
    folder: str | os.PathLike[str], *, classes: Sequence[str] | None = None, skip_bad: bool = False
) -> records.Imported:
    """Reads and checks every split of a folder; see `records.gather` for what is checked.

    Args:
      folder: in one of the two layouts.
      classes: names in label order; by default those of the folders, sorted.
      skip_bad: leave out images with anything wrong and import the rest; see `bad` of the result.

    Raises:
      UserError: if the folder has neither layout, or if anything is wrong, listing the first ten things.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: name the one that holds the classes' folders, or the splits'")
    inner = _folders(folder)
    flat = [path for path in inner if _images(path)]
    deep = [path for path in inner if any(_images(below) for below in _folders(path))]
    if flat and deep:
        raise UserError(
            f"{folder}: {flat[0].name} holds images, as a class does, but {deep[0].name} folders of them, as a split "
            "does: keep to <split>/<class>/<image> or <class>/<image>"
        )
    if not flat and not deep:
        raise UserError(f"{folder} has no images: expected <split>/<class>/<image> or <class>/<image>")
    found = {path.name: _folders(path) for path in deep} or {"train": inner}
    names = classes or sorted({path.name for members in found.values() for path in members})
    splits: dict[str, list[records.Entry]] = {}
    notes: list[str] = []
    for split, members in found.items():
        splits[split] = [entry for path in members for entry in _entries(path, notes)]
        if missing := sorted({*names} - {entry.category for entry in splits[split]}):
            notes.append(f"split {split!r} has no image of {', '.join(missing)}")
    return records.gather(splits, names, source=folder, skip_bad=skip_bad, notes=notes)


def _entries(folder: Path, notes: list[str]) -> list[records.Entry]:
    """A class's images."""
    paths = _images(folder)
    if others := len([path for path in folder.iterdir() if not path.name.startswith(".")]) - len(paths):
        notes.append(
            f"{folder}: {records.count(others, 'file or folder', 'files or folders')} beside the images left out"
        )
    return [records.Entry(str(path), path, f"{folder.name}/{path.name}", category=folder.name) for path in paths]


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")
    )
