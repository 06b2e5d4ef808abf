"""Augmentation on the device, in XLA, for images and boxes together.

Every image of a batch draws its randomness from (seed, epoch, index) alone, so the number of hosts and devices, the
place in the batch and a resumed run change nothing. Scale, translation, flips and mosaic are one pair of interpolation
matrices an image or tile: no gather.

Shape shorthand: B images, N objects (padded), H W canvas, T tiles.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PRNGKeyArray

from ylosia_jax.ops import boxes as box_ops
from ylosia_jax.ops import image as image_ops
from ylosia_jax.types import Batch, Objects

# The grey that fills what no picture covers, here and in the letterbox.
FILL = 114


@dataclasses.dataclass(frozen=True)
class Augment:
    """What happens to a training image; the defaults only centre it on its canvas.

    Attributes:
      flip: probability of a left-right flip.
      flip_vertical: probability of an up-down flip.
      scale: range of the random scale, drawn evenly in its logarithm.
      translate: largest shift, as a fraction of the canvas.
      mosaic: probability that an image shares its canvas with the next three of the batch (YOLOv4, arXiv:2004.10934,
        section 3.3).
      close_mosaic: fraction of the run, at its end, without mosaic: the last epochs see whole pictures.
      hue: largest turn of hue, as a fraction of the colour circle.
      saturation: largest relative change of saturation.
      brightness: largest relative change of brightness.
      contrast: largest relative change of contrast.
      min_visible: an object stays if at least this share of its box remains in view.
      min_side: and if both sides are at least this long, in pixels.
    """

    flip: float = 0.0
    flip_vertical: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    translate: float = 0.0
    mosaic: float = 0.0
    close_mosaic: float = 0.1
    hue: float = 0.0
    saturation: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    min_visible: float = 0.2
    min_side: float = 2.0

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(f"scale is {self.scale}: give (low, high) with 0 < low <= high")


def image_keys(seed: int, batch: Batch) -> Key[Array, " B"]:
    """One random key an image, from (seed, epoch, index)."""
    fold = jax.vmap(lambda epoch, index: jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), epoch), index))
    return fold(batch.epoch, batch.index)


def augment(config: Augment, batch: Batch, seed: int, progress: Float[Array, ""] | float) -> Batch:
    """Augments a batch.

    Objects keep their N rows: with mosaic up to 4 N objects compete for them and the first N that remain visible stay.
    Crowd boxes move along with the others. Padding rows stay padding.

    Args:
      batch: uint8 images on their canvas.
      seed: of the run.
      progress: share of the run that is done, in [0, 1); traced, so that closing the mosaic compiles nothing anew.

    Returns:
      The batch with float32 images in [0, 1] and moved objects; `extent` is the whole canvas.
    """
    height, width = batch.image.shape[1:3]
    canvas = jnp.array([height, width], jnp.float32)
    draws = jax.vmap(lambda key: _draw(config, key, canvas, progress))(image_keys(seed, batch))

    if config.mosaic == 0:
        image, cover, objects = _alone(config, batch, draws)
    else:
        # One compilation serves both; a batch without any mosaic takes the cheap branch at run time.
        image, cover, objects = jax.lax.cond(
            draws["mosaic"].any(), lambda: _mosaic(config, batch, draws), lambda: _alone(config, batch, draws)
        )

    def recolour(image: Array, cover: Array, draw: dict[str, Array]) -> Array:
        matrix = image_ops.colour_matrix(draw["hue"], draw["saturation"], draw["brightness"])
        picture = image_ops.recolour(image, matrix, draw["contrast"])
        return picture * cover + FILL / 255 * (1 - cover)

    image = jax.vmap(recolour)(image, cover, draws)
    return batch.replace(  # type: ignore[attr-defined]
        image=image, objects=objects, extent=jnp.broadcast_to(canvas, batch.extent.shape)
    )


def _draw(config: Augment, key: PRNGKeyArray, canvas: Array, progress: Float[Array, ""] | float) -> dict[str, Array]:
    """Every random number of one image."""
    keys = iter(jax.random.split(key, 12))

    def around_one(spread: float) -> Array:
        return jax.random.uniform(next(keys), (), minval=1 - spread, maxval=1 + spread)

    low, high = jnp.log(jnp.array(config.scale))
    return {
        # One draw for each of the four tiles.
        "flip": jax.random.bernoulli(next(keys), config.flip, (4,)),
        "flip_vertical": jax.random.bernoulli(next(keys), config.flip_vertical, (4,)),
        "scale": jnp.exp(jax.random.uniform(next(keys), (), minval=low, maxval=high)),
        "shift": jax.random.uniform(next(keys), (2,), minval=-1, maxval=1) * config.translate * canvas,
        "centre": jax.random.uniform(next(keys), (2,), minval=-0.5, maxval=0.5) * canvas,
        "mosaic": jax.random.bernoulli(next(keys), config.mosaic) & (progress < 1 - config.close_mosaic),
        "hue": jax.random.uniform(next(keys), (), minval=-1, maxval=1) * config.hue * 2 * jnp.pi,
        "saturation": around_one(config.saturation),
        "brightness": around_one(config.brightness),
        "contrast": around_one(config.contrast),
    }


def _place(draw: dict[str, Array], extent: Array, canvas: Array, tile: int) -> Array:
    """Where a tile's picture starts on the canvas, (y, x).

    A lone picture is centred; the tiles of a mosaic meet in one point, the first above left of it.
    """
    middle = canvas / 2 + draw["shift"]
    # Whole pixels: half of one, from an odd margin, would blur a picture that is only to be centred.
    alone = jnp.floor((canvas - extent) / 2) + draw["shift"] + (1 - draw["scale"]) * extent / 2
    before = jnp.array([tile < 2, tile % 2 == 0])
    shared = middle + draw["scale"] * (draw["centre"] - extent * before)
    return jnp.where(draw["mosaic"], shared, alone) if tile == 0 else shared


Pasted = tuple[Float[Array, "B H W 3"], Float[Array, "B H W 1"], Objects]


def _paste(config: Augment, batch: Batch, draws: dict[str, Array], tile: int, shown: Array) -> Pasted:
    """Moves every picture to its place as tile number `tile`; those not `shown` leave no trace."""
    height, width = batch.image.shape[1:3]
    canvas = jnp.array([height, width], jnp.float32)

    def one(
        image: Array, extent: Array, objects: Objects, draw: dict[str, Array], shown: Array
    ) -> tuple[Array, Array, Objects]:
        scale = draw["scale"]
        start = _place(draw, extent, canvas, tile)
        flips = draw["flip_vertical"][tile], draw["flip"][tile]
        rows, columns = (
            image_ops.interpolation_matrix(size, size, extent[i], scale=scale, offset=start[i], flip=flips[i])
            for i, size in enumerate((height, width))
        )
        rows = rows * shown
        cover = rows.sum(axis=1)[:, None, None] * columns.sum(axis=1)[None, :, None]

        low, high = objects.boxes[:, :2], objects.boxes[:, 2:]
        mirrored = jnp.stack([flips[1], flips[0]])
        size = extent[::-1]
        low, high = jnp.where(mirrored, size - high, low), jnp.where(mirrored, size - low, high)
        boxes = jnp.concatenate([low, high], axis=-1) * scale + jnp.tile(start[::-1], 2)
        seen = box_ops.clip(boxes, float(height), float(width))
        sides = seen[:, 2:] - seen[:, :2]
        visible = box_ops.area(seen) >= config.min_visible * box_ops.area(boxes)
        valid = objects.valid & visible & (sides.min(axis=-1) >= config.min_side) & shown
        moved = Objects(
            boxes=seen * valid[:, None], labels=objects.labels * valid, valid=valid, crowd=objects.crowd & valid
        )
        return image_ops.resample(image_ops.to_float(image), rows, columns), cover, moved

    return jax.vmap(one)(batch.image, batch.extent, batch.objects, draws, shown)


def _alone(config: Augment, batch: Batch, draws: dict[str, Array]) -> Pasted:
    """Every picture has its canvas to itself."""
    return _paste(config, batch, draws, 0, jnp.ones_like(draws["mosaic"]))


def _mosaic(config: Augment, batch: Batch, draws: dict[str, Array]) -> Pasted:
    """Four tiles an image where its draw says so: its own picture and the next three of the global batch."""
    image, cover, own = _alone(config, batch, draws)
    parts = [own]
    for tile in (1, 2, 3):
        neighbours = jax.tree.map(lambda x, shift=tile: jnp.roll(x, -shift, axis=0), batch)
        more, more_cover, objects = _paste(config, neighbours, draws, tile, draws["mosaic"])
        image, cover = image + more, cover + more_cover
        parts.append(objects)
    joined = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *parts)
    return image, cover, _compact(joined, batch.objects.labels.shape[1])


def _compact(objects: Objects, rows: int) -> Objects:
    """Brings the valid rows to the front, in order, and keeps `rows` of them."""
    order = jnp.argsort(~objects.valid, axis=1, stable=True)[:, :rows]
    return jax.tree.map(
        lambda x: jnp.take_along_axis(x, order.reshape(*order.shape, *[1] * (x.ndim - 2)), axis=1), objects
    )
