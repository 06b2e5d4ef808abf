"""Augmentation on the device, in XLA, for images, boxes, masks, poses and semantic maps together.

Every image of a batch draws its randomness from (seed, epoch, index) alone, so the number of hosts and devices, the
place in the batch and a resumed run change nothing. Scale, translation, flips and mosaic are one pair of interpolation
matrices an image or tile: no gather. Maps of numbers (instances, classes) move by matrices with a single one in a row.
Turns and slants alone gather, and a run without them does not have them in its program.

Shape shorthand: B images, N objects (padded), H W canvas, J points of a pose, T tiles.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from ylosia_jax.data.affine import Affine
from ylosia_jax.data.copy_paste import copy_paste
from ylosia_jax.data.pasted import Pasted, compact
from ylosia_jax.ops import boxes as box_ops
from ylosia_jax.ops import image as image_ops
from ylosia_jax.types import VOID, Batch, Objects, Rois

# The usual grey where no picture is, here and in the letterbox.
FILL = 114


@dataclasses.dataclass(frozen=True)
class Augment:
    """What happens to a training image; the defaults only centre it on its canvas.

    Attributes:
      flip: probability of a left-right flip.
      flip_vertical: probability of an up-down flip.
      scale: range of the random scale, drawn evenly in its logarithm.
      translate: largest shift, as a fraction of the canvas.
      jitter: place a lone picture anywhere on its canvas, and of one that is larger show any part, instead of shifting
        it about the middle. With a scale of (0.1, 2) this is large-scale jitter (arXiv:2012.07177, section 3).
      rotate: largest turn about the middle of the canvas, in degrees. A box becomes the upright one around its corners.
        Turned or slanted pixels are gathered, which TPUs are slow at.
      shear: largest slant, in degrees, along each axis.
      mosaic: probability that an image shares its canvas with the next three of the batch (YOLOv4, arXiv:2004.10934,
        section 3.3).
      close_mosaic: fraction of the run, at its end, without mosaic: the last epochs see whole pictures.
      copy_paste: probability that about half of the next image's objects are pasted over an image, as it stands on its
        own canvas (arXiv:2012.07177). It needs masks.
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
    jitter: bool = False
    rotate: float = 0.0
    shear: float = 0.0
    mosaic: float = 0.0
    close_mosaic: float = 0.1
    copy_paste: float = 0.0
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
        for name in ("flip", "flip_vertical", "mosaic", "copy_paste"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give a probability, from 0 to 1")
        if not 0 <= self.rotate <= 180:
            raise ValueError(f"rotate is {self.rotate}: give degrees, from 0 to 180")
        # At 45 along both axes a picture would be a line.
        if not 0 <= self.shear <= 30:
            raise ValueError(f"shear is {self.shear}: give degrees, from 0 to 30")

    @property
    def turns(self) -> bool:
        """Whether pictures do not stay upright."""
        return self.rotate > 0 or self.shear > 0


def image_keys(seed: int, batch: Batch) -> Key[Array, " B"]:
    """One random key an image, from (seed, epoch, index)."""
    fold = jax.vmap(lambda epoch, index: jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), epoch), index))
    return fold(batch.epoch, batch.index)


def augment(
    config: Augment,
    batch: Batch,
    seed: int,
    progress: Float[Array, ""] | float,
    *,
    mirror: Sequence[int] = (),
    fill: int = FILL,
) -> Batch:
    """Augments a batch.

    Objects keep their N rows: with mosaic up to 4 N objects compete for them and the first N that remain visible stay.
    Crowd boxes move along with the others. Padding rows stay padding.

    Args:
      batch: uint8 images on their canvas.
      seed: of the run.
      progress: share of the run that is done, in [0, 1); traced, so that closing the mosaic compiles nothing anew.
      mirror: the skeleton's, since a mirrored left hand is a right one; empty where there are no poses.
      fill: value, from 0 to 255, of the grey where no picture is.

    Returns:
      The batch with float32 images in [0, 1] and moved objects; `extent` is the whole canvas. What mosaic tiles know
      together is what each of them knows.
    """
    height, width = batch.image.shape[1:3]
    canvas = jnp.array([height, width], jnp.float32)
    draws = jax.vmap(lambda key: _draw(config, key, canvas, progress))(image_keys(seed, batch))

    paste = functools.partial(_paste, config, mirror=jnp.array(mirror, jnp.int32))
    if config.mosaic == 0:
        pasted = _alone(paste, batch, draws)
    else:
        # One compilation serves both; a batch without any mosaic takes the cheap branch at run time.
        pasted = jax.lax.cond(
            draws["mosaic"].any(), lambda: _mosaic(paste, batch, draws), lambda: _alone(paste, batch, draws)
        )

    if config.copy_paste > 0 and batch.instances is not None:
        rows = batch.objects.labels.shape[1]
        picks = jax.vmap(lambda draw: jax.random.bernoulli(draw["picks"], 0.5, (rows,)))(draws)
        pasted = jax.lax.cond(
            draws["copy_paste"].any(),
            lambda: copy_paste(
                pasted,
                draws["copy_paste"],
                picks,
                min_visible=config.min_visible,
                min_side=config.min_side,
            ),
            lambda: pasted,
        )

    def recolour(image: Array, cover: Array, draw: dict[str, Array]) -> Array:
        if config.hue or config.saturation or config.brightness or config.contrast:
            matrix = image_ops.colour_matrix(draw["hue"], draw["saturation"], draw["brightness"])
            image = image_ops.recolour(image, matrix, draw["contrast"])
        return image * cover + fill / 255 * (1 - cover)

    return batch.replace(  # type: ignore[attr-defined]
        image=jax.vmap(recolour)(pasted.image, pasted.cover, draws),
        objects=pasted.objects,
        known=pasted.known,
        instances=pasted.instances,
        # Zero is where no picture lies; the classes were counted from one.
        semantic=None if pasted.semantic is None else (pasted.semantic - 1) % (VOID + 1),
        regions=pasted.regions,
        extent=jnp.broadcast_to(canvas, batch.extent.shape),
    )


