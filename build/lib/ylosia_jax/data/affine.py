"""Affine transforms of pictures: one for the pixels, boxes, points and maps of numbers of each.

Shape shorthand: N objects, H W canvas, which pictures come from and go to. Pairs that tell of rows and columns are
(y, x), places are (x, y).
"""

from collections.abc import Callable

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from ylosia_jax.ops import image as image_ops


@struct.dataclass
class Affine:
    """A picture is mirrored in place, scaled, shifted, and turned and slanted about the middle of the canvas.

    Without `turn` all pixels move by one matrix an axis; with it they are gathered, which TPUs are slow at.

    Attributes:
      extent: [2] height and width of the picture, in the top left corner of its canvas.
      flips: [2] whether up and down, left and right change places.
      scale: pixels of the new canvas that one becomes.
      start: [2] where its first row and column come to lie, before it is turned.
      turn: [2, 2] what a place, counted from the middle of the canvas, is multiplied by; None for nothing.
      canvas: (H, W).
    """

    extent: Float[Array, "2"]
    flips: Bool[Array, "2"]
    scale: Float[Array, ""]
    start: Float[Array, "2"]
    turn: Float[Array, "2 2"] | None
    canvas: tuple[int, int] = struct.field(pytree_node=False)

    @property
    def _middle(self) -> Array:
        return jnp.array([self.canvas[1] / 2, self.canvas[0] / 2], jnp.float32)

    def points(self, places: Float[Array, "*N 2"]) -> Float[Array, "*N 2"]:
        """Where places (x, y) of the picture go, in pixels of the new canvas; beyond it where the picture is."""
        mirrored = jnp.where(self.flips[::-1], self.extent[::-1] - places, places)
        return self._turned(mirrored * self.scale + self.start[::-1])

    def boxes(self, boxes: Float[Array, "N 4"]) -> Float[Array, "N 4"]:
        """The smallest upright boxes around the boxes' corners: xyxy, reaching beyond the canvas where pictures do."""
        low, high = self.points(boxes[:, :2]), self.points(boxes[:, 2:])
        ends = [low, high]
        if self.turn is not None:
            ends += [self.points(boxes[:, [0, 3]]), self.points(boxes[:, [2, 1]])]
        ends = jnp.stack(ends)
        return jnp.concatenate([ends.min(axis=0), ends.max(axis=0)], axis=-1)

    def image(self, image: Float[Array, "H W C"]) -> tuple[Float[Array, "H W C"], Float[Array, "H W 1"]]:
        """The picture on its new canvas, zeros around it, and how much of each pixel it covers."""
        if self.turn is None:
            rows, columns = (self._axis(image_ops.interpolation_matrix, axis) for axis in (0, 1))
            cover = rows.sum(axis=1)[:, None, None] * columns.sum(axis=1)[None, :, None]
            return image_ops.resample(image, rows, columns), cover
        # A slant makes a picture narrow across itself.
        scale = self.scale * _least_stretch(self.turn)
        blurs = (image_ops.lowpass_matrix(self.canvas[axis], self.extent[axis], scale) for axis in (0, 1))
        points, inside = self._sources(self.turn)
        cover = inside[..., None].astype(jnp.float32)
        return image_ops.sample(image_ops.resample(image, *blurs), points, self.extent) * cover, cover

    def labels(self, numbers: Int[Array, "H W"]) -> Int[Array, "H W"]:
        """A map of numbers likewise; each pixel has that of one of the picture's."""
        if self.turn is None:
            rows, columns = (self._axis(image_ops.sampling_matrix, axis) for axis in (0, 1))
            sampled = image_ops.resample(numbers.astype(jnp.float32)[..., None], rows, columns)[..., 0]
            return jnp.round(sampled).astype(jnp.int32)
        points, inside = self._sources(self.turn)
        return jnp.where(inside, image_ops.sample_nearest(numbers.astype(jnp.int32), points, self.extent), 0)

    def _axis(self, matrix: Callable[..., Array], axis: int) -> Array:
        size, start, flip = self.canvas[axis], self.start[axis], self.flips[axis]
        return matrix(size, size, self.extent[axis], scale=self.scale, offset=start, flip=flip)

    def _turned(self, places: Float[Array, "*N 2"]) -> Float[Array, "*N 2"]:
        if self.turn is None:
            return places
        # As sums: a product of matrices would be rounded to eight bits on a TPU.
        away = places - self._middle
        return (away[..., None, :] * self.turn).sum(axis=-1) + self._middle

    def _sources(self, turn: Float[Array, "2 2"]) -> tuple[Float[Array, "H W 2"], Bool[Array, "H W"]]:
        """The place in the picture that each pixel's centre comes from, and whether there is one."""
        across, down = jnp.meshgrid(jnp.arange(self.canvas[1]) + 0.5, jnp.arange(self.canvas[0]) + 0.5)
        away = jnp.stack([across, down], axis=-1) - self._middle
        back = jnp.array([[turn[1, 1], -turn[0, 1]], [-turn[1, 0], turn[0, 0]]])
        back = back / (turn[0, 0] * turn[1, 1] - turn[0, 1] * turn[1, 0])
        upright = (away[..., None, :] * back).sum(axis=-1) + self._middle
        places = (upright - self.start[::-1]) / self.scale
        inside = ((places > 0) & (places < self.extent[::-1])).all(axis=-1)
        return jnp.where(self.flips[::-1], self.extent[::-1] - places, places), inside


def _least_stretch(matrix: Float[Array, "2 2"]) -> Float[Array, ""]:
    """The smaller singular value, to rounding: of a turn it is 1, and shall not be less by a digit."""
    squares, area = (matrix**2).sum(), matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]
    least = jnp.sqrt((squares - jnp.sqrt(jnp.maximum(squares**2 - 4 * area**2, 0))) / 2)
    return jnp.where(least > 0.99, 1, least)
