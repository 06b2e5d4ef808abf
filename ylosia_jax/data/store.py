"""Imported data sets: what a format reader hands over, how it is checked, stored as TFDS/ArrayRecord, and read back.

A format's reader (`voc`, `coco`) only parses: it turns its files into entries and calls `gather`, which opens every
image, checks every box and collects whatever is wrong with the set. `write` stores the result, `open` reads it back as
a `types.Source`. A new format is one new reader.

A set lies in `<root>/<name>/1.0.0/` in shards, as TFDS lays out its own sets, and `tfds.builder_from_directory` opens
it too. Images are stored as the bytes of their files: nothing is compressed twice, and no TensorFlow is needed.
"""

import dataclasses
import difflib
import functools
import json
import math
import operator
import os
import re
import stat
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex

import cv2
import numpy as np
from tqdm import tqdm

from ylosia_jax.types import Example, UserError

VERSION = "1.0.0"  # of the stored layout, in TFDS's own place for it
SHARD_BYTES = 128 << 20
MAX_IMAGE_BYTES = 256 << 20
MAX_PIXELS = 1 << 28

_INFO = "dataset_info.json"
_SET_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_SPLIT_NAME = re.compile(r"(?!all$)[A-Za-z0-9_]+")  # TFDS keeps "all" for itself
_SHOWN = 10

# ---- What a reader hands over --------------------------------------------------------------------------------------


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
    """

    what: str
    name: str
    box: tuple[float, float, float, float]
    area: float | None = None
    crowd: bool = False
    difficult: bool = False
    id: int = -1


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """One image and its annotations as their files have them, unchecked. Compared by identity.

    Attributes:
      where: the annotation file or the place in it, which messages begin with.
      path: of the image file; None where it was not found, which `bad` then says.
      name: that the image is stored under, unique in its split.
      size: (width, height) as the annotations have it, or None.
      image_id: the image's own number, -1 where the format has none.
      bad: what the reader found wrong. An entry with anything wrong is left out as a whole, for an image that lacks
        some of its annotations would teach that its objects are background.
    """

    where: str
    path: Path | None
    name: str
    objects: Sequence[Object] = ()
    size: tuple[int, int] | None = None
    image_id: int = -1
    bad: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """One checked image, as it will be stored.

    Attributes:
      path, name, image_id: as in `Entry`.
      width, height: of the decoded image in pixels, before any EXIF rotation.
      boxes: [n, 4] float32 xyxy in pixels, inside the image, none without area.
      labels: [n] int64 index into the set's classes.
      area: [n] float32 in square pixels.
      crowd, difficult: [n] bool.
      ids: [n] int64, -1 where the format has none.
    """

    path: Path
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
    """

    classes: tuple[str, ...]
    splits: Mapping[str, tuple[Record, ...]]
    bad: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    clipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    category_ids: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Report:
    """What `write` stored. `str(report)` tells it in full; where `found.bad` is not empty, images were left out."""

    folder: Path
    shards: Mapping[str, int]
    found: Imported

    def __str__(self) -> str:
        found = self.found
        lines = [
            f"{_count(len(found.classes), 'class', 'classes')}, {_count(len(found.splits), 'split')} in {self.folder}"
        ]
        for split, records in found.splits.items():
            crowd, difficult = sum(int(r.crowd.sum()) for r in records), sum(int(r.difficult.sum()) for r in records)
            facts = [
                f"{_count(len(records), 'image')} ({sum(not len(r.labels) for r in records)} without objects)",
                _count(sum(len(r.labels) for r in records), "object"),
                *(f"{number} {kind}" for number, kind in ((crowd, "crowd"), (difficult, "difficult")) if number),
                _count(self.shards[split], "shard"),
            ]
            lines.append(f"  {split}: {', '.join(facts)}")
        for noun, what, items, shown in (
            ("object", "without area dropped", found.dropped, _SHOWN),
            ("object", "over the edge of the image clipped", found.clipped, 3),
            ("problem", "left out", found.bad, None),
        ):
            if items:
                lines.append(f"{_count(len(items), noun)} {what}:\n{_listing(items, shown)}")
        return "\n".join([*lines, *found.notes])


