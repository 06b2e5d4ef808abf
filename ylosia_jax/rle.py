"""Masks as COCO's compressed run lengths: `counts` of an image whose size is known from elsewhere."""

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