def _draw(config: Augment, key: PRNGKeyArray, canvas: Array, progress: Float[Array, ""] | float) -> dict[str, Array]:
    """Every random number of one image."""
    keys = iter(jax.random.split(key, 13))

    def around_one(spread: float) -> Array:
        return jax.random.uniform(next(keys), (), minval=1 - spread, maxval=1 + spread)

    low, high = jnp.log(jnp.array(config.scale))
    return {
        # One draw for each of the four tiles.
        "flip": jax.random.bernoulli(next(keys), float(config.flip), (4,)),
        "flip_vertical": jax.random.bernoulli(next(keys), float(config.flip_vertical), (4,)),
        "scale": jnp.exp(jax.random.uniform(next(keys), (), minval=low, maxval=high)),
        "shift": jax.random.uniform(next(keys), (2,), minval=-1, maxval=1) * config.translate * canvas,
        "centre": jax.random.uniform(next(keys), (2,), minval=-0.5, maxval=0.5) * canvas,
        "mosaic": jax.random.bernoulli(next(keys), float(config.mosaic)) & (progress < 1 - config.close_mosaic),
        "hue": jax.random.uniform(next(keys), (), minval=-1, maxval=1) * config.hue * 2 * jnp.pi,
        "saturation": around_one(config.saturation),
        "brightness": around_one(config.brightness),
        "contrast": around_one(config.contrast),
        "corner": jax.random.uniform(next(keys), (2,)),
        "copy_paste": jax.random.bernoulli(next(keys), float(config.copy_paste)),
        "picks": next(keys),
        "turn": _turn(config, jax.random.fold_in(key, 13)),
    }


def _turn(config: Augment, key: PRNGKeyArray) -> Float[Array, "2 2"]:
    """A slant along both axes, then a turn."""
    angle, x, y = jax.random.uniform(key, (3,), minval=-1, maxval=1) * jnp.radians(
        jnp.array([config.rotate, config.shear, config.shear])
    )
    (a, b), (c, d) = (jnp.cos(angle), -jnp.sin(angle)), (jnp.sin(angle), jnp.cos(angle))
    x, y = jnp.tan(x), jnp.tan(y)
    return jnp.array([[a + b * y, a * x + b], [c + d * y, c * x + d]])


def _place(config: Augment, draw: dict[str, Array], extent: Array, canvas: Array, tile: int) -> Array:
    """Where a tile's picture starts on the canvas, (y, x).

    A lone picture is centred, or lies anywhere; the tiles of a mosaic meet in one point, the first above left of it.
    """
    middle = canvas / 2 + draw["shift"]
    if config.jitter:
        alone = draw["corner"] * (canvas - draw["scale"] * extent)
    else:
        # Whole pixels: half of one, from an odd margin, would blur a picture that is only to be centred.
        alone = jnp.floor((canvas - extent) / 2) + draw["shift"] + (1 - draw["scale"]) * extent / 2
    before = jnp.array([tile < 2, tile % 2 == 0])
    shared = middle + draw["scale"] * (draw["centre"] - extent * before)
    return jnp.where(draw["mosaic"], shared, alone) if tile == 0 else shared


Paste = Callable[[Batch, dict[str, Array], int, Array], Pasted]


