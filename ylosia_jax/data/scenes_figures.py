"""The objects of the built-in scenes, as vector drawings: one function a class.

A figure lives in its own frame: x to the right, y down, the origin in its middle and radius 1. Colours are RGB in
0..255. Every function draws its variety from the `rng` it is given, in a fixed order, through `random`, `uniform` and
`integers` only, whose streams have not changed since NumPy 1.17.
"""

import colorsys
import dataclasses
from collections.abc import Callable

import numpy as np

Colour = np.ndarray


@dataclasses.dataclass(frozen=True)
class Stroke:
    """One shape in one colour: a filled polygon, or with a `width` the line through its points, with round ends."""

    points: np.ndarray
    colour: Colour
    width: float = 0.0


@dataclasses.dataclass(frozen=True)
class Figure:
    """Strokes from the lowest to the topmost, and the 17 joints [17, 2] of a person."""

    strokes: tuple[Stroke, ...]
    joints: np.ndarray | None = None


def colour(rng: np.random.Generator, hue=(0.0, 1.0), saturation=(0.45, 0.95), value=(0.55, 1.0)) -> Colour:
    """Draws an RGB colour uniformly from ranges of hue, saturation and value."""
    ranges = (hue, saturation, value)
    hsv = [low + (high - low) * t for (low, high), t in zip(ranges, rng.random(3).tolist(), strict=True)]
    return 255 * np.array(colorsys.hsv_to_rgb(*hsv), np.float32)


def lighter(rgb: Colour, amount: float) -> Colour:
    """Moves a colour towards white, or for a negative amount towards black."""
    return rgb + amount * (255 - rgb) if amount > 0 else rgb * (1 + amount)


def ellipse(x: float, y: float, rx: float, ry: float, *, start=0.0, stop=2 * np.pi, points=40) -> np.ndarray:
    """Points [n, 2] along an ellipse from one angle to another; both ends are included."""
    angle = start + (stop - start) / (points - 1) * np.arange(points)
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def ball(rng: np.random.Generator) -> Figure:
    """A ball, with or without a seam."""
    main = colour(rng)
    seam = lighter(main, -0.45 if rng.random() < 0.5 else 0.7)
    turn = rng.uniform(0.2, 0.8)
    halves = [ellipse(0, 0, side * turn, 0.97, start=-np.pi / 2, stop=np.pi / 2, points=14) for side in (1, -1)]
    seams = [Stroke(half, seam, 0.09) for half in halves if rng.random() < 0.6]
    return Figure((Stroke(ellipse(0, 0, 1, 1), main), *seams))


def crate(rng: np.random.Generator) -> Figure:
    """A crate of planks in a frame, square or oblong."""
    main = colour(rng, saturation=(0.35, 0.8))
    frame, groove = lighter(main, 0.25), lighter(main, -0.45)
    x, y = 0.85, 0.85 * rng.uniform(0.6, 1.0)
    corners = np.array([[-x, -y], [x, -y], [x, y], [-x, y], [-x, -y]])
    inner = corners * (1 - 0.1 / np.array([x, y]))
    planks = [np.array([[side * x / 3, -y], [side * x / 3, y]]) for side in (-1, 1)]
    strokes = [Stroke(corners, main), *(Stroke(plank, groove, 0.05) for plank in planks)]
    braces = ([inner[0], inner[2]], [inner[1], inner[3]])[: rng.integers(3)]
    strokes += [Stroke(np.array(brace), frame, 0.2) for brace in braces]
    return Figure((*strokes, Stroke(inner, frame, 0.2)))


def star(rng: np.random.Generator) -> Figure:
    """A star with four to six faceted points."""
    main, tips = colour(rng), int(rng.integers(4, 7))
    angle = np.arange(2 * tips + 1) * np.pi / tips
    radius = np.where(np.arange(2 * tips + 1) % 2, rng.uniform(0.36, 0.5), 1.0)
    outline = np.stack([radius * np.sin(angle), -radius * np.cos(angle)], axis=1)
    centre, dark = np.zeros(2), lighter(main, -0.25)
    facets = [Stroke(np.stack([centre, outline[i], outline[i + 1]]), dark) for i in range(0, 2 * tips, 2)]
    return Figure((Stroke(outline, main), *facets))


def ring(rng: np.random.Generator) -> Figure:
    """A ring seen from the front or at a slant; what lies behind its hole is seen through it."""
    main = colour(rng)
    hole, slant = rng.uniform(0.42, 0.66), rng.uniform(0.6, 1.0)

    def band(outer: float, inner: float) -> np.ndarray:
        return np.concatenate([ellipse(0, 0, outer, outer * slant), ellipse(0, 0, inner, inner * slant)[::-1]])

    middle = 0.5 * (1 + hole) - 0.04
    return Figure((Stroke(band(1, hole), main), Stroke(band(middle + 0.05, middle - 0.05), lighter(main, 0.4))))


