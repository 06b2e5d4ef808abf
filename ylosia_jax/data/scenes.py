"""The built-in data set: procedural scenes with exact truth, drawn in a few milliseconds, with nothing to download.

A scene is a pure function of (seed, split, index, image size). Objects are placed from the nearest to the farthest,
each one only where enough of it stays in sight, so that whatever is drawn is also labelled. As in COCO, the truth is
that of the visible part.

Shape shorthand: H W image axes, n objects of a scene.
"""

import dataclasses
import math
from typing import Literal, get_args

import cv2
import numpy as np

from ylosia_jax.data.scenes_figures import FIGURES, Figure
from ylosia_jax.data.scenes_grounds import PATTERNS, STUFF, ground, pattern
from ylosia_jax.types import Example, UserError

CLASSES = tuple(FIGURES)
Split = Literal["train", "validation", "test"]

_OPAQUE = 240  # a multiple of 16: the average of 2x2 or 4x4 opaque and empty subpixels is exact on every platform
_RIM = 0.02  # width of the black outline beyond one pixel, in radii
_SHADOW = 0.25  # how far a shadow reaches beyond its figure, in radii


@dataclasses.dataclass(frozen=True)
class Thing:
    """One object as it was placed, whether or not all of it can be seen.

    Attributes:
      label: index into `CLASSES`.
      centre: (x, y) in pixels; may lie near the edge of the image, never outside.
      radius: half its greatest extent, in pixels.
      angle: clockwise turn in radians.
      origin: (x, y) of the layer's top left pixel in the image; negative where it sticks out.
      layer: [h, w, 4] uint8, the flat drawing: RGB premultiplied by coverage, and coverage in 0..240.
      joints: [17, 2] xy in pixels, in COCO's order, or None.
      motif: pattern drawn over it, its frequency (per radius) and its RGB gain.
    """

    label: int
    centre: np.ndarray
    radius: float
    angle: float
    origin: tuple[int, int]
    layer: np.ndarray
    joints: np.ndarray | None
    motif: tuple[str, float, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Scene:
    """An image and all that is known of it.

    Attributes:
      image: [H, W, 3] uint8 RGB.
      instances: [H, W] uint8, 1 + index into `things` where one is seen, 0 elsewhere.
      stuff: [H, W] uint8, index into `STUFF` of what lies behind the things.
      things: the objects, the nearest first.
    """

    image: np.ndarray
    instances: np.ndarray
    stuff: np.ndarray
    things: tuple[Thing, ...]


def draw(seed: int, split: Split, index: int, height: int, width: int) -> Scene:
    """Draws one scene: a pure function of its arguments."""
    rng = np.random.default_rng([seed, get_args(Split).index(split), index])
    things, instances = _place(rng, height, width)
    image, stuff = ground(rng, height, width)
    for thing in reversed(things):
        _paint(image, thing)
    image *= rng.uniform(0.85, 1.05) * rng.uniform(0.94, 1.06, (3, 1, 1)).astype(np.float32)
    image += 8 * (rng.random((height, width), dtype=np.float32) - 0.5)
    image = np.ascontiguousarray(np.clip(image, 0, 255).astype(np.uint8).transpose(1, 2, 0))
    return Scene(image, instances, stuff, tuple(things))


def _place(rng: np.random.Generator, height: int, width: int) -> tuple[list[Thing], np.ndarray]:
    """Places objects from the nearest to the farthest; one that would show too little of itself is left out."""
    things: list[Thing] = []
    instances = np.zeros((height, width), np.uint8)
    tries = int(rng.integers(1, 15))
    while tries > 0 or not things:
        tries -= 1
        thing = _pick(rng, height, width)
        window, part = _overlap(thing, height, width)
        mask = thing.layer[..., 3] >= _OPAQUE // 2
        seen = mask[part] & (instances[window] == 0)
        if seen.sum() >= 0.4 * mask.sum():
            things.append(thing)
            instances[window][seen] = len(things)
    return things, instances


def _pick(rng: np.random.Generator, height: int, width: int) -> Thing:
    """Draws an object of any class, place, size, turn and colour."""
    label = int(rng.integers(len(CLASSES)))
    upright = CLASSES[label] == "person"
    figure = FIGURES[CLASSES[label]](rng)
    smallest, largest = (0.12, 0.45) if upright else (0.045, 0.42)
    radius = min(height, width) * smallest * (largest / smallest) ** rng.random()
    centre = np.array([width, height]) * rng.uniform(0.08, 0.92, 2)
    angle = rng.uniform(-np.pi, np.pi) if not upright else rng.uniform(-0.3, 0.3)
    motif = ("plain", 0.0, np.ones(3))
    if not upright and rng.random() < 0.5:
        motif = (PATTERNS[rng.integers(1, 4)], rng.uniform(5, 12), rng.uniform(0.4, 1.0, (3, 1, 1)).astype(np.float32))
    turn = radius * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    origin, layer = _rasterise(figure, centre, radius, turn)
    joints = None if figure.joints is None else figure.joints @ turn + centre
    return Thing(label, centre, radius, angle, origin, layer, joints, motif)


def _rasterise(
    figure: Figure, centre: np.ndarray, radius: float, turn: np.ndarray
) -> tuple[tuple[int, int], np.ndarray]:
    """Draws a figure in flat colours; returns where its layer begins and the layer, as in `Thing`."""
    points = np.concatenate([stroke.points for stroke in figure.strokes]) @ turn + centre
    margin = 1 + radius * (_RIM + max(stroke.width for stroke in figure.strokes) / 2)
    low = np.floor(points.min(axis=0) - margin).astype(int)
    wide, high = np.ceil(points.max(axis=0) + margin + _SHADOW * radius).astype(int) - low
    fine = 4 if radius < 24 else 2  # drawn this much finer, then averaged down
    canvas = np.zeros((high * fine, wide * fine, 4), np.uint8)
    # OpenCV's integer coordinates are pixel centres, ours are pixel corners; it reads 4 fractional bits.
    points = np.round(((points - low) * fine - 0.5) * 16).astype(np.int32)
    first = 0
    for stroke in figure.strokes:
        path = points[first : first + len(stroke.points)]
        first += len(path)
        colour = (*stroke.colour.tolist(), _OPAQUE)
        if stroke.width:
            cv2.polylines(canvas, [path], False, colour, max(1, round(stroke.width * radius * fine)), shift=4)
        else:
            cv2.fillPoly(canvas, [path], colour, shift=4)
    rim = 2 * round(_RIM * radius) + 3
    layer = cv2.resize(canvas, (int(wide), int(high)), interpolation=cv2.INTER_AREA)
    # Coverage that reaches beyond the colours is black: the outline.
    layer[..., 3] = cv2.dilate(layer[..., 3], cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (rim, rim)))
    return (int(low[0]), int(low[1])), layer