def gather(
    splits: Mapping[str, Sequence[Entry]],
    classes: Sequence[str],
    *,
    source: str | os.PathLike[str],
    skip_bad: bool = False,
    bad: Sequence[str] = (),
    notes: Sequence[str] = (),
    category_ids: tuple[int, ...] | None = None,
) -> Imported:
    """Decodes every image and checks every object of what a reader parsed.

    Boxes that reach over the edge of their image are clipped, objects without area are dropped, and both are listed.
    Everything else that is amiss is bad: an image that is missing, damaged, not a JPEG, PNG or BMP file, or of another
    size than its annotation says; a box wholly outside the image; a class that is not in `classes`; a number that is
    not finite. An image's size is that of its pixels as stored: an EXIF rotation is ignored, as COCO's tools do.

    Args:
      splits: split name -> its entries; the same entry may stand in several splits.
      classes: names in label order.
      source: what messages call the set.
      skip_bad: leave out what is bad, whole images at a time, and import the rest.
      bad: what the reader found wrong beside the entries.
      notes: of the reader, for the report.
      category_ids: the format's own number of each class.

    Raises:
      UserError: if anything is bad, listing the first ten, or if too much is for a split to have any image left.
    """
    for split in splits:
        if not _SPLIT_NAME.fullmatch(split):
            raise UserError(f"{source}: {split!r} cannot be a split's name; rename it to letters, digits and _")
    _check_classes(classes, source)
    labels = {name: label for label, name in enumerate(classes)}
    entries = list(dict.fromkeys(entry for entries in splits.values() for entry in entries))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda entry: _check(entry, labels), entries)
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
            f"{source}: {_count(len(all_bad), 'problem')}; mend what is wrong, or pass --skip-bad to import the rest:\n"
            + _listing(all_bad)
        )
    for split, members in kept.items():
        if not members:
            reason = f", because all are bad:\n{_listing(all_bad)}" if all_bad else ""
            raise UserError(f"{source}: split {split!r} has no image to import{reason}")
    return Imported(
        classes=tuple(classes),
        splits=kept,
        bad=all_bad,
        dropped=_plain(line for result in checked.values() for line in result.dropped),
        clipped=_plain(line for result in checked.values() for line in result.clipped),
        notes=_plain(notes),
        category_ids=category_ids,
    )


@functools.cache  # a wrong list of classes asks the same of every object
def near(name: str, names: tuple[str, ...]) -> str:
    """What an error message adds about a misspelt name: `; the nearest is 'x'`, or nothing."""
    close = difflib.get_close_matches(name, names, n=1)
    return f"; the nearest is {close[0]!r}" if close else ""


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes, links followed; OSError says why it cannot be had."""
    status = path.stat()  # before opening: to open a pipe is to wait for its other end
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is not a regular file")
    if status.st_size > limit:
        raise OSError(f"it has {status.st_size} bytes, more than the limit of {limit}")
    with path.open("rb") as file:
        return file.read(limit)


def _count(number: int, noun: str, nouns: str | None = None) -> str:
    return f"{number} {noun if number == 1 else nouns or noun + 's'}"


def _listing(lines: Sequence[str], shown: int | None = _SHOWN) -> str:
    shown = len(lines) if shown is None else shown
    more = [f"… and {len(lines) - shown} more"] if len(lines) > shown else []
    return "\n".join("  " + line for line in [*lines[:shown], *more])


def _plain(lines: Iterable[str]) -> tuple[str, ...]:
    # Names come from files of strangers, and a terminal obeys control characters.
    return tuple(line if line.isprintable() else repr(line) for line in lines)


def _check_classes(classes: Sequence[str], source: str | os.PathLike[str]) -> None:
    if not classes:
        raise UserError(f"{source}: there is not one class; name the classes, or annotate an object")
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


def _check(entry: Entry, labels: Mapping[str, int]) -> _Checked:
    if entry.path is None:
        return _Checked(None, [f"{entry.where}: {reason}" for reason in entry.bad])
    if not entry.name.isprintable():
        return _Checked(None, [f"{entry.where}: the image's name {entry.name!r} has unprintable characters"])
    try:
        height, width = verify(entry.path).shape[:2]
    except (OSError, ValueError) as error:
        reason = error.strerror or error if isinstance(error, OSError) else error
        return _Checked(None, [f"{entry.path}: {reason}", *(f"{entry.where}: {text}" for text in entry.bad)])
    bad, dropped, clipped, kept = list(entry.bad), [], [], []
    if entry.size and entry.size != (width, height):
        turned = " (turned on its side: is it rotated by EXIF?)" if entry.size == (height, width) else ""
        bad.append(f"says {entry.size[0]}x{entry.size[1]} but {entry.path} is {width}x{height}{turned}")
    for item in entry.objects:
        try:
            box = _fit(item, width, height)
            if item.name not in labels:
                raise ValueError(f"class {item.name!r} is not in the list{near(item.name, tuple(labels))}")
        except ValueError as error:
            bad.append(f"{item.what}: {error}")
            continue
        if box is None:
            dropped.append(f"{entry.where}: {item.what}")
            continue
        if min(item.box[:2]) < 0 or item.box[2] > width or item.box[3] > height:
            clipped.append(f"{entry.where}: {item.what}")
        kept.append((item, box))
    if bad:
        return _Checked(None, [f"{entry.where}: {reason}" for reason in bad])
    items = [item for item, _ in kept]
    boxes = np.array([box for _, box in kept], np.float32).reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    area = [side[0] * side[1] if item.area is None else item.area for item, side in zip(items, sides, strict=True)]
    record = Record(
        path=entry.path,
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
    )
    return _Checked(record, (), dropped, clipped)


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


# ---- Images ----------------------------------------------------------------------------------------------------------

_JPEG_SCAN = 0xDA
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def decode(data: bytes) -> np.ndarray:
    """RGB pixels [H, W, 3] uint8 of an encoded image as stored, EXIF rotation ignored. ValueError if it cannot be."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ValueError("the image cannot be decoded") from error
    if image is None:
        raise ValueError("the image cannot be decoded")
    return image


