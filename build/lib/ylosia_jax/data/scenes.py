"""The built-in data set: procedural scenes with exact truth, drawn in a few milliseconds, with nothing to download.

A scene is a pure function of (seed, split, index, image size). Objects are placed from the nearest to the farthest,
each one only where enough of it stays in sight, so that whatever is drawn is also labelled. As in COCO, the truth is
that of the visible part: what the image's edge or a nearer object hides belongs to no box.

Shape shorthand: H W image axes, h w axes of a layer or window.
"""

import dataclasses
import math
from typing import Literal, get_args

import cv2
import numpy as np
from jaxtyping import Int

from ylosia_jax import rle
from ylosia_jax.data.scenes_figures import FIGURES, Figure
from ylosia_jax.data.scenes_grounds import PATTERNS, STUFF, ground, pattern
from ylosia_jax.data.skeletons import COCO_PERSON
from ylosia_jax.types import Example, Label, Skeleton, UserError

CLASSES = tuple(figure.__name__ for figure in FIGURES)
Split = Literal["train", "validation", "test"]

_OPAQUE = 240  # a multiple of 16: the average of 2x2 or 4x4 opaque and empty subpixels is exact on every platform
_RIM = 0.02  # what the outline of a figure has beyond its one pixel, in radii
_SHADOW = 0.25  # how far a shadow reaches beyond its figure, in radii
_VISIBLE = 0.5  # the least part of an object that must be seen, or it is not drawn


@dataclasses.dataclass(frozen=True)
class Thing:
    """One object as it was placed, with what is hidden of it.

    Attributes:
      label: index into `CLASSES`.
      centre: [2] xy in pixels, always inside the image.
      radius: about half its greatest extent, in pixels.
      angle: clockwise turn in radians.
      joints: [17, 2] xy in pixels as in `Figure`, wherever they fall; None for all but persons.
      origin: (x, y) of the layer's top left pixel in the image; negative where it sticks out.
      layer: [h, w, 4] uint8, the flat drawing: RGB premultiplied by coverage, and coverage in 0..240.
      motif: the pattern over it: its kind, its frequency per radius, its RGB gain.
    """

    label: int
    centre: np.ndarray
    radius: float
    angle: float
    joints: np.ndarray | None
    origin: tuple[int, int]
    layer: np.ndarray
    motif: tuple[str, float, np.ndarray]

    @property
    def mask(self) -> np.ndarray:
        """[h, w] bool, the pixels of the layer that are at least half covered, hidden ones included."""
        return self.layer[..., 3] >= _OPAQUE // 2


@dataclasses.dataclass(frozen=True)
class Scene:
    """An image and all that is known of it.

    Attributes:
      image: [H, W, 3] uint8 RGB.
      instances: [H, W] uint8, 1 + index into `things` where one is seen, 0 elsewhere.
      stuff: [H, W] uint8, index into `scenes_grounds.STUFF` of what lies behind the things.
      things: the objects, the nearest first; of each at least one pixel is seen.
    """

    image: np.ndarray
    instances: np.ndarray
    stuff: np.ndarray
    things: tuple[Thing, ...]


def draw(seed: int, split: Split, index: int, image_size: tuple[int, int]) -> Scene:
    """Draws one scene of height and width `image_size` in pixels."""
    rng = np.random.default_rng([seed, get_args(Split).index(split), index])
    # Things come first, so that no change to the backgrounds moves the truth.
    things, instances = _place(rng, *image_size)
    image, stuff = ground(rng, *image_size)
    for thing in reversed(things):
        _paint(image, thing)
    image *= rng.uniform(0.85, 1.05) * rng.uniform(0.94, 1.06, (3, 1, 1)).astype(np.float32)
    image += 8 * (rng.random(image_size, dtype=np.float32) - 0.5)
    image = np.ascontiguousarray(np.clip(image, 0, 255).astype(np.uint8).transpose(1, 2, 0))
    return Scene(image, instances, stuff, tuple(things))


