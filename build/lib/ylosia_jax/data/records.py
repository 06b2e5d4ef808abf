"""What a format's reader hands over, and how it is checked.

A reader (`voc`, `coco`, …) only parses: it turns its files into entries and calls `gather`, which opens every image,
checks every box and collects whatever is wrong with the set. `store.write` stores the result. A new format is one new
reader.
"""

import dataclasses
import difflib
import functools
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from reprlib import repr as brief
from typing import Any, NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from ylosia_jax import rle
from ylosia_jax.data import images
from ylosia_jax.files import read_bytes
from ylosia_jax.types import Label, Skeleton, UserError

_SPLIT_NAME = re.compile(r"(?!all$)[A-Za-z0-9_]+")  # TFDS keeps "all" for itself
SHOWN = 10


class Object(NamedTuple):
    """One annotated object as its file has it, unchecked.

    Attributes:
      what: how a message calls it: "object 3 (RBC)".
      name: of its class.
      box: (x0, y0, x1, y1) in pixels, continuous corners.
      area: in square pixels; None for the box's.
      crowd: the box stands for a group.
      difficult: VOC's flag, see `voc`.
      id: the annotation's own number, -1 where the format has none.
      segmentation: its pixels: a list of polygons, run lengths as {"size": [height, width], "counts"}, or a mask
        [H, W]; None where nobody drew them.
      keypoints: x, y, v of each point of the set's skeleton in turn; None where nobody marked any.
    """

    what: str
    name: str
    box: tuple[float, float, float, float]
    area: float | None = None
    crowd: bool = False
    difficult: bool = False
    id: int = -1
    segmentation: Any = None
    keypoints: Sequence[float] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """One image and its annotations as their files have them, unchecked. Compared by identity.

    Attributes:
      where: the annotation file or the place in it, which messages begin with.
      image: its file; the content of one where it has none of its own; None where it was not found, which `bad` then
        says.
      name: that the image is stored under, unique in its split.
      size: (width, height) as the annotations have it, or None.
      image_id: the image's own number, -1 where the format has none.
      bad: what the reader found wrong. An entry with anything wrong is left out as a whole, for an image that lacks
        some of its annotations would teach that its objects are background.
      semantic: gives [H, W] uint8, the semantic class of each pixel or VOID, when it is called; ValueError or OSError
        if it cannot be had. None where nobody drew it.
      category: name of the class that the image as a whole shows; None where nobody said.
    """

    where: str
    image: Path | bytes | None
    name: str
    objects: Sequence[Object] = ()
    size: tuple[int, int] | None = None
    image_id: int = -1
    bad: Sequence[str] = ()
    semantic: Callable[[], np.ndarray] | None = None
    category: str | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """One checked image, as it will be stored.

    Attributes:
      image, name, image_id: as in `Entry`.
      width, height: of the decoded image in pixels, before any EXIF rotation.
      boxes: [n, 4] float32 xyxy in pixels, inside the image, none without area.
      labels: [n] int64 index into the set's classes.
      area: [n] float32 in square pixels.
      crowd, difficult: [n] bool.
      ids: [n] int64, -1 where the format has none.
      masks: of each object its run lengths; empty for an unknown one.
      keypoints: [n, 3 J] float32 x, y, v; J is 0 in a set without a skeleton.
      semantic: PNG of [H, W]; empty where it is not known.
      category: index into the set's classes, -1 where nobody said.
    """

    image: Path | bytes
    name: str
    image_id: int
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    area: np.ndarray
    crowd: np.ndarray
    difficult: np.ndarray
    ids: np.ndarray
    masks: tuple[bytes, ...]
    keypoints: np.ndarray
    semantic: bytes
    category: int


def content(image: Path | bytes) -> bytes:
    """The encoded image of an entry or a record. OSError if its file cannot be read."""
    return image if isinstance(image, bytes) else read_bytes(image, images.MAX_IMAGE_BYTES)


@dataclasses.dataclass(frozen=True)
class Imported:
    """What was read and checked, ready to be stored.

    Attributes:
      classes: names in label order.
      splits: split name -> its records.
      bad: what was left out, one line each; only ever filled under `skip_bad`.
      dropped: objects without area, which were dropped, one line each.
      clipped: objects that reached over the edge of their image, which were clipped, one line each.
      notes: anything else worth knowing, one line each.
      category_ids: the format's own number of each class (COCO's have gaps), or None.
      stuff: names of the semantic classes beyond `classes`.
      skeleton: of the keypoints, or None.
      labels: what is known, at least of some images.
    """

    classes: tuple[str, ...]
    splits: Mapping[str, tuple[Record, ...]]
    bad: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    clipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    category_ids: tuple[int, ...] | None = None
    stuff: tuple[str, ...] = ()
    skeleton: Skeleton | None = None
    labels: frozenset[Label] = frozenset({"box"})


