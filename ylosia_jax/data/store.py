"""Imported data sets, stored as TFDS/ArrayRecord and read back as a `types.Source`.

A set lies in `<root>/<name>/1.0.0/` in shards, as TFDS lays out its own sets, and `tfds.builder_from_directory` opens
it too. Images are stored as the bytes of their files: nothing is compressed twice, and no TensorFlow is needed.
"""

import dataclasses
import functools
import json
import operator
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from jaxtyping import Int
from tqdm import tqdm

from ylosia_jax.data.images import decode, decode_labels
from ylosia_jax.data.records import SHOWN, Imported, Record, content, count, listing, near
from ylosia_jax.types import Example, Label, Skeleton, UserError

VERSION = "1.0.0"  # of the stored layout, in TFDS's own place for it
SHARD_BYTES = 128 << 20

_INFO = "dataset_info.json"
_SET_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclasses.dataclass(frozen=True)
class Report:
    """What `write` stored. `str(report)` tells it in full; where `found.bad` is not empty, images were left out."""

    folder: Path
    shards: Mapping[str, int]
    found: Imported

    def __str__(self) -> str:
        found = self.found
        lines = [
            f"{count(len(found.classes), 'class', 'classes')}, {count(len(found.splits), 'split')} in {self.folder}"
        ]
        for split, records in found.splits.items():
            crowd, difficult = sum(int(r.crowd.sum()) for r in records), sum(int(r.difficult.sum()) for r in records)
            named, objects = sum(r.category >= 0 for r in records), sum(len(r.labels) for r in records)
            bare = sum(not len(r.labels) for r in records)
            alone = not found.labels - {"category"}  # of such a set nobody asks for objects
            facts = [
                count(len(records), "image") + ("" if alone else f" ({bare} without objects)"),
                *([f"{named} with a category"] if named else []),
                *([] if alone else [count(objects, "object")]),
                *(f"{number} {kind}" for number, kind in ((crowd, "crowd"), (difficult, "difficult")) if number),
                count(self.shards[split], "shard"),
            ]
            lines.append(f"  {split}: {', '.join(facts)}")
        for noun, what, items, shown in (
            ("object", "without area dropped", found.dropped, SHOWN),
            ("object", "over the edge of the image clipped", found.clipped, 3),
            ("problem", "left out", found.bad, None),
        ):
            if items:
                lines.append(f"{count(len(items), noun)} {what}:\n{listing(items, shown)}")
        return "\n".join([*lines, *found.notes])


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
      UserError: if there is nothing to store, if the set has one of the splits already or has other classes, or if
        writing fails.
    """
    if not _SET_NAME.fullmatch(name):
        plain = re.sub(r"\W", "_", name, flags=re.ASCII)
        raise UserError(f"{name!r} cannot be a set's name; use letters, digits and _, beginning with a letter: {plain}")
    for split, members in found.splits.items():
        if not members:
            reason = f", because all are bad:\n{listing(found.bad)}" if found.bad else ""
            raise UserError(f"split {split!r} of {name!r} has no image to import{reason}")
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
    labels = _labels(builder)
    if (found.stuff, found.skeleton) != (labels["stuff"], labels["skeleton"]) or found.labels != labels["labels"]:
        raise UserError(
            f"set {name!r} has the labels {sorted(labels['labels'])}, stuff {labels['stuff']} and skeleton "
            f"{labels['skeleton']}, the new split {sorted(found.labels)}, {found.stuff} and {found.skeleton}; "
            "choose another --name"
        )
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
                "mask": tfds.features.Sequence(tfds.features.Text()),
                "keypoints": flags(np.float32),
            },
            "semantic": tfds.features.Text(),  # a PNG, or nothing
            "category": tfds.features.ClassLabel(names=found.classes),  # -1 where nobody said
        }
    )
    identity = tfds.core.DatasetIdentity(
        name=name, version=tfds.core.Version(VERSION), data_dir=os.fspath(folder), module_name=""
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        description="Imported by ylosia. Boxes are xyxy in pixels with continuous corners.",
        features=features,
        metadata=tfds.core.MetadataDict(
            category_ids=found.category_ids,
            stuff=found.stuff,
            skeleton=None if found.skeleton is None else dataclasses.asdict(found.skeleton),
            labels=sorted(found.labels),
        ),
    )
    records = [record for split in found.splits.values() for record in split]
    mean_bytes = sum(_size(record.image) for record in records) / len(records)
    per_shard = max(1, round(shard_bytes / mean_bytes))
    writer = tfds.core.SequentialWriter(info, per_shard, file_format="array_record")
    writer.initialize_splits(list(found.splits))
    for split, members in found.splits.items():
        progress = tqdm(members, desc=f"writing {split}", unit=" images", disable=None)
        # A list, as the signature has it, would hold the whole split in memory.
        writer.add_examples({split: _rows(progress)})  # pyright: ignore[reportArgumentType]
    writer.close_all()
    for split, members in found.splits.items():
        shapes = np.array([(record.height, record.width) for record in members], np.int32)
        np.save(_shapes_file(folder, name, split), shapes)
    return {split: len(info.splits[split].shard_lengths) for split in found.splits}


def _shapes_file(folder: Path, name: str, split: str) -> Path:
    """The file of a split's images' heights and widths: to sort them by shape nobody has to read them all."""
    return folder / f"{name}-{split}.shapes.npy"


def _size(image: Path | bytes) -> int:
    return len(image) if isinstance(image, bytes) else image.stat().st_size


def _rows(records: Iterable[Record]) -> Iterator[dict[str, Any]]:
    for record in records:
        yield {
            "image": content(record.image),
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
                "mask": list(record.masks),
                "keypoints": record.keypoints.ravel(),
            },
            "semantic": record.semantic,
            "category": record.category,
        }


def _join(fresh: Path, folder: Path, before: bytes) -> None:
    """Moves new shards into a set; they count from the moment that its index is replaced."""
    index, addition = json.loads(before), json.loads((fresh / _INFO).read_bytes())
    index["splits"] += addition["splits"]
    (fresh / _INFO).write_text(json.dumps(index, indent=2))
    if (folder / _INFO).read_bytes() != before:
        raise UserError(f"{folder} was changed by another import in the meantime; run this one again")
    for part in (*fresh.glob("*.array_record*"), *fresh.glob("*.npy")):
        part.replace(folder / part.name)
    (fresh / _INFO).replace(folder / _INFO)


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
      stuff, skeleton, labels: see `types.Source`.
      first: only so many examples, from the first on; None for all.
      kept_shapes: heights and widths of all images of the split; None for a set of before they were kept.
    """

    name: str
    split: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...] | None
    records: Sequence[bytes] = dataclasses.field(repr=False)
    parse: Callable[[bytes], Any] = dataclasses.field(repr=False)
    stuff: tuple[str, ...] = ()
    skeleton: Skeleton | None = None
    labels: frozenset[Label] = frozenset({"box"})
    first: int | None = None
    kept_shapes: np.ndarray | None = dataclasses.field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.records) if self.first is None else min(self.first, len(self.records))

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
        masks = tuple(field["objects/mask"].bytes_list.value) if "mask" in self.labels else ()
        keypoints = semantic = None
        if self.skeleton is not None:
            values = np.array(field["objects/keypoints"].float_list.value, np.float32)
            keypoints = values.reshape(-1, len(self.skeleton.names), 3)
        if "semantic" in self.labels and (png := field["semantic"].bytes_list.value[0]):
            semantic = decode_labels(png)
        category = field["category"].int64_list.value[0] if "category" in self.labels else -1
        return Example(
            image=image,
            name=field["name"].bytes_list.value[0].decode(),
            boxes=np.array(field["objects/bbox"].float_list.value, np.float32).reshape(-1, 4),
            labels=np.array(field["objects/label"].int64_list.value, np.int64),
            crowd=crowd | np.array(field["objects/difficult"].int64_list.value, bool),
            area=np.array(field["objects/area"].float_list.value, np.float32),
            masks=masks if "mask" in self.labels and (any(masks) or not masks) else None,
            keypoints=keypoints,
            semantic=semantic,
            category=category if category >= 0 else None,
        )

    @property
    def shapes(self) -> Int[np.ndarray, "n 2"]:
        """Heights and widths of the images."""
        return self._scanned_shapes if self.kept_shapes is None else np.array(self.kept_shapes[: len(self)])

    @functools.cached_property
    def _scanned_shapes(self) -> Int[np.ndarray, "n 2"]:
        # Every image's bytes come along.
        fields = (self.parse(self.records[i]).features.feature for i in range(len(self)))
        return np.array([[field[side].int64_list.value[0] for side in ("height", "width")] for field in fields])


