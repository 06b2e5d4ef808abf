"""Looking into regions of feature maps: the same number of bins of every region.

Shape shorthand: B images, R regions an image (padded), H W C axes of a feature map, P Q bins down and across a region,
S sampling points of a bin. Regions are xyxy in pixels of the image. Padding rows are ordinary rows, whose result is
finite: the caller masks what it makes of them.
"""

import functools
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ylosia_jax.ops import boxes as box_ops
from ylosia_jax.types import stride

_CANONICAL = 224  # side of ImageNet's pictures: regions of this size are looked for on level 4


def roi_align(
    features: Float[Array, "B H W C"],
    boxes: Float[Array, "B R 4"],
    size: tuple[int, int],
    *,
    scale: float,
    sampling: int = 2,
    aligned: bool = False,
    weight: Float[Array, "B R"] | None = None,
) -> Float[Array, "B R P Q C"]:
    """The mean over a bin's sampling points of the bilinearly interpolated map (Mask R-CNN, arXiv:1703.06870, 3).

    Bilinear interpolation and means are linear in each axis: a matrix for the rows of every region, one for its
    columns. No gradient flows to the regions.

    Args:
      size: P and Q.
      scale: cells of the map a pixel.
      sampling: S along each axis.
      aligned: cells have their centres at halves, as images do. If not, at whole numbers, half a cell off, and no
        region is narrower than a cell: as the paper's own code had it, and torchvision's detectors have.
      weight: factor of each region.
    """
    boxes = jax.lax.stop_gradient(boxes).astype(jnp.float32) * scale
    _, height, width, _ = features.shape
    rows = bin_weights(boxes[..., 1], boxes[..., 3], size[0], height, sampling=sampling, aligned=aligned)
    columns = bin_weights(boxes[..., 0], boxes[..., 2], size[1], width, sampling=sampling, aligned=aligned)
    if weight is not None:
        rows = rows * weight[..., None, None]
    # The matrices are made in float32: a place in bfloat16 would be off by cells. Rows first: a row's columns and
    # channels lie one after another, one product with a long side. Columns first took the CPU's gradient twice as long.
    across = jnp.einsum("brph,bhwc->brpwc", rows.astype(features.dtype), features)
    return jnp.einsum("brqw,brpwc->brpqc", columns.astype(features.dtype), across)


def bin_weights(
    low: Float[Array, "*R"],
    high: Float[Array, "*R"],
    bins: int,
    size: int,
    *,
    sampling: int | None = 2,
    aligned: bool = False,
) -> Float[Array, "*R {bins} {size}"]:
    """How much each cell of an axis counts in each bin of an interval.

    Points up to one cell outside of the axis count as its end, those beyond not at all.

    Args:
      low: where the intervals begin, in cells.
      high: where they end.
      size: cells of the axis.
      sampling: points of a bin, evenly spaced; None for as many as it is cells wide, rounded up, of which no bin of an
        interval inside the axis has more than there is room for.
      aligned: see `roi_align`.
    """
    if aligned:
        low, high = low - 0.5, high - 0.5
    step = (high - low if aligned else jnp.maximum(high - low, 1)) / bins
    most = max(math.ceil(size / bins), 1) if sampling is None else sampling
    count = jnp.ceil(step) if sampling is None else jnp.full_like(step, sampling)
    count = jnp.clip(count, 1, most)[..., None, None]
    place = (jnp.arange(most) + 0.5) / count  # in bins
    points = low[..., None, None] + (jnp.arange(bins)[:, None] + place) * step[..., None, None]
    counted = (points >= -1) & (points <= size) & (jnp.arange(most) < count)
    points = jnp.clip(points, 0, size - 1)[..., None]
    # A triangle of height 1 at the point holds both neighbours' weights at once.
    each = jnp.maximum(0, 1 - jnp.abs(points - jnp.arange(size))) * counted[..., None]
    return each.sum(axis=-2) / count


def roi_levels(boxes: Float[Array, "*R 4"], finest: int, coarsest: int) -> Int[Array, "*R"]:
    """The level that a region is looked into on: 4 for 224 x 224 px, one less for half of that (1612.03144, eq. 1).

    Args:
      finest: the first level that there is.
      coarsest: the last one.
    """
    # 1e-6 for sides that are powers of two up to rounding, as torchvision has it; no area is no number's logarithm.
    side = jnp.sqrt(jnp.maximum(box_ops.area(boxes), box_ops.EPS))
    return jnp.clip(jnp.floor(4 + jnp.log2(side / _CANONICAL) + 1e-6), finest, coarsest).astype(jnp.int32)


def multilevel_roi_align(
    features: Mapping[str, Float[Array, "B _ _ C"]],
    boxes: Float[Array, "B R 4"],
    size: tuple[int, int],
    *,
    sampling: int = 2,
    aligned: bool = False,
) -> Float[Array, "B R P Q C"]:
    """`roi_align` of each region on the level that suits its size.

    All regions are looked into on all levels, with zeros for matrices on those that are not theirs: the number of a
    level's regions is not known beforehand. Of 512 regions of a 256x320 px image that takes a CPU as long, gradient
    included, as gathering the points from all levels at once, and matrix products are what accelerators are made for.

    Args:
      features: of consecutive levels, finest first.
    """
    numbers = [int(level[1:]) for level in features]
    own = roi_levels(boxes, numbers[0], numbers[-1])
    parts = [
        roi_align(
            features[level],
            boxes,
            size,
            scale=1 / stride(level),
            sampling=sampling,
            aligned=aligned,
            weight=(own == number).astype(jnp.float32),
        )
        for level, number in zip(features, numbers, strict=True)
    ]
    return sum(parts[1:], start=parts[0])