def gather(
    splits: Mapping[str, Sequence[Entry]],
    classes: Sequence[str],
    *,
    source: str | os.PathLike[str],
    skip_bad: bool = False,
    bad: Sequence[str] = (),
    notes: Sequence[str] = (),
    category_ids: tuple[int, ...] | None = None,
    stuff: Sequence[str] = (),
    skeleton: Skeleton | None = None,
) -> Imported:
    """Decodes every image and checks every object of what a reader parsed.

    Boxes that reach over the edge of their image are clipped, objects without area are dropped, and both are listed.
    Everything else that is amiss is bad: an image that is missing, damaged, not a JPEG, PNG or BMP file, or of another
    size than its annotation says; a box wholly outside the image; a class that is not in `classes`; a number that is
    not finite; a polygon of fewer than three points; run lengths of another size than the image; keypoints that are not
    the skeleton's or whose v is not 0, 1 or 2. Polygons that cross themselves are imported and noted. An image's size
    is that of its pixels as stored: an EXIF rotation is ignored, as COCO's tools do.

    Args:
      splits: split name -> its entries; the same entry may stand in several splits.
      classes: names in label order.
      source: what messages call the set.
      skip_bad: leave out what is bad, whole images at a time, and import the rest.
      bad: what the reader found wrong beside the entries.
      notes: of the reader, for the report.
      category_ids: the format's own number of each class.
      stuff: names of the semantic classes beyond `classes`.
      skeleton: that the objects' keypoints are of.

    Raises:
      UserError: if anything is bad, listing the first ten.
    """
    for split in splits:
        if not _SPLIT_NAME.fullmatch(split):
            raise UserError(f"{source}: {split!r} cannot be a split's name; rename it to letters, digits and _")
    _check_classes((*classes, *stuff), source)
    labels = {name: label for label, name in enumerate(classes)}
    entries = list(dict.fromkeys(entry for entries in splits.values() for entry in entries))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda entry: _check(entry, labels, skeleton), entries)
        progress = tqdm(results, total=len(entries), desc="checking", unit=" images", disable=None)
        checked = dict(zip(entries, progress, strict=True))
    all_bad = list(bad) + [line for result in checked.values() for line in result.bad]
    kept: dict[str, tuple[Record, ...]] = {}
    for split, members in splits.items():
        records: dict[str, Record] = {}
        for entry in members:
            record = checked[entry].record
            if entry.name in records:
                all_bad.append(f"{entry.where}: image {entry.name!r} stands in split {split!r} twice")
            elif record:
                records[entry.name] = record
        kept[split] = tuple(records.values())
    all_bad = _plain(all_bad)
    if all_bad and not skip_bad:
        raise UserError(
            f"{source}: {count(len(all_bad), 'problem')}; mend what is wrong, or pass --skip-bad to import the rest:\n"
            + listing(all_bad)
        )
    if not classes and not stuff and not all_bad:
        raise UserError(f"{source}: there is not one class; name the classes, or annotate an object")
    return Imported(
        classes=tuple(classes),
        splits=kept,
        bad=all_bad,
        dropped=_plain(line for result in checked.values() for line in result.dropped),
        clipped=_plain(line for result in checked.values() for line in result.clipped),
        notes=_plain([*notes, *(line for result in checked.values() for line in result.notes)]),
        category_ids=category_ids,
        stuff=tuple(stuff),
        skeleton=skeleton,
        labels=_labels(classes, kept, skeleton),
    )


def _labels(
    classes: Sequence[str], splits: Mapping[str, Sequence[Record]], skeleton: Skeleton | None
) -> frozenset[Label]:
    records = [record for members in splits.values() for record in members]
    categories = any(record.category >= 0 for record in records)
    known: dict[Label, bool] = {
        # Categories have classes too; boxes are then only known where there is one.
        "box": bool(classes) and (not categories or any(len(record.labels) for record in records)),
        "mask": any(any(record.masks) for record in records),
        "keypoint": skeleton is not None and any((record.keypoints[:, 2::3] > 0).any() for record in records),
        "semantic": any(record.semantic for record in records),
        "category": categories,
    }
    return frozenset(label for label, there in known.items() if there)


