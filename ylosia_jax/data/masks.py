"""Reads folders of images and PNG masks.

Two layouts are known, told apart by where the images lie:

- `images/<stem>.*` and `masks/<stem>.png`: one map an image. Its values are semantic classes, or with `instances` the
  numbers of single objects, 0 the background.
- `**/images/<stem>.*` and, beside that `images/`, `masks/*.png`: a folder an image, one PNG an object, not 0 inside.

Splits are lists `<split>.txt` in the folder itself, a stem a line; without any list all is one split, `train`.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ylosia_jax import rle
from ylosia_jax.data import records
from ylosia_jax.data.images import MAX_IMAGE_BYTES
from ylosia_jax.files import read_bytes
from ylosia_jax.types import VOID, UserError

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")


def read(
    folder: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    instances: bool = False,
    skip_bad: bool = False,
) -> records.Imported:
    """Reads and checks a folder; see `records.gather` for what is checked.

    Args:
      folder: in one of the two layouts.
      classes: of semantic maps the names, in the order of the values that occur; by default the values themselves. Of
        objects the one class's name, by default `object`.
      instances: the maps of the first layout number single objects.
      skip_bad: leave out images with anything wrong and import the rest; see `bad` of the result.

    Raises:
      UserError: if the folder has neither layout, or if anything is wrong, listing the first ten things.
    """
    folder = Path(folder)
    flat = (folder / "images").is_dir() and (folder / "masks").is_dir()
    found = sorted((folder / "images").iterdir() if flat else folder.glob("*/*/images/*"))
    found += [] if flat else sorted(folder.glob("*/images/*"))
    images = {path.stem: path for path in found if path.suffix.lower() in _SUFFIXES}
    if not images:
        raise UserError(
            f"{folder} has no images: expected images/ beside masks/, or folders with one image in images/ and its "
            "objects in masks/"
        )
    splits = _splits(folder, images)
    if flat and not instances:
        return _semantic(folder, images, splits, classes, skip_bad)
    names = tuple(classes or ("object",))
    if len(names) != 1:
        raise UserError(f"{folder}: its masks say not which class each object is of; give one class, not {len(names)}")
    entries = {stem: _objects(path, flat, names[0]) for stem, path in images.items()}
    chosen = {split: [entries[stem] for stem in stems] for split, stems in splits.items()}
    return records.gather(chosen, names, source=folder, skip_bad=skip_bad)


def _splits(folder: Path, images: dict[str, Path]) -> dict[str, list[str]]:
    splits: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*.txt")):
        text = read_bytes(path, 1 << 30).decode("utf-8-sig", errors="replace")
        lines = [Path(line.strip()).stem for line in text.splitlines() if line.strip()]
        known = [line in images for line in lines]
        if lines and any(known):
            if not all(known):
                raise UserError(f"{path}: there is no image of {lines[known.index(False)]!r}; mend the list")
            splits[path.stem] = lines
    return splits or {"train": list(images)}


def _semantic(
    folder: Path, images: dict[str, Path], splits: dict[str, list[str]], classes: Sequence[str] | None, skip_bad: bool
) -> records.Imported:
    listed = [stem for stems in splits.values() for stem in stems]
    values: set[int] = set()
    bad: dict[str, str] = {}
    for stem in dict.fromkeys(listed):
        try:
            values |= set(np.unique(_map(folder / "masks" / f"{stem}.png")).tolist())
        except (OSError, ValueError) as error:
            bad[stem] = str(getattr(error, "strerror", None) or error)
    order = sorted(values)
    names = tuple(classes) if classes else tuple(str(value) for value in order)
    if len(names) != len(order) or len(order) > VOID or order[-1:] > [255]:
        raise UserError(
            f"{folder}: its maps hold the values {order[:20]}, but {len(names)} classes are named; name one for each "
            f"of at most {VOID} values below 256, or pass --instances if they number single objects"
        )
    table = np.full(256, VOID, np.uint8)
    table[order] = np.arange(len(order))
    entries: dict[str, records.Entry] = {}
    for stem, path in images.items():
        png = folder / "masks" / f"{stem}.png"
        entries[stem] = records.Entry(
            where=str(png),
            path=path,
            name=path.name,
            bad=[bad[stem]] if stem in bad else (),
            semantic=None if stem in bad else lambda png=png: table[_map(png)],
        )
    chosen = {split: [entries[stem] for stem in stems] for split, stems in splits.items()}
    return records.gather(chosen, (), source=folder, skip_bad=skip_bad, stuff=names)


def _objects(path: Path, flat: bool, name: str) -> records.Entry:
    """An image with its objects."""
    place = path.parents[1] / "masks"
    where = str(place / f"{path.stem}.png") if flat else str(place)
    objects: list[records.Object] = []
    bad: list[str] = []
    try:
        if flat:
            numbers = _map(place / f"{path.stem}.png")
            masks = {str(number): numbers == number for number in np.unique(numbers[numbers > 0]).tolist()}
        else:
            masks = {png.name: _map(png) > 0 for png in sorted(place.glob("*.png"))}
        for what, mask in masks.items():
            objects.append(_object(what, mask, name))
    except (OSError, ValueError) as error:
        bad.append(str(getattr(error, "strerror", None) or error))
    return records.Entry(where, path, path.name, objects, bad=bad)


def _object(what: str, mask: np.ndarray, name: str) -> records.Object:
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    drawn: Any = {"size": list(mask.shape), "counts": rle.encode(mask)}
    return records.Object(
        f"object {what}", name, (x, y, x + w, y + h), area=float(np.count_nonzero(mask)), segmentation=drawn
    )


def _map(path: Path) -> np.ndarray:
    """[H, W] of numbers."""
    image = cv2.imdecode(np.frombuffer(read_bytes(path, MAX_IMAGE_BYTES), np.uint8), cv2.IMREAD_UNCHANGED)
    if image is not None and image.ndim == 3 and (image[..., :1] == image[..., :3]).all():
        image = image[..., 0]  # grey that was saved as colour
    if image is None or image.ndim != 2 or image.dtype.name not in ("uint8", "uint16"):
        raise ValueError(f"{path} is no PNG of one channel")
    return image
