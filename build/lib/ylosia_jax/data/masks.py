"""Reads folders of images and PNG masks.

Two layouts are known, told apart by where the images lie:

- `images/<stem>.*` and `masks/<stem>.png`: one map an image. Its values are semantic classes, or with `instances` the
  numbers of single objects, 0 the background.
- `<name>/images/*` and `<name>/masks/*.png`, in the folder or one below it: a folder an image, one PNG an object, not 0
  inside. An image without objects has an empty `masks/`.

Splits are lists `<split>.txt` in the folder itself, a line the stem or the name of an image, or the folder it is alone
in; without any list all is one split, `train`.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ylosia_jax import rle
from ylosia_jax.data import records
from ylosia_jax.data.images import read_numbers
from ylosia_jax.files import read_bytes
from ylosia_jax.types import VOID, UserError

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
_LISTS = ("train", "val", "valid", "validation", "test", "trainval")


def read(
    folder: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    instances: bool = False,
    void: int | None = None,
    skip_bad: bool = False,
) -> records.Imported:
    """Reads and checks a folder; see `records.gather` for what is checked.

    Args:
      folder: in one of the two layouts.
      classes: of semantic maps the names: of the values from 0 on where none is beyond them, also of those that do not
        occur; else of the values that occur, in their order, which is then noted. By default the values themselves. Of
        objects the one class's name, by default `object`.
      instances: the maps of the first layout number single objects.
      void: value of the pixels of semantic maps that nobody says the class of, 255 in many sets; None for none.
      skip_bad: leave out images with anything wrong and import the rest; see `bad` of the result.

    Raises:
      UserError: if the folder has neither layout, or if anything is wrong, listing the first ten things.
    """
    folder = Path(folder)
    flat = (folder / "images").is_dir() and (folder / "masks").is_dir()
    found = sorted((folder / "images").iterdir() if flat else folder.glob("*/*/images/*"))
    found += [] if flat else sorted(folder.glob("*/images/*"))
    images: dict[str, Path] = {}
    for path in (path for path in found if path.suffix.lower() in _SUFFIXES):
        name = path.stem if flat else path.parents[1].name
        if name in images:
            raise UserError(f"{images[name]} and {path} are both called {name!r}: rename one")
        images[name] = path
    if not images:
        raise UserError(
            f"{folder} has no images: expected images/ beside masks/, or folders with one image in images/ and its "
            "objects in masks/"
        )
    splits = _splits(folder, images)
    notes = _left_out(folder, images, splits, flat)
    if flat and not instances:
        return _semantic(folder, images, splits, classes, void, skip_bad, notes)
    if void is not None:
        raise UserError(f"{folder}: its masks are of single objects, in which no value is void: leave --void out")
    names = tuple(classes or ("object",))
    if len(names) != 1:
        raise UserError(f"{folder}: its masks say not which class each object is of; give one class, not {len(names)}")
    entries = {name: _objects(path, name, flat, names[0]) for name, path in images.items()}
    chosen = {split: [entries[name] for name in listed] for split, listed in splits.items()}
    return records.gather(chosen, names, source=folder, skip_bad=skip_bad, notes=notes)


def _left_out(folder: Path, images: dict[str, Path], splits: dict[str, list[str]], flat: bool) -> list[str]:
    """What is there and is not imported."""
    listed = {name for names in splits.values() for name in names}
    masks = (folder / "masks").glob("*.png") if flat else ()
    notes: list[str] = []
    for lost, what in (
        ([name for name in images if name not in listed], "in no list"),
        (sorted(path.name for path in masks if path.stem not in images), "a mask without an image"),
    ):
        if lost:
            notes.append(f"{folder}: {records.count(len(lost), 'file')} left out, {what}: {', '.join(lost[:5])}")
    return notes


def _splits(folder: Path, images: dict[str, Path]) -> dict[str, list[str]]:
    splits: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*.txt")):
        text = read_bytes(path, 1 << 30).decode("utf-8-sig", errors="replace")
        lines = [_name(line) for line in text.splitlines() if line.strip()]
        known = [line in images for line in lines]
        # Other texts, a licence or a read-me, lie in such folders too.
        if lines and (any(known) or path.stem in _LISTS):
            if not all(known):
                raise UserError(f"{path}: there is no image of {lines[known.index(False)]!r}; mend the list")
            splits[path.stem] = lines
    return splits or {"train": list(images)}


def _name(line: str) -> str:
    """What a line of a list calls an image, without its folder and suffix; dots within the name stay."""
    path = Path(line.strip())
    return path.stem if path.suffix.lower() in _SUFFIXES else path.name


def _semantic(
    folder: Path,
    images: dict[str, Path],
    splits: dict[str, list[str]],
    classes: Sequence[str] | None,
    void: int | None,
    skip_bad: bool,
    notes: list[str],
) -> records.Imported:
    listed = [stem for stems in splits.values() for stem in stems]
    values: set[int] = set()
    bad: dict[str, str] = {}
    for stem in dict.fromkeys(listed):
        try:
            values |= set(np.unique(_map(folder / "masks" / f"{stem}.png")).tolist())
        except (OSError, ValueError) as error:
            bad[stem] = str(error)
    order = sorted(values - {void})
    names = tuple(classes) if classes else tuple(str(value) for value in order)
    if classes and order and order[-1] < len(names):
        order = list(range(len(names)))
    elif classes:
        told = ", ".join(f"{value} is {name!r}" for value, name in zip(order, names, strict=False))
        notes.append(f"{folder}: of the values {told}")
    if void is not None and void not in values:
        notes.append(f"{folder}: no pixel has the value {void}, which --void says is of no class")
    if len(names) != len(order) or len(order) > VOID or order[-1:] > [255]:
        raise UserError(
            f"{folder}: its maps hold the values {order[:20]}, but {len(names)} classes are named; name one for each "
            f"of at most {VOID} values below 256, say with --void which value is of no class, or pass --instances if "
            "they number single objects"
        )
    table = np.full(256, VOID, np.uint8)
    table[order] = np.arange(len(order))
    entries: dict[str, records.Entry] = {}
    for stem, path in images.items():
        png = folder / "masks" / f"{stem}.png"
        entries[stem] = records.Entry(
            where=str(png),
            image=path,
            name=path.name,
            bad=[bad[stem]] if stem in bad else (),
            semantic=None if stem in bad else lambda png=png: table[_map(png)],
        )
    chosen = {split: [entries[stem] for stem in stems] for split, stems in splits.items()}
    return records.gather(chosen, (), source=folder, skip_bad=skip_bad, stuff=names, notes=notes)


def _objects(path: Path, name: str, flat: bool, label: str) -> records.Entry:
    """An image with its objects, all of one class."""
    place = path.parents[1] / "masks"
    where = str(place / f"{name}.png") if flat else str(place)
    objects: list[records.Object] = []
    bad: list[str] = []
    try:
        if flat:
            numbers = _map(place / f"{name}.png")
            masks = {str(number): numbers == number for number in np.unique(numbers[numbers > 0]).tolist()}
        elif not place.is_dir():
            raise ValueError("the folder is missing: if nothing is in the image, make it an empty one")
        else:
            masks = {png.name: _map(png) > 0 for png in sorted(place.glob("*.png"))}
        for what, mask in masks.items():
            objects.append(_object(what, mask, label))
    except (OSError, ValueError) as error:
        bad.append(str(error))
    return records.Entry(where, path, name + path.suffix, objects, bad=bad)


def _object(what: str, mask: np.ndarray, name: str) -> records.Object:
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    drawn: Any = {"size": list(mask.shape), "counts": rle.encode(mask)}
    return records.Object(
        f"object {what}", name, (x, y, x + w, y + h), area=float(np.count_nonzero(mask)), segmentation=drawn
    )


def _map(path: Path) -> np.ndarray:
    """[H, W] of numbers."""
    image = read_numbers(path, indices=True)
    if image.ndim == 3 and (image[..., :1] == image[..., :3]).all():
        image = image[..., 0]  # grey that was saved as colour
    if image.ndim != 2 or image.dtype.name not in ("uint8", "uint16"):
        raise ValueError(f"{path}: it is no PNG of one channel")
    return image