def verify(path: Path) -> np.ndarray:
    """RGB pixels [H, W, 3] uint8 of a JPEG, PNG or BMP file as stored. OSError or ValueError if it is not whole."""
    # cv2 alone is no judge: its releases differ in whether they take a JPEG that is cut off.
    data = read_bytes(path, MAX_IMAGE_BYTES)
    if not data:
        raise ValueError("the file is empty")
    try:
        width, height = _size(data)
    except (IndexError, struct.error) as error:
        raise ValueError("the image is cut off or damaged") from error
    if width * height > MAX_PIXELS:
        raise ValueError(f"the image has {width}x{height} pixels, more than the limit of {MAX_PIXELS}")
    return decode(data)


def _size(data: bytes) -> tuple[int, int]:
    """(width, height) by walking the file's own structure to its end: struct.error or IndexError if it is cut off."""
    if data.startswith(b"\xff\xd8\xff"):
        width, height, at, code = 0, 0, 2, 0
        while code != _JPEG_SCAN:
            while data[at] == 0xFF:
                at += 1
            code, length = struct.unpack_from(">BH", data, at)
            if code in _JPEG_FRAMES:
                height, width = struct.unpack_from(">HH", data, at + 4)
            at += 1 + length
        # Only past the headers, which may hold a whole thumbnail. Within the pixels the encoder escapes every 0xff.
        if data.find(b"\xff\xd9", at) < 0:
            raise IndexError("no end-of-image marker")
        return width, height
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        at, kind = 8, b""
        while kind != b"IEND":
            length, kind = struct.unpack_from(">I4s", data, at)
            at += 12 + length
        if at > len(data):
            raise IndexError("the last chunk is cut off")
        width, height = struct.unpack_from(">II", data, 16)
        return width, height
    if data.startswith(b"BM"):
        width, height = struct.unpack_from("<ii", data, 18)
        return abs(width), abs(height)
    raise ValueError("it is no JPEG, PNG or BMP image")


# ---- Storing ---------------------------------------------------------------------------------------------------------


def root(out: str | os.PathLike[str] | None = None) -> Path:
    """The folder of all imported sets: `out`, else $YLOSIA_DATA_DIR, else `data`."""
    return Path(out or os.environ.get("YLOSIA_DATA_DIR") or "data").expanduser()


_root = root  # `root` is also what its callers below call their argument


def write(
    found: Imported, *, name: str, root: str | os.PathLike[str] | None = None, shard_bytes: int = SHARD_BYTES
) -> Report:
    """Stores a set, or adds splits to one, all or nothing.

    Everything is written into a temporary folder beside the set and moved into place at the end. What is stored already
    is never overwritten, and a run that is killed leaves it as it was, beside a hidden `.<name>-*` folder at most.

    Args:
      found: what to store.
      name: of the set: letters, digits and _, beginning with a letter.
      root: of all sets, see `root`.
      shard_bytes: aimed at for a shard's size.

    Raises:
      UserError: if the set has one of the splits already or has other classes, or if writing fails.
    """
    if not _SET_NAME.fullmatch(name):
        plain = re.sub(r"\W", "_", name, flags=re.ASCII)
        raise UserError(f"{name!r} cannot be a set's name; use letters, digits and _, beginning with a letter: {plain}")
    folder = _root(root) / name / VERSION
    before = _earlier(folder, found)
    try:
        folder.parent.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder.parent.parent) as temporary:
            fresh = Path(temporary) / name / VERSION
            fresh.mkdir(parents=True)
            shards = _write_shards(found, name, fresh, shard_bytes)
            if before is None:
                fresh.parent.rename(folder.parent)
            else:
                _join(fresh, folder, before)
    except (OSError, RuntimeError) as error:  # the shards' writer reports a full disk as a RuntimeError
        raise UserError(f"cannot store {name!r} in {folder}: {error}") from error
    return Report(folder, shards, found)