def truth(scene: Scene, name: str) -> Example:
    """All that is to be found in a scene: of every thing what is seen of it, and what each pixel shows."""
    masks = [(scene.instances == number).astype(np.uint8) for number in range(1, 1 + len(scene.things))]
    x, y, w, h = np.array([cv2.boundingRect(mask) for mask in masks], np.float32).T
    labels = np.array([thing.label for thing in scene.things], np.int32)
    stuff = scene.stuff + np.uint8(len(CLASSES))
    return Example(
        image=scene.image,
        name=name,
        boxes=np.stack([x, y, x + w, y + h], axis=1),
        labels=labels,
        crowd=np.zeros(len(masks), bool),
        area=np.array([np.count_nonzero(mask) for mask in masks], np.float32),
        masks=tuple(map(rle.encode, masks)),
        keypoints=np.stack([_keypoints(scene, number) for number in range(1, 1 + len(scene.things))]),
        semantic=np.where(scene.instances > 0, np.append(0, labels)[scene.instances], stuff).astype(np.uint8),
    )


def _keypoints(scene: Scene, number: int) -> np.ndarray:
    """[17, 3] x, y, v of a thing: visible where its own pixels are, hidden where another thing's are."""
    joints, (height, width) = scene.things[number - 1].joints, scene.instances.shape
    if joints is None:
        return np.zeros((len(COCO_PERSON.names), 3), np.float32)
    inside = np.all((joints >= 0) & (joints < [width, height]), axis=1)
    x, y = np.where(inside[:, None], joints, 0).astype(int).T
    v = np.where(scene.instances[y, x] == number, 2, 1) * inside
    return np.column_stack([joints * inside[:, None], v]).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Scenes:
    """One split of the built-in data set.

    Args:
      split: splits share no scene, whatever their sizes.
      size: number of images; a smaller set is the beginning of a larger one.
      image_size: height and width in pixels.
      seed: another seed gives another data set.

    Raises:
      UserError: if a value is out of its range.
    """

    split: Split = "train"
    size: int = 2048
    image_size: tuple[int, int] = (160, 160)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.split not in get_args(Split):
            raise UserError(f"scenes have no split {self.split!r}; take one of {', '.join(get_args(Split))}")
        if self.size < 1:
            raise UserError(f"scenes of size {self.size} hold no image; set size to 1 or more")
        if not 64 <= min(self.image_size) <= max(self.image_size) <= 4096:
            raise UserError(f"scenes have no image_size {self.image_size}; set height and width between 64 and 4096")
        # Two 32-bit words would run into the next number of the generator's key.
        if not 0 <= self.seed < 2**32:
            raise UserError(f"scenes have no seed {self.seed}; set it between 0 and {2**32 - 1}")

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in label order."""
        return CLASSES

    @property
    def stuff(self) -> tuple[str, ...]:
        """Names of the grounds."""
        return STUFF

    @property
    def skeleton(self) -> Skeleton:
        """That of a person, whose joints are COCO's."""
        return COCO_PERSON

    @property
    def labels(self) -> frozenset[Label]:
        """Everything is known."""
        return frozenset({"box", "mask", "keypoint", "semantic"})

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int, /) -> Example:
        if not 0 <= index < self.size:
            raise IndexError(f"no scene {index}; the {self.split} split has scenes 0 to {self.size - 1}")
        return truth(draw(self.seed, self.split, index, self.image_size), f"{index:06d}.png")

    @property
    def shapes(self) -> Int[np.ndarray, "n 2"]:
        """Height and width of each scene, the same of all."""
        return np.tile(self.image_size, (self.size, 1))


def _place(rng: np.random.Generator, height: int, width: int) -> tuple[list[Thing], np.ndarray]:
    """Places things from the nearest to the farthest, and paints their numbers."""
    things: list[Thing] = []
    instances = np.zeros((height, width), np.uint8)
    tries = int(rng.integers(1, 15))
    while tries > 0 or not things:
        tries -= 1
        thing = _pick(rng, height, width)
        window, part = _windows(thing, height, width)
        mask = thing.mask
        seen = mask[part] & (instances[window] == 0)
        if np.count_nonzero(seen) >= _VISIBLE * np.count_nonzero(mask):
            things.append(thing)
            instances[window][seen] = len(things)
    return things, instances


