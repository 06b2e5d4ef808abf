"""Instance masks as mixtures of prototypes (YOLACT, arXiv:1904.02689, section 3.1), and where boxes lie on grids.

Shape shorthand: B images, M masks an image, h w cells of the prototypes' grid, C prototypes. A cell at row i covers
[i, i + 1) of the grid; its centre is at i + 0.5. Padding rows are ordinary rows: the caller masks what it makes of
them.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped


def assemble(coefficients: Float[Array, "B M C"], prototypes: Float[Array, "B h w C"]) -> Float[Array, "B M h w"]:
    """Mask logits: each object's mixture of the image's prototypes."""
    return jnp.einsum("bmc,bhwc->bmhw", coefficients, prototypes)


def inside_boxes(boxes: Float[Array, "*M 4"], height: int, width: int) -> Float[Array, "*M h w"]:
    """1 for the cells of a grid whose centres lie in a box, 0 elsewhere.

    Args:
      boxes: xyxy in cells.
    """
    rows, columns = spans(boxes, height, width)
    return (rows[..., :, None] & columns[..., None, :]).astype(boxes.dtype)


def spans(boxes: Float[Array, "*M 4"], height: int, width: int) -> tuple[Bool[Array, "*M h"], Bool[Array, "*M w"]]:
    """The rows and the columns of a grid whose centres lie in a box.

    Args:
      boxes: xyxy in cells.
    """
    x0, y0, x1, y1 = jnp.split(boxes, 4, axis=-1)
    y, x = jnp.arange(height) + 0.5, jnp.arange(width) + 0.5
    return (y >= y0) & (y < y1), (x >= x0) & (x < x1)


def cell_shares(
    numbers: Int[Array, "B H W"], wanted: Int[Array, "B M"], height: int, width: int
) -> Float[Array, "B M h w"]:
    """The share of each cell's pixels that show a number: with it an edge has a place within the cell.

    Of a map that took one pixel a cell, edges would be off by up to half a cell, and all to one side: a cell of even
    width has no pixel at its centre.

    Args:
      numbers: at every pixel, such as those of objects or of classes.
      wanted: of each image; rows of padding are numbers like others.

    Raises:
      ValueError: if the pixels are no whole multiple of the cells.
    """
    factor = numbers.shape[1] // height
    if numbers.shape[1:] != (factor * height, factor * width):
        raise ValueError(f"{numbers.shape[1:]} pixels are no whole multiple of {(height, width)} cells")
    # Pixels sorted by their places in their cells are compared and added up place by place, in one pass over the cells:
    # a sum over the places would first hold every comparison, which took a CPU ten times as long.
    apart, wanted = pixel_unshuffle(numbers, factor), wanted[:, :, None, None]
    each = [(cells[:, None] == wanted).astype(jnp.float32) for row in apart for cells in row]
    return sum(each, start=jnp.zeros(())) / factor**2


def enlarged_argmax(logits: Float[Array, "B h w S"], factor: int) -> Int[Array, "B H W"]:
    """The highest of S maps at every pixel of the maps enlarged bilinearly, without ever holding them enlarged.

    A pixel of a cell sees fixed shares of the cell and its neighbours, by its place in the cell: `factor` squared maps
    of the cells' own size are mixed, and only their winners are interleaved. Edges are repeated.

    Args:
      factor: pixels that a cell is wide.
    """
    mixed = enlarged(jnp.moveaxis(logits, -1, 1), factor)
    return pixel_shuffle(jnp.argmax(mixed, axis=3))


def enlarged(maps: Float[Array, "*B h w"], factor: int) -> Float[Array, "f f *B h w"]:
    """Bilinear enlargement by a whole factor, not yet shuffled: a map for each place of a pixel in its cell.

    The map [r, c] holds the pixels (factor * y + r, factor * x + c). All is elementwise, and cells lie as they did: it
    fuses with what is made of the pixels one by one. Edges are repeated.
    """
    steps = [(i + 0.5) / factor - 0.5 for i in range(factor)]

    def shares(here: Array, before: Array, after: Array) -> Array:
        return jnp.stack([here * (1 - abs(step)) + (before if step < 0 else after) * abs(step) for step in steps])

    # The barriers keep XLA from computing edges and rows anew for every column: a third of the time on a CPU.
    x = jnp.pad(maps, [(0, 0)] * (maps.ndim - 2) + [(1, 1), (1, 1)], mode="edge")
    x = jax.lax.optimization_barrier(x)
    columns = jax.lax.optimization_barrier(shares(x[..., 1:-1], x[..., :-2], x[..., 2:]))
    return shares(columns[..., 1:-1, :], columns[..., :-2, :], columns[..., 2:, :])


def pixel_shuffle(maps: Shaped[Array, "f f *B h w"]) -> Shaped[Array, "*B f*h f*w"]:
    """The picture whose pixels lie sorted by their places in their cells (arXiv:1609.05158, section 3.2).

    `nn.resample.depth_to_space` is the same of channels, on whatever layout a network has.
    """
    factor, _, *batch, height, width = maps.shape
    last = maps.ndim
    together = maps.transpose(*range(2, last - 2), last - 2, 0, last - 1, 1)
    return together.reshape(*batch, height * factor, width * factor)


def pixel_unshuffle(picture: Shaped[Array, "*B H W"], factor: int) -> Shaped[Array, "f f *B h w"]:
    """The inverse of `pixel_shuffle`; the sides of the picture are whole multiples of `factor`."""
    *batch, height, width = picture.shape
    apart = picture.reshape(*batch, height // factor, factor, width // factor, factor)
    first = len(batch)
    return apart.transpose(first + 1, first + 3, *range(first), first, first + 2)
