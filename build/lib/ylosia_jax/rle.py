"""Masks as COCO's compressed run lengths: `counts` of an image whose size is known from elsewhere."""

import math
from collections.abc import Sequence
from reprlib import repr as brief
from typing import Any

import hotcoco.mask as coco_mask  # pyright: ignore[reportMissingModuleSource] it is compiled
import numpy as np


def is_finite(value: Any) -> bool:
    """Whether a value out of a file is a number that a float can hold."""
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


def encode(mask: np.ndarray) -> bytes:
    """Of [H, W] bool, or numbers that are 0 outside."""
    rle: Any = coco_mask.encode(np.asfortranarray(mask != 0))
    return rle["counts"]


def decode(counts: bytes, size: tuple[int, int]) -> np.ndarray:
    """To [H, W] bool.

    Args:
      counts: of an image of that size, which is not checked here: `from_runs` did, when they came in.
      size: height and width.
    """
    rle: Any = {"size": list(size), "counts": counts}
    return np.asarray(coco_mask.decode(rle)) > 0


def of_box(box: Sequence[int], size: tuple[int, int]) -> bytes:
    """Of a filled box [x0, y0, x1, y1] in whole pixels, within an image of that height and width."""
    x0, y0, x1, y1 = box
    page = np.zeros(size, bool)
    page[y0:y1, x0:x1] = True
    return encode(page)


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
        if not all(map(is_finite, numbers)):
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
    edges = np.stack([points, np.roll(points, -1, axis=0)], axis=1)

    def side(edges: np.ndarray, points: np.ndarray) -> np.ndarray:
        """On which side of each edge (rows) each point (columns) lies."""
        (x0, y0), (x, y) = edges[:, 0].T[..., None], points.T[:, None]
        dx, dy = (edges[:, 1] - edges[:, 0]).T[..., None]
        return np.sign(dx * (y - y0) - dy * (x - x0))

    def apart(edges: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Whether each edge (rows) has the ends of each other one (columns) on its two sides."""
        return side(edges, others[:, 0]) * side(edges, others[:, 1]) < 0

    # Some rows at a time: a contour that was traced pixel by pixel has thousands of edges.
    parts = [edges[i : i + 256] for i in range(0, len(edges), 256)]
    return any(bool((apart(part, edges) & apart(edges, part).T).any()) for part in parts)


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
