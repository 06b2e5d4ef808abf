"""Masks as COCO's compressed run lengths: `counts` of an image whose size is known from elsewhere."""

import math
from reprlib import repr as brief
from typing import Any

import hotcoco.mask as coco_mask  # pyright: ignore[reportMissingModuleSource] it is compiled
import numpy as np


def encode(mask: np.ndarray) -> bytes:
    """Of [H, W] bool, or numbers that are 0 outside."""
    rle: Any = coco_mask.encode(np.asfortranarray(mask != 0))
    return rle["counts"]


def decode(counts: bytes, size: tuple[int, int]) -> np.ndarray:
    """To [H, W] bool.

    Args:
      size: height and width.

    Raises:
      ValueError: if the runs are not of an image of that size.
    """
    rle: Any = {"size": list(size), "counts": counts}
    return np.asarray(coco_mask.decode(rle)) > 0


def area(counts: bytes, size: tuple[int, int]) -> int:
    """Pixels inside."""
    rle: Any = {"size": list(size), "counts": counts}
    return int(coco_mask.area(rle))


def from_polygons(polygons: list[Any], size: tuple[int, int]) -> bytes:
    """The union of polygons [x0, y0, x1, y1, …] in pixels, rasterised as COCO's tools do.

    Raises:
      ValueError: for one that is no list of at least three finite points.
    """
    height, width = size
    for polygon in polygons:
        numbers = polygon if isinstance(polygon, list) else []
        if len(numbers) < 6 or len(numbers) % 2:
            raise ValueError(f"polygon {brief(polygon)} has not at least 3 points of x and y each")
        if not all(type(value) in (int, float) and math.isfinite(value) for value in numbers):
            raise ValueError(f"polygon {brief(polygon)} has a coordinate that is no finite number")
    # Far outside, the rasteriser would walk along every pixel of an edge.
    reach = 4 * max(height, width)
    bounded = [np.clip(np.array(polygon, np.float64), -reach, reach).tolist() for polygon in polygons]
    rles: Any = coco_mask.fr_py_objects(bounded, height, width)
    merged: Any = coco_mask.merge(rles)
    return merged["counts"]


def from_runs(counts: Any, size: tuple[int, int]) -> bytes:
    """Run lengths as a file has them: a list of numbers, or COCO's compressed text.

    Raises:
      ValueError: if they are neither, or do not add up to the image's pixels.
    """
    if isinstance(counts, str | bytes):
        text = counts.encode() if isinstance(counts, str) else counts
        lengths = _lengths(text)
    elif isinstance(counts, list) and all(type(n) is int for n in counts):
        lengths, text = counts, None
    else:
        raise ValueError(f"run lengths {brief(counts)} are neither a list of whole numbers nor compressed text")
    height, width = size
    if any(n < 0 for n in lengths) or sum(lengths) != height * width:
        raise ValueError(f"run lengths add up to {sum(lengths)}, but the image has {width}x{height} pixels")
    if text is not None:
        return text
    rle: Any = coco_mask.fr_py_objects({"size": [height, width], "counts": lengths}, height, width)
    return rle["counts"]


def crosses_itself(polygon: list[float]) -> bool:
    """Whether two edges of a polygon [x0, y0, x1, y1, …] that are no neighbours cross."""
    points = np.array(polygon, np.float64).reshape(-1, 2)
    a, b = points, np.roll(points, -1, axis=0)

    def side(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> np.ndarray:
        """On which side of each edge p, q (rows) each point r (columns) lies."""
        d = q - p
        return np.sign(
            d[:, None, 0] * (r[None, :, 1] - p[:, None, 1]) - d[:, None, 1] * (r[None, :, 0] - p[:, None, 0])
        )

    apart = side(a, b, a) * side(a, b, b) < 0
    return bool((apart & apart.T).any())


def _lengths(text: bytes) -> list[int]:
    """Run lengths out of COCO's compressed text: base 32, least digit first, from the third on as differences."""
    lengths: list[int] = []
    value = shift = 0
    for byte in text:
        digit = byte - 48
        if not 0 <= digit < 64:
            raise ValueError(f"{bytes([byte])!r} is no character of compressed run lengths")
        value |= (digit & 31) << shift
        shift += 5
        if shift > 60:
            raise ValueError("a run length has too many digits")
        if not digit & 32:
            if digit & 16:
                value -= 1 << shift
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("the compressed run lengths are cut off")
    return lengths
