"""Points as bumps on a grid, and back.

Shape shorthand: N objects, J kinds of points, P bumps of a kind, h w cells of the grid. Places are (x, y) in cells:
cell (i, j) covers [j, j + 1) by [i, i + 1), and its centre is at (j + 0.5, i + 0.5).
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Less of a curve than this is rounding.
_FLAT = 1e-6


def encode_heatmap(
    places: Float[Array, "N J 2"], shown: Bool[Array, "N J"], height: int, width: int, *, spread: float
) -> Float[Array, "h w J"]:
    """One Gaussian bump of height 1 at every shown point; where bumps of a kind overlap, the higher (CenterNet, 3).

    The centre of the bump is the point, not the cell that holds it, so that the cells' values tell the point's place
    exactly (as in arXiv:1910.06278, section 3.2).

    Args:
      shown: False for padding and unlabelled points: they leave no trace.
      spread: standard deviation of a bump in cells.
    """
    x, y = jnp.arange(width) + 0.5, jnp.arange(height) + 0.5
    # What is not shown is infinitely far: masked here, on a line, and not on a map an object.
    px, py = places.T[:, :, None]
    across = jnp.where(shown.T[:, None], (x[:, None] - px) ** 2, jnp.inf)
    down = (y[:, None] - py) ** 2
    # The highest bump is that of the nearest point: one exponential for all of a kind. Objects are the last axis, where
    # every version of XLA's CPU backend is quick at a minimum.
    squared = (down[:, :, None] + across[:, None]).min(axis=-1, initial=jnp.inf)
    return jnp.moveaxis(jnp.exp(-squared / (2 * spread**2)), 0, -1)


def decode_heatmap(logits: Float[Array, "h w J"], peaks: int) -> tuple[Float[Array, "J P 2"], Float[Array, "J P"]]:
    """The tops of the highest bumps of each kind: cells that no neighbour exceeds (CenterNet, section 4).

    The place within the cell is the top of the parabola through the logarithms of the cell and its two neighbours,
    which is exact for Gaussian bumps (DARK, arXiv:1910.06278, section 3.1).

    Args:
      peaks: P, bumps of a kind at most; never more than there are squares of four cells.

    Returns:
      Places, and the height of their bumps in [0, 1], falling; 0 where there are fewer bumps.
    """
    height, width, kinds = logits.shape
    maps = jnp.moveaxis(logits, -1, 0)
    # Past the edge lies nothing: an outermost cell is compared with those it has.
    around = jnp.pad(maps, ((0, 0), (1, 1), (1, 1)), constant_values=-jnp.inf)
    rows = jnp.maximum(jnp.maximum(around[:, :-2], around[:, 1:-1]), around[:, 2:])
    highest = jnp.maximum(jnp.maximum(rows[:, :, :-2], rows[:, :, 1:-1]), rows[:, :, 2:])
    tops = jnp.where(maps == highest, maps, -jnp.inf)
    # Of four cells in a square only one is a top, or all that are lie equally high: a quarter is left to be sorted.
    tops = jnp.pad(tops, ((0, 0), (0, height % 2), (0, width % 2)), constant_values=-jnp.inf)
    squares = tops.reshape(kinds, (height + 1) // 2, 2, (width + 1) // 2, 2).transpose(0, 1, 3, 2, 4)
    squares = squares.reshape(kinds, -1, 4)
    found, square = jax.lax.top_k(squares.max(axis=-1), min(peaks, squares.shape[1]))
    place = jnp.argmax(jnp.take_along_axis(squares, square[..., None], axis=1), axis=-1)
    across = (width + 1) // 2
    row, column = 2 * (square // across) + place // 2, 2 * (square % across) + place % 2
    top = jax.nn.log_sigmoid(found)

    def beside(down: int, right: int) -> Array:
        cell = (row + 1 + down) * (width + 2) + column + 1 + right
        return jax.nn.log_sigmoid(jnp.take_along_axis(around.reshape(kinds, -1), cell, axis=1))

    def vertex(before: Array, after: Array) -> Array:
        curve = 2 * top - before - after
        # A parabola needs both neighbours; where the top is flat its middle is as good as any other place.
        known = (curve > _FLAT) & jnp.isfinite(before) & jnp.isfinite(after)
        return jnp.where(known, jnp.clip(0.5 * (after - before) / jnp.where(known, curve, 1), -0.5, 0.5), 0)

    within = jnp.stack([vertex(beside(0, -1), beside(0, 1)), vertex(beside(-1, 0), beside(1, 0))], axis=-1)
    places = jnp.stack([column, row], axis=-1) + 0.5 + within
    return places, jnp.exp(top)


def nearest_peaks(
    near: Float[Array, "N J 2"],
    reach: Float[Array, "N #J"],
    places: Float[Array, "J P 2"],
    heights: Float[Array, "J P"],
    *,
    min_height: float,
) -> Float[Array, "N J 2"]:
    """The bump that belongs to each expected place: the highest of its kind, weighed by a Gaussian around that place.

    Args:
      near: where the points are expected.
      reach: standard deviation of that expectation.
      places: of the bumps, as `decode_heatmap` finds them.
      heights: theirs.
      min_height: where no bump is this high after the weighing, the expected place is returned.
    """
    # Bumps along the first axis, where reductions are fast on every backend; and a plain maximum, where argmax is slow.
    x, y = jnp.moveaxis(places, -1, 0).mT[:, :, None]
    squared = (near[..., 0] - x) ** 2 + (near[..., 1] - y) ** 2
    weighed = jnp.log(heights).T[:, None] - squared / (2 * reach**2)
    top = weighed.max(axis=0)
    count = places.shape[1]
    best = jnp.where(weighed == top, jnp.arange(count)[:, None, None], count - 1).min(axis=0)
    found = places[jnp.arange(places.shape[0]), best]
    return jnp.where((top >= math.log(min_height))[..., None], found, near)
