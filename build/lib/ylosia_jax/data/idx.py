"""Reads MNIST's files: IDX arrays of grey images and of their labels (yann.lecun.com/exdb/mnist, "file formats").

`<split>-images-idx3-ubyte` and `<split>-labels-idx1-ubyte` lie beside each other, as they are or as `.gz`; each pair is
a split (`train`, `t10k`). An IDX file is a magic number, which says the type and the number of axes, the length of each
axis in big-endian 32 bits, and the bytes. Images are stored as PNGs, which lose nothing, named by their place in the
file.
"""

import os
import re
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ylosia_jax.data import records
from ylosia_jax.files import read_bytes
from ylosia_jax.types import UserError

MAX_BYTES = 1 << 30  # of an array; the largest of MNIST's relatives has 547 million
MAX_SIDE = 1 << 14  # of an image

_FILE = re.compile(r"(?P<split>.+)-(?P<kind>images|labels)[-.]idx(?P<axes>[13])-ubyte(\.gz)?")
_UBYTE = 0x08
_GZIP = 31  # zlib's window size that expects a gzip header


def read(
    folder: str | os.PathLike[str], *, classes: Sequence[str] | None = None, skip_bad: bool = False
) -> records.Imported:
    """Reads and checks every split of a folder of IDX files; see `records.gather` for what is checked.

    Args:
      folder: that holds the files.
      classes: names of the labels from 0 on; by default the numbers themselves, up to the largest.
      skip_bad: leave out splits whose files are damaged and import the rest; see `bad` of the result.

    Raises:
      UserError: if the folder has no such files, or if anything is wrong, listing the first ten things.
    """
    folder = Path(folder)
    splits: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    bad: list[str] = []
    found = _pairs(folder)
    for split, files in found.items():
        try:
            splits[split] = _arrays(folder, split, files)
        except (OSError, ValueError) as error:
            bad.append(str(error))
    count = 1 + max((int(labels.max()) for _, labels in splits.values()), default=-1)
    names = tuple(str(label) for label in range(count)) if classes is None else tuple(classes)
    if count > len(names):
        raise UserError(f"{folder}: its labels run from 0 to {count - 1}, but {len(names)} classes are named")
    entries = {split: _entries(split, *arrays, names) for split, arrays in splits.items()}
    # Of a set that is damaged all through the splits stay, empty, so that what was left out is told.
    return records.gather(entries or dict.fromkeys(found, ()), names, source=folder, skip_bad=skip_bad, bad=bad)


def _pairs(folder: Path) -> dict[str, dict[str, list[Path]]]:
    """Split -> kind of file -> the files."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: name the one that holds the IDX files")
    pairs: dict[str, dict[str, list[Path]]] = {}
    for path in sorted(folder.iterdir()):
        match = _FILE.fullmatch(path.name)
        if match and (match["kind"], match["axes"]) in (("images", "3"), ("labels", "1")):
            pairs.setdefault(match["split"], {}).setdefault(match["kind"], []).append(path)
    if not pairs:
        raise UserError(
            f"{folder} has no IDX files: expected <split>-images-idx3-ubyte and <split>-labels-idx1-ubyte, plain or .gz"
        )
    return pairs


def _arrays(folder: Path, split: str, files: dict[str, list[Path]]) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, H, W] and labels [N] of a split, uint8. OSError or ValueError, naming the file, if there are none."""
    for kind, axes in (("images", 3), ("labels", 1)):
        there = files.get(kind, [])
        if not there:
            raise ValueError(f"{folder / f'{split}-{kind}-idx{axes}-ubyte'}: the file is missing")
        if len(there) > 1:
            raise ValueError(f"{', '.join(map(str, there))}: which of them is meant? Keep one")
    images, labels = read_array(files["images"][0], 3), read_array(files["labels"][0], 1)
    if len(images) != len(labels):
        raise ValueError(
            f"{files['images'][0]} has {len(images)} images, but {files['labels'][0]} {len(labels)} labels: "
            "they are not of one set"
        )
    return images, labels


def read_array(path: Path, axes: int) -> np.ndarray:
    """An IDX file's array, uint8. OSError or ValueError, naming the file, if it is not just that.

    No more is unpacked than the header says, and no more than `MAX_BYTES`.

    Args:
      axes: how many it must have.
    """
    try:
        packed = read_bytes(path, MAX_BYTES + 4 + 4 * axes)
        return _parse(_Gzip(packed) if path.suffix == ".gz" else _Plain(packed), axes)
    except OSError as error:
        raise OSError(f"{path}: {error.strerror or error}") from error
    except (ValueError, zlib.error) as error:
        raise ValueError(f"{path}: {'it is no whole gzip file' if isinstance(error, zlib.error) else error}") from error


class _Plain:
    """Bytes, handed out piece by piece."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def read(self, count: int) -> bytes:
        """The next bytes; fewer where they end."""
        self._at += count
        return self._data[self._at - count : self._at]

    def ended(self) -> bool:
        """Whether nothing is left."""
        return self._at >= len(self._data)


class _Gzip:
    """The same of a gzip file, of which no more is unpacked than was asked for."""

    def __init__(self, data: bytes) -> None:
        self._packed, self._unpack = data, zlib.decompressobj(_GZIP)

    def read(self, count: int) -> bytes:
        """The next bytes; fewer where they end. zlib.error if they cannot be unpacked."""
        data = self._unpack.decompress(self._packed, count)
        self._packed = self._unpack.unconsumed_tail
        return data

    def ended(self) -> bool:
        """Whether nothing is left. zlib.error if the checksum is wrong, or missing."""
        if self._unpack.decompress(self._packed, 1):
            return False
        if not self._unpack.eof:
            raise zlib.error("cut off")
        return not self._unpack.unused_data


def _parse(file: _Plain | _Gzip, axes: int) -> np.ndarray:
    head = file.read(4 + 4 * axes)
    if not head:
        raise ValueError("the file is empty")
    magic = struct.pack(">HBB", 0, _UBYTE, axes)
    if not magic.startswith(head[:4]):
        raise ValueError(f"it begins with {head[:4].hex()}, an IDX file of bytes with {axes} axes with {magic.hex()}")
    if len(head) < 4 + 4 * axes:
        raise ValueError("the header is cut off")
    shape = struct.unpack_from(f">{axes}I", head, 4)
    told = "x".join(map(str, shape))
    size = int(np.prod(shape, dtype=object))
    if not size:
        raise ValueError(f"it is {told}: there is nothing in it")
    if size > MAX_BYTES or max(shape[1:], default=0) > MAX_SIDE:
        raise ValueError(f"it is {told}, beyond the limits of {MAX_BYTES} bytes and {MAX_SIDE} pixels a side")
    data = file.read(size)
    if len(data) < size:
        raise ValueError(f"it is cut off: {told} are {size} bytes, it has {len(data)}")
    if not file.ended():
        raise ValueError(f"it goes on after its {size} bytes, {told}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _entries(split: str, images: np.ndarray, labels: np.ndarray, names: tuple[str, ...]) -> list[records.Entry]:
    digits = len(str(len(images) - 1))
    return [
        records.Entry(
            where=f"{split} image {number}",
            image=cv2.imencode(".png", image)[1].tobytes(),
            name=f"{number:0{digits}}.png",
            image_id=number,
            category=names[label],
        )
        for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True))
    ]
