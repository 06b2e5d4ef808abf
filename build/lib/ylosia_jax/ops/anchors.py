"""Reference boxes on the cells of a feature pyramid.

Shape shorthand: A anchors over all levels, level by level, row by row, a cell's one after the other.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from ylosia_jax.types import stride


def canvas_of(shapes: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    """(height, width) in pixels of the image that levels of these shapes were made of.

    Args:
      shapes: level -> (height, width); the first one's stride divides the image.
    """
    level, (height, width) = next(iter(shapes.items()))
    return height * stride(level), width * stride(level)


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float]) -> Float[np.ndarray, "n 4"]:
    """The anchors of a cell around its corner (0, 0), rounded to whole pixels: for each ratio, for each size.

    Args:
      sizes: roots of their areas, in pixels.
      ratios: height over width.
    """
    height = np.sqrt(np.array(ratios))[:, None] * np.array(sizes)
    width = 1 / np.sqrt(np.array(ratios))[:, None] * np.array(sizes)
    corner = np.stack([-width, -height, width, height], axis=-1).reshape(-1, 4) / 2
    return np.round(corner).astype(np.float32)


def anchor_boxes(
    shapes: Mapping[str, tuple[int, int]], sizes: Sequence[Sequence[float]], ratios: Sequence[float]
) -> Float[np.ndarray, "A 4"]:
    """Anchors at every cell of every level (Faster R-CNN, arXiv:1506.01497, 3.1.1; FPN, 1612.03144, 4.1).

    They lie around the cells' upper left corners, and cells are a whole number of pixels apart: the image's side over
    the level's, rounded down, as torchvision has it. Where the level's stride divides the image that is its stride.

    Args:
      shapes: level -> (height, width) of its feature map, the finest first.
      sizes: of each level, see `cell_anchors`.
      ratios: of every level.

    Returns:
      [A, 4] xyxy in pixels; a constant of the shapes. Anchors may reach beyond the image.
    """
    canvas = canvas_of(shapes)
    levels: list[np.ndarray] = []
    for (height, width), own in zip(shapes.values(), sizes, strict=True):
        y, x = np.meshgrid(
            np.arange(height) * (canvas[0] // height), np.arange(width) * (canvas[1] // width), indexing="ij"
        )
        shift = np.stack([x, y, x, y], axis=-1).reshape(-1, 1, 4)
        levels.append((shift + cell_anchors(own, ratios)).reshape(-1, 4))
    return np.concatenate(levels).astype(np.float32)


def default_boxes(
    shapes: Mapping[str, tuple[int, int]],
    canvas: tuple[int, int],
    *,
    scales: Sequence[float],
    ratios: Sequence[Sequence[float]],
    steps: Sequence[int],
) -> Float[np.ndarray, "A 4"]:
    """SSD's anchors (arXiv:1512.02325, section 2.2): shares of the canvas, around the cells' centres.

    A cell has one of its level's scale, one of the geometric mean of that and the next level's, and for each ratio a
    wide one and a high one.

    Args:
      shapes: level -> (height, width) of its feature map.
      canvas: (height, width) in pixels.
      scales: sides as shares of the canvas, of each level and of one more.
      ratios: of each level, long side over short.
      steps: pixels between the cells of each level.

    Returns:
      [A, 4] xyxy in pixels; a constant of the shapes. None is larger than the canvas, some reach beyond it.
    """
    # In float32, as shares of the canvas until the end: an object often overlaps several boxes equally but for
    # rounding, and which of them answers for it shall be torchvision's choice.
    sides = np.array(canvas[::-1], np.float32)
    levels: list[np.ndarray] = []
    for (height, width), own, above, shares, step in zip(
        shapes.values(), scales[:-1], scales[1:], ratios, steps, strict=True
    ):
        sizes = [(own, own), ((own * above) ** 0.5,) * 2]
        for ratio in shares:
            sizes += [(own * ratio**0.5, own / ratio**0.5), (own / ratio**0.5, own * ratio**0.5)]
        half = np.minimum(np.array(sizes, np.float32), 1) / 2
        x = (np.arange(width, dtype=np.float32) + 0.5) / np.float32(canvas[1] / step)
        y = (np.arange(height, dtype=np.float32) + 0.5) / np.float32(canvas[0] / step)
        centres = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 1, 2)
        levels.append(np.concatenate([(centres - half) * sides, (centres + half) * sides], axis=-1).reshape(-1, 4))
    return np.concatenate(levels)