@functools.cache  # a wrong list of classes asks the same of every object
def near(name: str, names: tuple[str, ...]) -> str:
    """What an error message adds about a misspelt name: `; the nearest is 'x'`, or nothing."""
    close = difflib.get_close_matches(name, names, n=1)
    return f"; the nearest is {close[0]!r}" if close else ""


def count(number: int, noun: str, nouns: str | None = None) -> str:
    """A number with its noun, in the plural where it must be."""
    return f"{number} {noun if number == 1 else nouns or noun + 's'}"


def listing(lines: Sequence[str], shown: int | None = SHOWN) -> str:
    """The first lines, indented, and how many more there are."""
    shown = len(lines) if shown is None else shown
    more = [f"… and {len(lines) - shown} more"] if len(lines) > shown else []
    return "\n".join("  " + line for line in [*lines[:shown], *more])


def _plain(lines: Iterable[str]) -> tuple[str, ...]:
    # Names come from files of strangers, and a terminal obeys control characters.
    return tuple(line if line.isprintable() else repr(line) for line in lines)


def _check_classes(classes: Sequence[str], source: str | os.PathLike[str]) -> None:
    for index, name in enumerate(classes):
        # TFDS stores the names as stripped lines of a text file.
        if not name.isprintable() or name != name.strip() or not name:
            raise UserError(f"{source}: {name!r} cannot be a class name; use printable text without outer blanks")
        if name in classes[:index]:
            raise UserError(f"{source}: class {name!r} is listed twice")


class _Checked(NamedTuple):
    record: Record | None
    bad: Sequence[str]
    dropped: Sequence[str] = ()
    clipped: Sequence[str] = ()
    notes: Sequence[str] = ()


def _check(entry: Entry, labels: Mapping[str, int], skeleton: Skeleton | None) -> _Checked:
    if entry.image is None:
        return _Checked(None, [f"{entry.where}: {reason}" for reason in entry.bad])
    if not entry.name.isprintable():
        return _Checked(None, [f"{entry.where}: the image's name {entry.name!r} has unprintable characters"])
    try:
        height, width = images.decode_whole(content(entry.image)).shape[:2]
    except (OSError, ValueError) as error:
        reason = error.strerror or error if isinstance(error, OSError) else error
        place = entry.where if isinstance(entry.image, bytes) else entry.image
        return _Checked(None, [f"{place}: {reason}", *(f"{entry.where}: {text}" for text in entry.bad)])
    bad, dropped, clipped, kept, notes = list(entry.bad), [], [], [], []
    if entry.size and entry.size != (width, height):
        turned = " (turned on its side: is it rotated by EXIF?)" if entry.size == (height, width) else ""
        place = "its image" if isinstance(entry.image, bytes) else entry.image
        bad.append(f"says {entry.size[0]}x{entry.size[1]} but {place} is {width}x{height}{turned}")
    for item in entry.objects:
        try:
            box = _fit(item, width, height)
            if item.name not in labels:
                raise ValueError(f"class {item.name!r} is not in the list{near(item.name, tuple(labels))}")
            mask, points = _mask(item, (height, width)), _keypoints(item, skeleton)
        except ValueError as error:
            bad.append(f"{item.what}: {error}")
            continue
        if box is None:
            dropped.append(f"{entry.where}: {item.what}")
            continue
        if min(item.box[:2]) < 0 or item.box[2] > width or item.box[3] > height:
            clipped.append(f"{entry.where}: {item.what}")
        if isinstance(item.segmentation, list) and any(map(rle.crosses_itself, item.segmentation)):
            notes.append(f"{entry.where}: {item.what}: its polygon crosses itself; what it encloses was taken")
        if mask and not rle.area(mask, (height, width)):
            notes.append(f"{entry.where}: {item.what}: its mask has no pixel; it was taken as not drawn")
            mask = b""
        if any(v and not (0 <= x <= width and 0 <= y <= height) for x, y, v in zip(*[iter(points)] * 3, strict=True)):
            notes.append(f"{entry.where}: {item.what}: a labelled keypoint lies outside of the {width}x{height} image")
        kept.append((item, box, mask, points))
    if entry.category is not None and entry.category not in labels:
        bad.append(f"class {entry.category!r} is not in the list{near(entry.category, tuple(labels))}")
    semantic = b""
    if entry.semantic is not None:
        try:
            semantic = _semantic(entry.semantic(), (height, width))
        except (OSError, ValueError) as error:
            bad.append(f"semantic map: {error}")
    if bad:
        return _Checked(None, [f"{entry.where}: {reason}" for reason in bad])
    width_of_points = 0 if skeleton is None else 3 * len(skeleton.names)
    items = [item for item, *_ in kept]
    boxes = np.array([box for _, box, *_ in kept], np.float32).reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    masks = tuple(mask for *_, mask, _ in kept)
    drawn = [rle.area(mask, (height, width)) if mask else side.prod() for mask, side in zip(masks, sides, strict=True)]
    if any(masks) and (bare := sum(not (mask or item.crowd) for mask, item in zip(masks, items, strict=True))):
        notes.append(
            f"{entry.where}: {count(bare, 'object')} of {len(items)} without a mask: those of the others are learned, "
            "but no masks are scored here"
        )
    area = [pixels if item.area is None else item.area for item, pixels in zip(items, drawn, strict=True)]
    record = Record(
        image=entry.image,
        name=entry.name,
        image_id=entry.image_id,
        width=width,
        height=height,
        boxes=boxes,
        labels=np.array([labels[item.name] for item in items], np.int64),
        area=np.array(area, np.float32),
        crowd=np.array([item.crowd for item in items], bool),
        difficult=np.array([item.difficult for item in items], bool),
        ids=np.array([item.id for item in items], np.int64),
        masks=masks,
        keypoints=np.array([points for *_, points in kept], np.float32).reshape(len(items), width_of_points),
        semantic=semantic,
        category=-1 if entry.category is None else labels[entry.category],
    )
    return _Checked(record, (), dropped, clipped, notes)


