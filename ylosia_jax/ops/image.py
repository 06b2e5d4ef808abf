"""Image geometry and colour: as matrix products, which every accelerator is fast at, wherever they can be.

Shape shorthand: H W input height and width, h w output height and width.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# Rec. 601 luma, the grey that photographs are desaturated to.
LUMA = (0.299, 0.587, 0.114)


def interpolation_matrix(
    out_size: int,
    in_size: int,
    extent: Float[Array, ""] | float,
    *,
    scale: Float[Array, ""] | float = 1.0,
    offset: Float[Array, ""] | float = 0.0,
    flip: Bool[Array, ""] | bool = False,
) -> Float[Array, "out_size in_size"]:
    """One axis of a scale-and-translate as a matrix: linear interpolation, averaging where it shrinks.

    The picture covers [0, extent) of the input axis and [offset, offset + scale * extent) of the output axis. Pixel i
    covers [i, i + 1), so centres lie at halves. Pictures end where they end: rows of the matrix sum to 1 where the
    output pixel's centre lies in the picture and are zero elsewhere, and input past `extent` is never read.

    Args:
      extent: the picture's length in input pixels, at most `in_size`; the rest of the axis is padding.
      scale: output pixels an input pixel becomes, above 0.
      offset: output coordinate of the picture's start.
      flip: mirror the picture in place.
    """
    centres = (jnp.arange(out_size) + 0.5 - offset) / scale
    inside = (centres > 0) & (centres < extent)
    # Past the outermost centres the edge pixel is repeated.
    source = jnp.clip(jnp.where(flip, extent - centres, centres), 0.5, extent - 0.5)
    weights = _triangles(source, in_size, extent, scale)
    return weights * inside[:, None]


def lowpass_matrix(
    size: int, extent: Float[Array, ""] | float, scale: Float[Array, ""] | float
) -> Float[Array, "{size} {size}"]:
    """One axis of a blur that leaves no detail finer than a pixel will be wide.

    What is shrunk by sampling it at points is to be blurred before, or fine patterns become coarse ones.

    Args:
      extent: the picture's length in pixels, at most `size`; the rest of the axis is padding, never read.
      scale: of the shrinking to come; from 1 on nothing is blurred.
    """
    return _triangles(jnp.clip(jnp.arange(size) + 0.5, 0.5, extent - 0.5), size, extent, scale)


def _triangles(
    source: Float[Array, " out_size"], in_size: int, extent: Array | float, scale: Array | float
) -> Float[Array, "out_size in_size"]:
    """Weights of the pixels about each point, which sum to 1."""
    pixels = jnp.arange(in_size) + 0.5
    # Shrinking widens the triangle to the output pixel's footprint, which is what antialiasing is.
    weights = jnp.maximum(0, 1 - jnp.abs(source[:, None] - pixels) * jnp.minimum(scale, 1)) * (pixels < extent)
    return weights / jnp.maximum(weights.sum(axis=1, keepdims=True), 1e-6)


def sampling_matrix(
    out_size: int,
    in_size: int,
    extent: Float[Array, ""] | float,
    *,
    scale: Float[Array, ""] | float = 1.0,
    offset: Float[Array, ""] | float = 0.0,
    flip: Bool[Array, ""] | bool = False,
) -> Float[Array, "out_size in_size"]:
    """`interpolation_matrix` for numbers that cannot be averaged, such as classes: each pixel takes one input pixel.

    Rows are one-hot, or zero where the pixel's centre lies outside the picture. Whole numbers up to 256 pass unchanged
    through a product with it, also where the accelerator multiplies in bfloat16.
    """
    centres = (jnp.arange(out_size) + 0.5 - offset) / scale
    inside = (centres > 0) & (centres < extent)
    source = jnp.floor(jnp.where(flip, extent - centres, centres))
    # In the picture's last cell rounding may reach its end.
    source = jnp.clip(source, 0, extent - 1)
    return ((jnp.arange(in_size) == source[:, None]) & inside[:, None]).astype(jnp.float32)


def resample(
    image: Float[Array, "*B H W C"], rows: Float[Array, "*B h H"], columns: Float[Array, "*B w W"]
) -> Float[Array, "*B h w C"]:
    """Applies one interpolation matrix to each axis; zeros where either matrix has a zero row."""
    return jnp.einsum("...hH,...HWc,...wW->...hwc", rows, image, columns, optimize=[(0, 1), (0, 1)])


def sample(
    image: Float[Array, "H W C"], points: Float[Array, "h w 2"], extent: Float[Array, "2"]
) -> Float[Array, "h w C"]:
    """The image between its pixels, linear in both axes: for what no product of matrices does, such as a turn.

    Gathers, which TPUs are slow at.

    Args:
      points: (x, y); pixel i covers [i, i + 1). Past the outermost centres the edge is repeated.
      extent: height and width of the picture; the rest is padding, never read.
    """
    place = jnp.clip(points[..., ::-1], 0.5, extent - 0.5) - 0.5
    # Of the last pixel the next has no part, and is none.
    low = jnp.clip(jnp.floor(place), 0, jnp.maximum(extent - 2, 0))
    part = place - low
    (y0, x0), (y, x) = (jnp.moveaxis(pair, -1, 0) for pair in (low.astype(jnp.int32), part))
    y1, x1 = (jnp.minimum(first + 1, size - 1) for first, size in zip((y0, x0), image.shape[:2], strict=True))
    x, y = x[..., None], y[..., None]
    above = image[y0, x0] * (1 - x) + image[y0, x1] * x
    below = image[y1, x0] * (1 - x) + image[y1, x1] * x
    return above * (1 - y) + below * y


def sample_nearest(
    numbers: Int[Array, "H W"], points: Float[Array, "h w 2"], extent: Float[Array, "2"]
) -> Int[Array, "h w"]:
    """`sample` for numbers that cannot be averaged: that of the pixel which each point lies in, or is nearest to."""
    y, x = jnp.moveaxis(jnp.clip(jnp.floor(points[..., ::-1]), 0, extent - 1).astype(jnp.int32), -1, 0)
    return numbers[y, x]


def resize(image: Float[Array, "B H W C"], height: int, width: int) -> Float[Array, "B {height} {width} C"]:
    """Bilinear, by the places of the pixels' centres, and without averaging where it shrinks, as PyTorch's default is.

    At the highest precision of the accelerator: it is as cheap as it is rare.
    """
    shape = (image.shape[0], height, width, image.shape[3])
    return jax.image.resize(image, shape, "linear", antialias=False)


def colour_matrix(
    hue: Float[Array, ""] | float, saturation: Float[Array, ""] | float, gain: Float[Array, ""] | float
) -> Float[Array, "3 3"]:
    """Linear map of RGB that turns hue, scales saturation, and scales brightness.

    Args:
      hue: turn about the grey axis, in radians.
      saturation: 0 gives grey, 1 leaves colours alone.
      gain: factor on every channel.
    """
    luma = jnp.array([LUMA, LUMA, LUMA])
    saturate = luma + (jnp.eye(3) - luma) * saturation
    # Rodrigues' rotation about (1, 1, 1): greys stay where they are.
    cos, sin = jnp.cos(hue), jnp.sin(hue)
    cross = jnp.array([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / jnp.sqrt(3.0)
    turn = cos * jnp.eye(3) + sin * cross + (1 - cos) / 3
    return gain * (saturate @ turn)


def to_float(image: Array) -> Float[Array, "*B H W C"]:
    """uint8 in [0, 255] to float32 in [0, 1]; floats pass."""
    return image.astype(jnp.float32) / 255 if image.dtype == jnp.uint8 else image


def recolour(
    image: Float[Array, "H W 3"], matrix: Float[Array, "3 3"], contrast: Float[Array, ""] | float
) -> Float[Array, "H W 3"]:
    """Applies a colour matrix, then stretches contrast about middle grey; the result is clipped to [0, 1]."""
    # At highest precision: three channels cost nothing, and TPU's default would quantise colours to 8 bits.
    mapped = jnp.einsum("hwc,dc->hwd", image, matrix, precision=jax.lax.Precision.HIGHEST)
    return jnp.clip((mapped - 0.5) * contrast + 0.5, 0, 1)