def leaf(rng: np.random.Generator) -> Figure:
    """A leaf on its stalk: pointed at one end, round at the other."""
    main = colour(rng)
    vein, breadth, lean = lighter(main, -0.4), rng.uniform(0.38, 0.55), rng.uniform(0.55, 0.8)
    t = np.linspace(0, 1, 24)
    half = breadth * np.sin(np.pi * t**lean)
    y = -1 + 1.6 * t
    outline = np.concatenate([np.stack([half, y], axis=1), np.stack([-half, y], axis=1)[::-1]])
    strokes = [Stroke(np.array([[0, 0.5], [0.06, 1.0]]), vein, 0.1), Stroke(outline, main)]
    strokes.append(Stroke(np.array([[0, -0.8], [0, 0.6]]), vein, 0.07))
    for at in (0.35, 0.55, 0.75):
        reach = 0.6 * breadth * np.sin(np.pi * at**lean)
        root = -1 + 1.6 * at
        strokes.append(Stroke(np.array([[-reach, root - 0.2], [0, root], [reach, root - 0.2]]), vein, 0.05))
    return Figure(tuple(strokes))


def person(rng: np.random.Generator) -> Figure:
    """A person facing the viewer, in any pose; the person's left is the picture's right."""
    skin = colour(rng, hue=(0.04, 0.09), saturation=(0.3, 0.6), value=(0.4, 1.0))
    shirt, trousers = colour(rng), colour(rng, value=(0.25, 0.8))
    hair = colour(rng, hue=(0.02, 0.12), saturation=(0.2, 0.8), value=(0.1, 0.7))
    turn, lean = rng.uniform(0.75, 1.0), rng.uniform(-0.08, 0.08)
    head = np.array([lean + rng.uniform(-0.05, 0.05), -0.74])
    sides = np.array([1, -1])

    def limbs(
        x: np.ndarray, y: float, length: float, upper: tuple[float, float], bend: tuple[float, float]
    ) -> np.ndarray:
        """A pair of two-part limbs [side, joint, 2]; angles are from straight down, outward."""
        angle = np.stack([rng.uniform(*upper, 2), rng.uniform(*bend, 2)], axis=1).cumsum(axis=1)
        steps = length * np.stack([sides[:, None] * np.sin(angle), np.cos(angle)], axis=2)
        root = np.stack([x, np.full(2, y)], axis=1)[:, None]
        return np.concatenate([root, steps], axis=1).cumsum(axis=1)

    arms = limbs(lean + 0.23 * turn * sides, -0.43, 0.3, (0.15, 2.7), (-0.3, 1.5))
    legs = limbs(0.13 * turn * sides, 0.1, 0.42, (0.0, 0.6), (-0.6, 0.0))
    face = head + [rng.uniform(-0.05, 0.05), 0.02] + [[0, 0.04], [0.08, -0.03], [-0.08, -0.03]]
    ears = head + [[0.2, 0.0], [-0.2, 0.0]]
    joints = np.concatenate([face, ears, *arms.transpose(1, 0, 2), *legs.transpose(1, 0, 2)])

    torso = np.stack([arms[0, 0], arms[1, 0], legs[1, 0], legs[0, 0], arms[0, 0]])
    neck = np.array([head, [lean, -0.4]])
    strokes = [Stroke(leg, trousers, 0.17) for leg in legs]
    strokes += [
        Stroke(leg[2] + [[0, 0], [side * 0.07, 0]], lighter(hair, -0.3), 0.14)
        for leg, side in zip(legs, sides, strict=True)
    ]
    strokes += [Stroke(neck, lighter(skin, -0.15), 0.13), Stroke(torso, shirt), Stroke(torso, shirt, 0.14)]
    strokes += [stroke for arm in arms for stroke in (Stroke(arm, skin, 0.12), Stroke(arm[:2], shirt, 0.15))]
    strokes += [Stroke(ellipse(*ear, 0.05, 0.06, points=9), skin) for ear in ears]
    strokes += [Stroke(ellipse(*head, 0.2, 0.22, points=24), skin)]
    strokes += [
        Stroke(ellipse(head[0], head[1] - 0.03, 0.2, 0.21, start=1.03 * np.pi, stop=1.97 * np.pi, points=16), hair)
    ]
    strokes += [Stroke(ellipse(*eye, 0.03, 0.04, points=9), lighter(hair, -0.7)) for eye in face[1:]]
    strokes += [Stroke(face[0] + [[-0.05, 0.07], [0.05, 0.07]], lighter(skin, -0.5), 0.03)]
    return Figure(tuple(strokes), joints)


FIGURES: dict[str, Callable[[np.random.Generator], Figure]] = {
    "person": person,
    "ball": ball,
    "crate": crate,
    "star": star,
    "ring": ring,
    "leaf": leaf,
}