def _earlier(folder: Path, found: Imported) -> bytes | None:
    """The index of the set that is to be added to, None if the set is new."""
    name = folder.parent.name
    if not (folder / _INFO).exists():
        if folder.parent.exists():
            raise UserError(f"{folder.parent} exists but is no imported set; choose another --name or --out")
        return None
    before = (folder / _INFO).read_bytes()
    builder = _builder(folder)
    for split in found.splits:
        if split in builder.info.splits:
            raise UserError(f"set {name!r} already has a split {split!r}; name another, or remove {folder.parent}")
    classes, category_ids = _classes(builder)
    if classes != found.classes or category_ids != found.category_ids:
        here, there = set(found.classes) - set(classes), set(classes) - set(found.classes)
        difference = "; ".join(
            f"only in {where}: {', '.join(map(repr, sorted(names)))}"
            for where, names in (("the new split", here), ("the set", there))
            if names
        )
        raise UserError(
            f"the classes of set {name!r} differ from the new split's: "
            f"{difference or 'the same names, but in another order or with other category ids'}; "
            "choose another --name, or give both the same classes"
        )
    return before


def _write_shards(found: Imported, name: str, folder: Path, shard_bytes: int) -> dict[str, int]:
    import tensorflow_datasets as tfds  # late, because it takes half a second

    def flags(dtype: type) -> Any:
        return tfds.features.Tensor(shape=(None,), dtype=dtype)

    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "name": tfds.features.Text(),
            "image_id": np.int64,
            "width": np.int64,
            "height": np.int64,
            # One array a field. A Sequence of dicts would be decoded object by object, and slower.
            "objects": {
                "bbox": tfds.features.Tensor(shape=(None, 4), dtype=np.float32),
                "label": tfds.features.Sequence(tfds.features.ClassLabel(names=found.classes)),
                "area": flags(np.float32),
                "crowd": flags(np.bool_),
                "difficult": flags(np.bool_),
                "id": flags(np.int64),
            },
        }
    )
    identity = tfds.core.DatasetIdentity(
        name=name, version=tfds.core.Version(VERSION), data_dir=os.fspath(folder), module_name=""
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        description="Imported by ylosia. Boxes are xyxy in pixels with continuous corners.",
        features=features,
        metadata=tfds.core.MetadataDict(category_ids=found.category_ids),
    )
    records = [record for split in found.splits.values() for record in split]
    mean_bytes = sum(record.path.stat().st_size for record in records) / len(records)
    per_shard = max(1, round(shard_bytes / mean_bytes))
    writer = tfds.core.SequentialWriter(info, per_shard, file_format="array_record")
    writer.initialize_splits(list(found.splits))
    for split, members in found.splits.items():
        progress = tqdm(members, desc=f"writing {split}", unit=" images", disable=None)
        # A list, as the signature has it, would hold the whole split in memory.
        writer.add_examples({split: _rows(progress)})  # pyright: ignore[reportArgumentType]
    writer.close_all()
    return {split: len(info.splits[split].shard_lengths) for split in found.splits}


def _rows(records: Iterable[Record]) -> Iterator[dict[str, Any]]:
    for record in records:
        yield {
            "image": read_bytes(record.path, MAX_IMAGE_BYTES),
            "name": record.name,
            "image_id": record.image_id,
            "width": record.width,
            "height": record.height,
            "objects": {
                "bbox": record.boxes,
                "label": record.labels,
                "area": record.area,
                "crowd": record.crowd,
                "difficult": record.difficult,
                "id": record.ids,
            },
        }


def _join(fresh: Path, folder: Path, before: bytes) -> None:
    """Moves new shards into a set; they count from the moment that its index is replaced."""
    index, addition = json.loads(before), json.loads((fresh / _INFO).read_bytes())
    index["splits"] += addition["splits"]
    (fresh / _INFO).write_text(json.dumps(index, indent=2))
    if (folder / _INFO).read_bytes() != before:
        raise UserError(f"{folder} was changed by another import in the meantime; run this one again")
    for shard in fresh.glob("*.array_record*"):
        shard.replace(folder / shard.name)
    (fresh / _INFO).replace(folder / _INFO)


