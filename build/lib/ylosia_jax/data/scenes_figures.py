"""The objects of the built-in scenes, as vector drawings: one function a class.

A figure lives in its own frame: x to the right, y down, the origin in its middle and radius 1. Colours are RGB in
0..255. Every function draws its variety from the `rng` it is given, in a fixed order, through `random`, `uniform` and
`integers` only, whose streams have not changed since NumPy 1.17.
"""

import colorsys
import dataclasses

import numpy as np

Colour = np.ndarray
Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Stroke:
    """One shape in one colour: a filled polygon, or with a `width` the line through its points, with round ends."""

    points: np.ndarray
    colour: Colour
    width: float = 0.0


@dataclasses.dataclass(frozen=True)
class Figure:
    """Strokes from the lowest to the topmost, and a person's joints.

    `joints` [17, 2] are in COCO's order: nose, eyes, ears, shoulders, elbows, wrists, hips, knees and ankles, of each
    pair the person's left one first. `swing` is the greatest turn from upright that the figure takes, in radians.
    """

    strokes: tuple[Stroke, ...]
    joints: np.ndarray | None = None
    swing: float = np.pi


def colour(
    rng: np.random.Generator, hue: Range = (0.0, 1.0), saturation: Range = (0.45, 0.95), value: Range = (0.55, 1.0)
) -> Colour:
    """Draws an RGB colour uniformly from ranges of hue, saturation and value."""
    ranges = (hue, saturation, value)
    hsv = [low + (high - low) * t for (low, high), t in zip(ranges, rng.random(3).tolist(), strict=True)]
    return 255 * np.array(colorsys.hsv_to_rgb(*hsv), np.float32)


def lighter(rgb: Colour, amount: float) -> Colour:
    """Moves a colour towards white, or for a negative amount towards black."""
    return rgb + amount * (255 - rgb) if amount > 0 else rgb * (1 + amount)


def ellipse(
    rx: float, ry: float, *, x: float = 0.0, y: float = 0.0, arc: Range = (0.0, 1.0), points: int = 40
) -> np.ndarray:
    """Points [n, 2] clockwise along an ellipse, on an `arc` in turns from the right; both ends are included."""
    angle = 2 * np.pi * (arc[0] + (arc[1] - arc[0]) / (points - 1) * np.arange(points))
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def person(rng: np.random.Generator) -> Figure:
    """A person facing the viewer, in any pose; the person's left is the picture's right."""
    skin = colour(rng, hue=(0.04, 0.09), saturation=(0.3, 0.6), value=(0.4, 1.0))
    hair = colour(rng, hue=(0.02, 0.12), saturation=(0.2, 0.8), value=(0.1, 0.7))
    shirt, trousers = colour(rng), colour(rng, value=(0.25, 0.8))
    sides, turn, lean = np.array([1, -1]), rng.uniform(0.75, 1.0), rng.uniform(-0.08, 0.08)

    def limbs(x: np.ndarray, y: float, length: float, upper: Range, bend: Range) -> np.ndarray:
        """The left and the right limb [side, joint, xy]; angles are from straight down, outward."""
        angle = np.stack([rng.uniform(*upper, 2), rng.uniform(*bend, 2)], axis=1).cumsum(axis=1)
        steps = length * np.stack([sides[:, None] * np.sin(angle), np.cos(angle)], axis=2)
        root = np.stack([x, np.full(2, y)], axis=1)[:, None]
        return np.concatenate([root, steps], axis=1).cumsum(axis=1)

    arms = limbs(lean + 0.23 * turn * sides, -0.43, 0.3, (0.15, 2.7), (-0.3, 1.5))
    legs = limbs(0.13 * turn * sides, 0.1, 0.42, (0.0, 0.6), (-0.6, 0.0))
    x, y = lean + rng.uniform(-0.05, 0.05), -0.74
    gaze = x + rng.uniform(-0.05, 0.05)
    nose, *eyes = np.array([[gaze, y + 0.06], [gaze + 0.08, y - 0.01], [gaze - 0.08, y - 0.01]])
    ears = np.array([[x + 0.2, y], [x - 0.2, y]])
    joints = np.concatenate([[nose], eyes, ears, *arms.transpose(1, 0, 2), *legs.transpose(1, 0, 2)])

    torso = np.stack([arms[0, 0], arms[1, 0], legs[1, 0], legs[0, 0], arms[0, 0]])
    neck, mouth = np.array([[x, y], [lean, -0.4]]), nose + np.array([[-0.06, 0.05], [0, 0.09], [0.06, 0.05]])
    shoes = [leg[2] + np.array([[0, 0], [0.07 * side, 0]]) for leg, side in zip(legs, sides, strict=True)]
    strokes = [Stroke(leg, trousers, 0.17) for leg in legs]
    strokes += [Stroke(shoe, lighter(hair, -0.3), 0.14) for shoe in shoes]
    strokes += [Stroke(neck, lighter(skin, -0.15), 0.13), Stroke(torso, shirt), Stroke(torso, shirt, 0.14)]
    strokes += [stroke for arm in arms for stroke in (Stroke(arm, skin, 0.12), Stroke(arm[:2], shirt, 0.15))]
    strokes += [Stroke(ellipse(0.05, 0.06, x=ear[0], y=ear[1], points=9), skin) for ear in ears]
    strokes += [Stroke(ellipse(0.2, 0.22, x=x, y=y, points=24), skin)]
    strokes += [Stroke(ellipse(0.2, 0.21, x=x, y=y - 0.03, arc=(0.515, 0.985), points=16), hair)]
    strokes += [Stroke(ellipse(0.03, 0.04, x=eye[0], y=eye[1], points=9), lighter(hair, -0.7)) for eye in eyes]
    strokes += [Stroke(mouth, lighter(skin, -0.5), 0.03)]
    return Figure(tuple(strokes), joints, swing=0.3)