def _pick(rng: np.random.Generator, height: int, width: int) -> Thing:
    """Draws a thing of any class, size, place, turn and look."""
    label = int(rng.integers(len(FIGURES)))
    figure = FIGURES[label](rng)
    smallest, largest = (0.17, 0.45) if CLASSES[label] == "person" else (0.08, 0.42)
    radius = min(height, width) * smallest * (largest / smallest) ** rng.random()
    centre = rng.uniform(0.08, 0.92, 2) * [width, height]
    angle = rng.uniform(-figure.swing, figure.swing)
    printed = CLASSES[label] in ("ball", "star", "ring") and rng.random() < 0.5
    kind = PATTERNS[rng.integers(1, len(PATTERNS))] if printed else "plain"
    motif = (kind, rng.uniform(5, 12), rng.uniform(0.4, 1.0, (3, 1, 1)).astype(np.float32))
    turn = radius * np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    joints = figure.joints @ turn + centre if figure.joints is not None else None
    return Thing(label, centre, radius, angle, joints, *_rasterise(figure, centre, radius, turn), motif)


def _rasterise(
    figure: Figure, centre: np.ndarray, radius: float, turn: np.ndarray
) -> tuple[tuple[int, int], np.ndarray]:
    """Draws a figure in flat colours with a black outline; returns the origin and the layer of a `Thing`."""
    points = np.concatenate([stroke.points for stroke in figure.strokes]) @ turn + centre
    margin = 2 + radius * (_RIM + max(stroke.width for stroke in figure.strokes) / 2)
    low = np.floor(points.min(axis=0) - margin).astype(int)
    wide, high = (np.ceil(points.max(axis=0) + margin + radius * _SHADOW).astype(int) - low).tolist()
    fine = 4 if radius < 24 else 2  # drawn this much finer, then averaged down
    canvas = np.zeros((high * fine, wide * fine, 4), np.uint8)
    # OpenCV's whole numbers are pixel centres, ours are pixel corners; it is given 4 fractional bits.
    points = np.round(((points - low) * fine - 0.5) * 16).astype(np.int32)
    for stroke in figure.strokes:
        path, points = np.split(points, [len(stroke.points)])
        colour = (*stroke.colour.tolist(), _OPAQUE)
        if stroke.width:
            cv2.polylines(canvas, [path], False, colour, max(1, round(stroke.width * radius * fine)), shift=4)
        else:
            cv2.fillPoly(canvas, [path], colour, shift=4)
    layer = cv2.resize(canvas, (wide, high), interpolation=cv2.INTER_AREA)
    rim = 2 * round(_RIM * radius) + 3
    # Coverage that reaches beyond the colours is black.
    layer[..., 3] = cv2.dilate(layer[..., 3], cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (rim, rim)))
    return (int(low[0]), int(low[1])), layer


def _windows(thing: Thing, height: int, width: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The window of the image that a layer covers, and the part of the layer that lies in it."""
    (x, y), (high, wide) = thing.origin, thing.layer.shape[:2]
    top, bottom, left, right = max(y, 0), min(y + high, height), max(x, 0), min(x + wide, width)
    return (slice(top, bottom), slice(left, right)), (slice(top - y, bottom - y), slice(left - x, right - x))


def _paint(image: np.ndarray, thing: Thing) -> None:
    """Shades a thing and lays it and its shadow over the image [3, H, W], in place."""
    (rows, columns), part = _windows(thing, *image.shape[1:])
    y, x = np.ogrid[rows, columns]
    y = ((y + 0.5 - thing.centre[1]) / thing.radius).astype(np.float32)
    x = ((x + 0.5 - thing.centre[0]) / thing.radius).astype(np.float32)
    *colour, cover = thing.layer[part].transpose(2, 0, 1)
    colour, cover = np.array(colour, np.float32), cover / np.float32(_OPAQUE)

    kind, frequency, gain = thing.motif
    if kind != "plain":
        cos, sin = frequency * math.cos(thing.angle), frequency * math.sin(thing.angle)
        colour *= 1 + pattern(kind, x * cos + y * sin, y * cos - x * sin) * (gain - 1)
    colour *= 1.08 - 0.18 * (x + y)
    if CLASSES[thing.label] == "ball":
        colour *= 1 - 0.3 * (x * x + y * y) ** 2
        colour += cover * 170 * np.exp(-7 * ((x + 0.38) ** 2 + (y + 0.42) ** 2))

    reach = int(_SHADOW * thing.radius) + 1
    # Anchored at its far corner, the average falls to the lower right.
    anchor, border = (reach - 1, reach - 1), cv2.BORDER_CONSTANT
    shadow = cv2.blur(thing.layer[..., 3], (reach, reach), anchor=anchor, borderType=border)[part]
    image[:, rows, columns] *= (1 - np.float32(0.4 / _OPAQUE) * shadow) * (1 - cover)
    image[:, rows, columns] += colour