# ---- Reading back ----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Stored:
    """A split of a stored set, a `types.Source`: random access, from any number of threads.

    VOC's difficult objects come out as `crowd`: no target, no background, ignored when scored.

    Attributes:
      name, split: of the set.
      classes: names in label order.
      category_ids: COCO's own number of each class, or None.
      records: the serialised examples, by index.
      parse: of one of them.
    """

    name: str
    split: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...] | None
    records: Sequence[bytes] = dataclasses.field(repr=False)
    parse: Callable[[bytes], Any] = dataclasses.field(repr=False)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: SupportsIndex) -> Example:
        index = operator.index(index)
        if not 0 <= index < len(self):
            raise IndexError(f"{index} is not in 0..{len(self) - 1}, the examples of {self.name}/{self.split}")
        # Not through the features' own decoding, which takes four times as long for these few fields.
        try:
            field = self.parse(self.records[index]).features.feature
            image = decode(field["image"].bytes_list.value[0])
        except (RuntimeError, ValueError, IndexError) as error:  # a cut off shard can read as empty records
            raise UserError(f"{self.name}/{self.split} is damaged at {index}; import it again: {error}") from error
        crowd = np.array(field["objects/crowd"].int64_list.value, bool)
        return Example(
            image=image,
            name=field["name"].bytes_list.value[0].decode(),
            boxes=np.array(field["objects/bbox"].float_list.value, np.float32).reshape(-1, 4),
            labels=np.array(field["objects/label"].int64_list.value, np.int64),
            crowd=crowd | np.array(field["objects/difficult"].int64_list.value, bool),
            area=np.array(field["objects/area"].float_list.value, np.float32),
        )


def open(name: str | os.PathLike[str], split: str, *, root: str | os.PathLike[str] | None = None) -> Stored:
    """Opens a split of a stored set.

    Args:
      name: of the set under the root, or its folder.
      split: of the set.
      root: of all sets, see the function `root`.

    Raises:
      UserError: if there is no such set or split, or if it is damaged.
    """
    from tensorflow_datasets import decode as tfds_decode  # late, because it takes half a second
    from tensorflow_datasets.proto import tf_example_pb2

    folder = _find(os.fspath(name), _root(root))
    builder = _builder(folder)
    splits = builder.info.splits
    if split not in splits:
        raise UserError(f"set {folder} has no split {split!r}; it has {', '.join(splits)}{near(split, tuple(splits))}")
    for part in splits[split].file_instructions:
        if not Path(part.filename).is_file():
            raise UserError(f"set {folder} is damaged: {part.filename} is missing; import it again")
    parse = tf_example_pb2.Example.FromString  # pyright: ignore[reportAttributeAccessIssue] made by protobuf at import
    records = builder.as_data_source(split, deserialize_method=tfds_decode.DeserializeMethod.RAW_BYTES)
    return Stored(builder.name, split, *_classes(builder), records=records, parse=parse)


def _find(name: str, root: Path) -> Path:
    for folder in (root / name / VERSION, Path(name), Path(name) / VERSION):
        if (folder / _INFO).is_file():
            return folder
    names = sorted(info.parents[1].name for info in root.glob(f"[!.]*/{VERSION}/{_INFO}"))
    there = f"there are {', '.join(names)}{near(name, tuple(names))}" if names else "there is none at all"
    raise UserError(
        f"no data set {name!r} in {root}: {there}; "
        f"import it with: ylosia data import FORMAT SOURCE --name {Path(name).name} --out {root}"
    )


def _builder(folder: Path) -> Any:
    import tensorflow_datasets as tfds  # late, because it takes half a second

    try:
        builder: Any = tfds.builder_from_directory(folder)
        if not {"bbox", "label", "area", "crowd", "difficult"} <= set(builder.info.features["objects"]):
            raise KeyError("objects")
    except Exception as error:  # whatever a damaged or foreign folder makes of it
        raise UserError(f"{folder} is damaged, or no set that `ylosia data import` made: {error!r}") from error
    return builder


def _classes(builder: Any) -> tuple[tuple[str, ...], tuple[int, ...] | None]:
    """Names and, where the format has them, category ids of a set."""
    ids = builder.info.metadata["category_ids"]
    return tuple(builder.info.features["objects"]["label"].feature.names), None if ids is None else tuple(ids)