def _mask(item: Object, size: tuple[int, int]) -> bytes:
    """The object's run lengths, empty where they are not known. ValueError says why they cannot be had."""
    drawn = item.segmentation
    if drawn is None or drawn == []:
        return b""
    if isinstance(drawn, np.ndarray):
        if drawn.shape != size:
            raise ValueError(f"its mask is {drawn.shape[1]}x{drawn.shape[0]}, the image {size[1]}x{size[0]}")
        return rle.encode(drawn)
    if isinstance(drawn, list):
        return rle.from_polygons(drawn, size)
    if not isinstance(drawn, dict) or drawn.get("size") != list(size):
        told = drawn.get("size") if isinstance(drawn, dict) else drawn
        raise ValueError(f"its mask has the size {brief(told)}, the image [{size[0]}, {size[1]}] (height, width)")
    return rle.from_runs(drawn.get("counts"), size)


def _keypoints(item: Object, skeleton: Skeleton | None) -> list[float]:
    """x, y, v of every point, zeros where it is not labelled. ValueError says why they cannot be had."""
    count = 0 if skeleton is None else len(skeleton.names)
    if item.keypoints is None or not count:
        return [0.0] * (3 * count)
    values = item.keypoints
    if not isinstance(values, list | tuple):
        raise ValueError(f"its keypoints {brief(values)} are no list of numbers")
    if len(values) != 3 * count:
        raise ValueError(f"it has {len(values)} keypoint numbers, {count} points have {3 * count}")
    if not all(map(rle.is_finite, values)):
        raise ValueError("a keypoint is no finite number")
    if odd := [v for v in values[2::3] if v not in (0, 1, 2)]:
        raise ValueError(f"the v of a keypoint is {odd[0]!r}, not 0, 1 or 2")
    points = np.array(values).reshape(-1, 3)
    return (points * (points[:, 2:] > 0)).ravel().tolist()


def _semantic(labels: np.ndarray, size: tuple[int, int]) -> bytes:
    if labels.shape != size:
        raise ValueError(f"it is {labels.shape[1]}x{labels.shape[0]}, the image {size[1]}x{size[0]}")
    return cv2.imencode(".png", labels)[1].tobytes()


def _fit(item: Object, width: int, height: int) -> np.ndarray | None:
    """The object's box inside the image, or None if it has no area. ValueError says why it can be neither."""
    x0, y0, x1, y1 = item.box
    text = f"box ({x0:g}, {y0:g}, {x1:g}, {y1:g})"
    if not all(math.isfinite(value) for value in item.box):
        raise ValueError(f"{text} is not finite")
    if item.area is not None and not (math.isfinite(item.area) and item.area >= 0):
        raise ValueError(f"area {item.area:g} is negative or not finite")
    if x1 < x0 or y1 < y0:
        raise ValueError(f"{text} ends before it begins")
    if x0 == x1 or y0 == y1:
        return None
    if x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
        raise ValueError(f"{text} is wholly outside the {width}x{height} image")
    box = np.array([max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)], np.float32)
    return box if (box[2:] > box[:2]).all() else None