def open(
    name: str | os.PathLike[str],
    split: str,
    *,
    root: str | os.PathLike[str] | None = None,
    first: int | None = None,
) -> Stored:
    """Opens a split of a stored set.

    Args:
      name: of the set under the root, or its folder.
      split: of the set.
      root: of all sets, see the function `root`.
      first: only so many examples, from the first on; None for all.

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
    shapes = _read_shapes(_shapes_file(folder, builder.name, split), len(records))
    return Stored(
        builder.name,
        split,
        *_classes(builder),
        records=records,
        parse=parse,
        first=first,
        kept_shapes=shapes,
        **_labels(builder),
    )


def _read_shapes(path: Path, count: int) -> np.ndarray | None:
    if not path.is_file():
        return None
    try:
        shapes = np.load(path, allow_pickle=False, mmap_mode="r")
    except (OSError, ValueError, EOFError):  # NumPy's own advice is to trust the file
        shapes = None
    if shapes is None or shapes.shape != (count, 2) or shapes.dtype != np.int32:
        raise UserError(
            f"{path} does not hold {count} heights and widths: remove it, and they are read from the images"
        )
    return shapes


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


def _labels(builder: Any) -> dict[str, Any]:
    """What a set knows; those of the first layout know boxes alone."""
    metadata = builder.info.metadata
    skeleton = metadata.get("skeleton")
    if skeleton is not None:
        fields: dict[str, Any] = {
            key: tuple(map(tuple, value)) if key == "edges" else tuple(value) for key, value in skeleton.items()
        }
        skeleton = Skeleton(**fields)
    return {
        "stuff": tuple(metadata.get("stuff") or ()),
        "skeleton": skeleton,
        "labels": frozenset(metadata.get("labels") or ("box",)),
    }
