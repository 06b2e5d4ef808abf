"""Reads folders in Pascal VOC's layout (The PASCAL Visual Object Classes Challenge, devkit documentation, section 3).

`Annotations/<stem>.xml`, `JPEGImages/<stem>.jpg` and the split lists `ImageSets/Main/<split>.txt`, a stem a line.
The stem alone ties them together: the XML's `filename`, `folder` and `path` are often wrong and are not looked at.

An object marked `difficult` is stored as such. VOC's evaluation ignores it, neither rewarding nor punishing its
detection, so a stored set hands it out as `crowd`: no training target, no background, ignored when scored.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from defusedxml import ElementTree

from ylosia_jax.data import records
from ylosia_jax.files import read_bytes
from ylosia_jax.types import UserError

MAX_XML_BYTES = 16 << 20

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
_PER_CLASS_LINE = re.compile(r"\S+\s+[+-]?[01]")  # `aeroplane_train.txt` has a stem and -1, 0 or 1


def read(
    folder: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    one_based: bool = False,
    skip_bad: bool = False,
) -> records.Imported:
    """Reads and checks every split of a VOC folder; see `records.gather` for what is checked.

    Args:
      folder: that holds `Annotations/`, `JPEGImages/` and `ImageSets/Main/`.
      classes: names in label order; by default those that occur, sorted.
      one_based: the corners are 1-based indices of the first and last pixel, as in the challenge's own sets, so that
        1 is taken from xmin and ymin. By default they are taken as they stand, as positions between pixels: most sets
        of this layout come from labelling tools that write those.
      skip_bad: leave out images with anything wrong and import the rest; see `bad` of the result.

    Raises:
      UserError: if the folder has not the layout, or if anything is wrong, listing the first ten things.
    """
    folder = Path(folder)
    annotations, images = _index(folder / "Annotations", (".xml",)), _index(folder / "JPEGImages", _IMAGE_SUFFIXES)
    lists, notes = _splits(folder / "ImageSets" / "Main")
    stems = dict.fromkeys(stem for members in lists.values() for stem in members)
    entries = {stem: _entry(folder, stem, annotations, images, one_based) for stem in stems}
    if unlisted := len(annotations.keys() - stems.keys()):
        notes.append(f"{unlisted} annotated images stand in no split list and were not imported")
    names = sorted({item.name for entry in entries.values() for item in entry.objects}) if classes is None else classes
    splits = {split: [entries[stem] for stem in members] for split, members in lists.items()}
    return records.gather(splits, names, source=folder, skip_bad=skip_bad, notes=notes)


def _index(folder: Path, suffixes: Sequence[str]) -> dict[str, list[Path]]:
    """Stem -> its files. Names from the lists are only looked up here, so none can lead out of the folder."""
    if not folder.is_dir():
        raise UserError(f"{folder} is missing: a VOC set has Annotations/, JPEGImages/ and ImageSets/Main/")
    index: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes:
            index.setdefault(path.stem, []).append(path)
    return index


def _splits(folder: Path) -> tuple[dict[str, list[str]], list[str]]:
    """Split -> its stems, and notes on lists that are passed over."""
    splits, notes = {}, []
    for path in sorted(folder.glob("*.txt")):
        try:
            text = read_bytes(path, 1 << 30).decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read as a split list: {error}") from error
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if not lines:
            notes.append(f"{path} is empty and makes no split")
        elif not all(_PER_CLASS_LINE.fullmatch(line) for line in lines):
            splits[path.stem] = lines
    if not splits:
        raise UserError(f"{folder} has no split list; write train.txt, val.txt, … with a file stem a line")
    return splits, notes


def _entry(
    folder: Path, stem: str, annotations: dict[str, list[Path]], images: dict[str, list[Path]], one_based: bool
) -> records.Entry:
    xml, image = annotations.get(stem, []), images.get(stem, [])
    if not image or not xml:
        missing = folder / "JPEGImages" / f"{stem}.jpg" if not image else folder / "Annotations" / f"{stem}.xml"
        return records.Entry(str(missing), None, stem, bad=["the split lists name it, but it is missing"])
    if len(image) > 1 or len(xml) > 1:
        files = ", ".join(map(str, image if len(image) > 1 else xml))
        return records.Entry(files, None, stem, bad=["which of them is meant? Keep one"])
    where, name = str(xml[0]), image[0].name
    try:
        data = read_bytes(xml[0], MAX_XML_BYTES)
        if not data.strip():
            raise ValueError("the annotation is empty; for an image without objects write <annotation/>")
        tree = ElementTree.fromstring(data, forbid_dtd=True)
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        return records.Entry(where, None, name, bad=[f"cannot be read: {error}"])
    if tree.tag != "annotation":
        return records.Entry(where, None, name, bad=[f"is no VOC annotation: it begins with <{tree.tag}>"])
    objects, bad, size = [], [], None
    try:
        size = _numbers(tree, "size", ("width", "height")) if tree.find("size") is not None else (0.0, 0.0)
    except ValueError as error:
        bad.append(f"size: {error}")
    for number, element in enumerate(tree.findall("object"), 1):
        try:
            objects.append(_object(element, number, one_based))
        except ValueError as error:
            bad.append(f"object {number}: {error}")
    # Some tools write 0 where they do not know the size.
    sides = (int(size[0]), int(size[1])) if size and any(size) else None
    return records.Entry(where, image[0], name, objects, sides, bad=bad)


def _object(element, number: int, one_based: bool) -> records.Object:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise ValueError("it has no name")
    x0, y0, x1, y1 = _numbers(element, "bndbox", ("xmin", "ymin", "xmax", "ymax"))
    difficult = (element.findtext("difficult") or "0").strip()
    if difficult not in ("0", "1"):
        raise ValueError(f"difficult is {difficult!r}, not 0 or 1")
    box = (x0 - one_based, y0 - one_based, x1, y1)
    return records.Object(f"object {number} ({name})", name, box, difficult=difficult == "1")


def _numbers(element, tag: str, fields: Sequence[str]) -> tuple[float, ...]:
    values = []
    for field in fields:
        text = element.findtext(f"{tag}/{field}")
        try:
            values.append(float(text))
        except (TypeError, ValueError):
            raise ValueError(f"{field} is missing" if text is None else f"{field} {text!r} is not a number") from None
    return tuple(values)