def _overlap(thing: Thing, height: int, width: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The window of the image that a layer covers, and the part of the layer that lies in it."""
    (x, y), (high, wide) = thing.origin, thing.layer.shape[:2]
    top, bottom, left, right = max(y, 0), min(y + high, height), max(x, 0), min(x + wide, width)
    return (slice(top, bottom), slice(left, right)), (slice(top - y, bottom - y), slice(left - x, right - x))


def _paint(image: np.ndarray, thing: Thing) -> None:
    """Shades a thing and lays it and its shadow over the image, in place."""
    window, part = _overlap(thing, *image.shape[1:])
    y = ((np.arange(window[0].start, window[0].stop) + 0.5 - thing.centre[1]) / thing.radius).astype(np.float32)[
        :, None
    ]
    x = ((np.arange(window[1].start, window[1].stop) + 0.5 - thing.centre[0]) / thing.radius).astype(np.float32)[None]
    reach = int(_SHADOW * thing.radius) + 1
    # Anchored at its far corner, the average falls to the lower right.
    shadow = cv2.blur(
        thing.layer[..., 3], (reach, reach), anchor=(reach - 1, reach - 1), borderType=cv2.BORDER_CONSTANT
    )[part]
    *colour, cover = thing.layer[part].transpose(2, 0, 1)
    cover = cover / np.float32(_OPAQUE)
    light = 1.08 - 0.18 * (x + y)
    if CLASSES[thing.label] == "ball":
        light -= 0.3 * (x * x + y * y) ** 2
    colour = colour * light
    kind, frequency, gain = thing.motif
    if kind != "plain":
        cos, sin = frequency * math.cos(thing.angle), frequency * math.sin(thing.angle)
        colour *= 1 + pattern(kind, x * cos + y * sin, y * cos - x * sin) * (gain - 1)
    if CLASSES[thing.label] == "ball":
        colour += 170 * np.exp(-7 * ((x + 0.38) ** 2 + (y + 0.42) ** 2)) * cover
    image[:, *window] *= (1 - np.float32(0.4 / _OPAQUE) * shadow) * (1 - cover)
    image[:, *window] += colour


def truth(scene: Scene, name: str) -> Example:
    """What a detector is to find in a scene: of every thing the tight box, and the area, of what is seen of it."""
    masks = [(scene.instances == number + 1).astype(np.uint8) for number in range(len(scene.things))]
    x, y, w, h = np.array([cv2.boundingRect(mask) for mask in masks], np.float32).T
    return Example(
        image=scene.image,
        name=name,
        boxes=np.stack([x, y, x + w, y + h], axis=1),
        labels=np.array([thing.label for thing in scene.things], np.int32),
        crowd=np.zeros(len(masks), bool),
        area=np.array([np.count_nonzero(mask) for mask in masks], np.float32),
    )


@dataclasses.dataclass(frozen=True)
class Scenes:
    """One split of the built-in data set.

    Args:
      split: splits share no scene, whatever their sizes.
      size: number of images.
      image_size: height and width in pixels.
      seed: another seed gives another data set.

    Raises:
      UserError: if a number is out of its range.
    """

    split: Split = "train"
    size: int = 2048
    image_size: tuple[int, int] = (160, 160)
    seed: int = 0

    def __post_init__(self) -> None:
        pass

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in label order."""
        return CLASSES

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int, /) -> Example:
        if not 0 <= index < self.size:
            raise IndexError(f"scene {index} of {self.size}")
        return truth(draw(self.seed, self.split, int(index), *self.image_size), f"{index:06d}.png")