def ball(rng: np.random.Generator) -> Figure:
    """A ball with up to two seams."""
    main = colour(rng)
    seam, turn = lighter(main, -0.45 if rng.random() < 0.5 else 0.7), rng.uniform(0.2, 0.8)
    halves = [ellipse(side * turn, 0.97, arc=(-0.25, 0.25), points=14) for side in (1, -1)]
    return Figure((Stroke(ellipse(1, 1), main), *(Stroke(half, seam, 0.09) for half in halves if rng.random() < 0.6)))


def crate(rng: np.random.Generator) -> Figure:
    """A crate of planks in a frame with up to two braces, square or oblong."""
    main = colour(rng, hue=(0.02, 0.15), saturation=(0.3, 0.75))
    frame, groove = lighter(main, 0.25), lighter(main, -0.45)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]]) * [0.8, rng.uniform(0.5, 0.8)]
    inner = corners - 0.1 * np.sign(corners)
    planks = [corners[1:3] * [third, 0.8] for third in (-1 / 3, 1 / 3)]
    braces = (inner[0:3:2], inner[1:4:2])[: rng.integers(3)]
    return Figure(
        (
            Stroke(corners, main),
            *(Stroke(plank, groove, 0.05) for plank in planks),
            *(Stroke(brace, frame, 0.2) for brace in braces),
            Stroke(inner, frame, 0.2),
        )
    )


def star(rng: np.random.Generator) -> Figure:
    """A star with five or six faceted points."""
    main, tips = colour(rng), int(rng.integers(5, 7))
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
        return np.concatenate([ellipse(outer, outer * slant), ellipse(inner, inner * slant)[::-1]])

    middle = 0.5 * (1 + hole) - 0.04
    return Figure((Stroke(band(1, hole), main), Stroke(band(middle + 0.05, middle - 0.05), lighter(main, 0.4))))


def leaf(rng: np.random.Generator) -> Figure:
    """A leaf on its stalk, pointed at one end and round at the other."""
    main = colour(rng, hue=(0.02, 0.4))
    vein, breadth, lean = lighter(main, -0.4), rng.uniform(0.5, 0.68), rng.uniform(0.55, 0.75)
    t = np.arange(24) / 23
    half, y = breadth * np.sin(np.pi * t**lean), 1.75 * t - 1
    sides = [np.stack([side * half, y], axis=1) for side in (1, -1)]
    ribs = [np.array([[-half[i], y[i - 3]], [0, y[i]], [half[i], y[i - 3]]]) * [0.6, 1] for i in (8, 13, 17)]
    return Figure(
        (
            Stroke(np.array([[0, 0.6], [0.05, 0.95]]), vein, 0.1),
            Stroke(np.concatenate([sides[0], sides[1][::-1]]), main),
            Stroke(np.array([[0, -0.8], [0, 0.7]]), vein, 0.07),
            *(Stroke(rib, vein, 0.05) for rib in ribs),
        ),
        swing=1.0,
    )


# In label order: a new figure goes to the end.
FIGURES = (person, ball, crate, star, ring, leaf)