def roi_pool(
    features: Float[Array, "B H W C"], boxes: Float[Array, "B R 4"], size: tuple[int, int], *, scale: float
) -> Float[Array, "B R P Q C"]:
    """The maximum of a bin's cells (Fast R-CNN, arXiv:1504.08083, section 2.1); 0 for a bin without any.

    A region's corners are rounded to whole cells, both of which belong to it, and bins overlap where they do not divide
    it: the first cell of a bin is rounded down, its last up, as torchvision has it. That is computed in whole numbers:
    torchvision's float32 adds a cell to the last bin where 7 bins are cut of 57 cells, and of a few other numbers.

    The maxima of windows of 1, 2, 4, ... cells each way are made once an image, and a bin is the maximum of the four
    that cover it. Equal maxima share the gradient.

    Args:
      size: P and Q.
      scale: cells of the map a pixel.
    """
    # C rounds halves away from zero, NumPy to the even: of what a half is the reference's answer decides.
    corners = boxes.astype(jnp.float32) * scale
    corners = (jnp.sign(corners) * jnp.floor(jnp.abs(corners) + 0.5)).astype(jnp.int32)
    _, height, width, _ = features.shape
    rows = _cells_of_bins(corners[..., 1], corners[..., 3], size[0], height)
    columns = _cells_of_bins(corners[..., 0], corners[..., 2], size[1], width)

    def one(features: Array, rows: tuple[Array, Array], columns: tuple[Array, Array]) -> Array:
        table = _maxima(_maxima(features, axis=1), axis=1)  # [down, across, H, W, C]
        quarters = [
            table[down[:, :, None], across[:, None, :], y[:, :, None], x[:, None, :]]
            for down, y in _two_windows(*rows)
            for across, x in _two_windows(*columns)
        ]
        return functools.reduce(jnp.maximum, quarters)

    best = jax.vmap(one)(features, rows, columns)
    filled = (rows[1] > rows[0])[..., :, None] & (columns[1] > columns[0])[..., None, :]
    return jnp.where(filled[..., None], best, 0)


def _cells_of_bins(low: Array, high: Array, bins: int, cells: int) -> tuple[Array, Array]:
    """First cell of each bin, and the one behind its last, cut to those there are."""
    extent = jnp.maximum(high - low + 1, 1)[..., None]
    first = jnp.arange(bins) * extent // bins + low[..., None]
    last = -(-(jnp.arange(bins) + 1) * extent // bins) + low[..., None]
    return jnp.clip(first, 0, cells), jnp.clip(last, 0, cells)


def _maxima(x: Array, axis: int) -> Array:
    """Maxima of 1, 2, 4, ... cells from each on, along a new first axis: of any interval, two of them are the maximum.

    Where an axis ends, they are of fewer cells.
    """
    levels, reach = [x], 1
    while 2 * reach <= x.shape[axis]:
        last = levels[-1]
        kept = jax.lax.slice_in_dim(last, reach, None, axis=axis)
        end = jax.lax.slice_in_dim(last, x.shape[axis] - reach, None, axis=axis)
        levels.append(jnp.maximum(last, jnp.concatenate([kept, end], axis=axis)))
        reach *= 2
    return jnp.stack(levels)


def _two_windows(first: Array, last: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Level and cell in `_maxima` of the two windows that cover an interval; of an empty one, any."""
    length = jnp.maximum(last - first, 1)
    level = 31 - jax.lax.clz(length)
    return (level, first), (level, last - (1 << level))


def crop_numbers(
    numbers: Int[Array, "B H W"], wanted: Int[Array, "B R"], boxes: Float[Array, "B R 4"], size: tuple[int, int]
) -> Float[Array, "B R P Q"]:
    """`roi_align` of the pixels that show a number, 1, among the others, 0: a region's cut of its object's mask.

    Sampled as densely as the pixels lie, and not aligned: as torchvision makes the masks that Mask R-CNN learns.

    Args:
      numbers: at every pixel.
      wanted: of each region.
      size: P and Q.
    """
    height, width = numbers.shape[1:]
    rows = bin_weights(boxes[..., 1], boxes[..., 3], size[0], height, sampling=None)
    columns = bin_weights(boxes[..., 0], boxes[..., 2], size[1], width, sampling=None)

    def one(region: tuple[Array, Array, Array]) -> Array:
        wanted, rows, columns = region
        mask = (numbers == wanted[:, None, None]).astype(rows.dtype)
        return jnp.einsum("bqw,bpw->bpq", columns, jnp.einsum("bph,bhw->bpw", rows, mask))

    # A region of every image after the other: a mask each would fill the memory.
    cut = jax.lax.map(one, tuple(jnp.moveaxis(x, 1, 0) for x in (wanted, rows, columns)))
    return jnp.moveaxis(cut, 0, 1)