def _paste(
    config: Augment,
    batch: Batch,
    draws: dict[str, Array],
    tile: int,
    shown: Array,
    *,
    mirror: Int[Array, " J"],
) -> Pasted:
    """Moves every picture to its place as tile number `tile`; those not `shown` leave no trace."""
    height, width = batch.image.shape[1:3]
    canvas = jnp.array([height, width], jnp.float32)

    def one(batch: Batch, draw: dict[str, Array], shown: Array) -> Pasted:
        affine = Affine(
            extent=batch.extent,
            flips=jnp.stack([draw["flip_vertical"][tile], draw["flip"][tile]]),
            scale=draw["scale"],
            start=_place(config, draw, batch.extent, canvas, tile),
            turn=draw["turn"] if config.turns else None,
            canvas=(height, width),
        )

        def labels(numbers: Array | None) -> Array | None:
            return None if numbers is None else affine.labels(numbers) * shown

        move = functools.partial(_move, config, affine, shown, mirror)
        image, cover = affine.image(image_ops.to_float(batch.image))
        moved, instances = move(batch.objects), labels(batch.instances)
        if instances is not None:
            # An object that has left, or that is too small to be one, has no mask either.
            kept = jnp.pad(moved.valid, (1, 0))
            instances = jnp.where(jnp.take(kept, instances), instances, 0)
        return Pasted(
            image=image * shown,
            cover=cover * shown,
            objects=moved,
            # What is not shown has nothing unknown.
            known=None if batch.known is None else batch.known | ~shown,
            instances=instances,
            semantic=labels(None if batch.semantic is None else batch.semantic.astype(jnp.int32) + 1),
            regions=None if batch.regions is None else _move_regions(move, batch.regions),
        )

    return jax.vmap(one)(batch, draws, shown)


def _move(config: Augment, affine: Affine, shown: Array, mirror: Int[Array, " J"], objects: Objects) -> Objects:
    """Moves one image's objects, and drops those out of view."""
    height, width = affine.canvas
    boxes = affine.boxes(objects.boxes)
    seen = box_ops.clip(boxes, height, width)
    sides = seen[:, 2:] - seen[:, :2]
    visible = box_ops.area(seen) >= config.min_visible * box_ops.area(boxes)
    valid = objects.valid & visible & (sides.min(axis=-1) >= config.min_side) & shown

    keypoints = objects.keypoints
    if keypoints is not None:
        # A mirror exchanges left and right whichever way it stands; two mirrors are a turn, which does not.
        swapped = jnp.where(affine.flips[0] ^ affine.flips[1], jnp.take(keypoints, mirror, axis=1), keypoints)
        place = affine.points(swapped[..., :2])
        inside = ((place >= 0) & (place < jnp.array([width, height]))).all(axis=-1) & valid[:, None]
        v = swapped[..., 2] * inside
        keypoints = jnp.concatenate([place * (v > 0)[..., None], v[..., None]], axis=-1)
    return Objects(
        boxes=seen * valid[:, None],
        labels=objects.labels * valid,
        valid=valid,
        crowd=objects.crowd & valid,
        masked=None if objects.masked is None else objects.masked & valid,
        keypoints=keypoints,
    )


def _move_regions(move: Callable[[Objects], Objects], regions: Rois) -> Rois:
    """Regions go where objects would, and are dropped likewise."""
    nothing = jnp.zeros_like(regions.valid)
    moved = move(Objects(boxes=regions.boxes, labels=regions.index, valid=regions.valid, crowd=nothing))
    return dataclasses.replace(regions, boxes=moved.boxes, valid=moved.valid)


def _alone(paste: Paste, batch: Batch, draws: dict[str, Array]) -> Pasted:
    """Every picture has its canvas to itself."""
    return paste(batch, draws, 0, jnp.ones_like(draws["mosaic"]))


def _mosaic(paste: Paste, batch: Batch, draws: dict[str, Array]) -> Pasted:
    """Four tiles an image where its draw says so: its own picture and the next three of the global batch."""
    whole = _alone(paste, batch, draws)
    parts, rows = [whole.objects], batch.objects.labels.shape[1]
    for tile in (1, 2, 3):
        neighbours = jax.tree.map(lambda x, shift=tile: jnp.roll(x, -shift, axis=0), batch)
        more = paste(neighbours, draws, tile, draws["mosaic"])
        parts.append(more.objects)
        instances, semantic, known = whole.instances, whole.semantic, whole.known
        if instances is not None and more.instances is not None:
            instances += jnp.where(more.instances > 0, more.instances + tile * rows, 0)
        if semantic is not None and more.semantic is not None:
            semantic += more.semantic
        if known is not None and more.known is not None:
            known &= more.known
        whole = whole.replace(  # type: ignore[attr-defined]
            image=whole.image + more.image,
            cover=whole.cover + more.cover,
            instances=instances,
            semantic=semantic,
            known=known,
        )
    joined = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *parts)
    return compact(whole, joined, rows)
