"""Image files, which are hostile until decoded: bounded, whole, and of a kind that is known."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np

from ylosia_jax.files import read_bytes

MAX_IMAGE_BYTES = 256 << 20
MAX_PIXELS = 1 << 28

_PNG = b"\x89PNG\r\n\x1a\n"
_PALETTE = 3  # the header's colour type

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


def decode_labels(data: bytes) -> np.ndarray:
    """Numbers [H, W] uint8 of an encoded map as stored. ValueError if it cannot be, or holds more than one channel."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ValueError("the map cannot be decoded") from error
    if image is None or image.ndim != 2 or image.dtype != np.uint8:
        raise ValueError("the map cannot be decoded to one channel of bytes")
    return image


def read_numbers(path: Path, *, indices: bool = False) -> np.ndarray:
    """[H, W] or [H, W, C] of a file of masks, as stored. OSError or ValueError, naming the file, if it is not whole.

    Args:
      indices: the numbers of a PNG with a palette, as VOC's are, are the palette's indices and not its colours.
    """
    try:
        _check_whole(data := read_bytes(path, MAX_IMAGE_BYTES))
        data = _with_plain_palette(data) if indices else data
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except OSError as error:
        raise OSError(f"{path}: {error.strerror or error}") from error
    except (ValueError, cv2.error) as error:
        raise ValueError(f"{path}: {'it cannot be decoded' if isinstance(error, cv2.error) else error}") from error
    if image is None:
        raise ValueError(f"{path}: it cannot be decoded")
    return image


def _with_plain_palette(data: bytes) -> bytes:
    """A PNG whose palette's colours are replaced by its indices, as greys; other files as they are. It is whole."""
    if not data.startswith(_PNG) or data[25] != _PALETTE:
        return data
    parts, at = [_PNG], len(_PNG)
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        if kind == b"PLTE":
            body = bytes(index for index in range(1 << data[24]) for _ in range(3))
        if kind != b"tRNS":
            parts += [struct.pack(">I", len(body)), kind, body, struct.pack(">I", zlib.crc32(kind + body))]
        at += 12 + length
    return b"".join(parts)


def verify(path: Path) -> np.ndarray:
    """RGB pixels [H, W, 3] uint8 of a JPEG, PNG or BMP file as stored. OSError or ValueError if it is not whole."""
    return decode_whole(read_bytes(path, MAX_IMAGE_BYTES))


def decode_whole(data: bytes) -> np.ndarray:
    """The same of the file's content."""
    _check_whole(data)
    return decode(data)


def _check_whole(data: bytes) -> None:
    # cv2 alone is no judge: its releases differ in whether they take a JPEG that is cut off.
    if not data:
        raise ValueError("the file is empty")
    try:
        width, height = _size(data)
    except (IndexError, struct.error) as error:
        raise ValueError("the image is cut off or damaged") from error
    if width * height > MAX_PIXELS:
        raise ValueError(f"the image has {width}x{height} pixels, more than the limit of {MAX_PIXELS}")


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
    if data.startswith(_PNG):
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
