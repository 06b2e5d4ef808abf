"""The backgrounds of the built-in scenes: bands of stuff from the top of the picture to its bottom, each textured."""

import math

import cv2
import numpy as np

from ylosia_jax.data.scenes_figures import colour, lighter

STUFF = ("sky", "hill", "grass", "sand", "water", "wall", "floor")
PATTERNS = ("plain", "stripes", "checks", "dots")


def pattern(kind: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A soft-edged pattern in [0, 1] with period 2 pi in `u` and `v`."""
    if kind == "stripes":
        wave = np.sin(u)
    elif kind == "checks":
        wave = 2 * np.sin(u) * np.sin(v)
    elif kind == "dots":
        wave = np.cos(u) + np.cos(v) - 0.7
    else:
        wave = np.full_like(u, -1.0)
    return np.clip(0.5 + 3 * wave, 0, 1)


def noise(rng: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    """Smooth noise in about [0, 1] with `cells` bumps along each side."""
    return cv2.resize(rng.random((cells, cells), dtype=np.float32), (width, height), interpolation=cv2.INTER_CUBIC)


def texture(rng: np.random.Generator, stuff: str, y: np.ndarray, x: np.ndarray, rough: np.ndarray) -> np.ndarray:
    """One kind of stuff, [3, h, w]: two colours, and between them a mixture that is the stuff's own.

    `y` [h, 1] and `x` [1, w] are places in the picture in units of its height, `rough` [h, w] is smooth noise.
    """
    depth = y - y[0] + 0.05
    if stuff == "sky":
        low = colour(rng, hue=(0.52, 0.62), saturation=(0.1, 0.5), value=(0.85, 1.0))
        high = colour(rng, hue=(0.02, 0.13) if rng.random() < 0.25 else (0.54, 0.63), value=(0.6, 1.0))
        mix = np.clip(1.2 * y + np.clip(5 * rough - rng.uniform(2.5, 4.0), 0, 1), 0, 1)
    elif stuff == "hill":
        high = colour(rng, hue=(0.25, 0.7), saturation=(0.15, 0.45), value=(0.35, 0.7))
        low, mix = lighter(high, 0.25), np.clip(rough + depth, 0, 1)
    elif stuff == "grass":
        high = colour(rng, hue=(0.2, 0.36), saturation=(0.4, 0.75), value=(0.4, 0.75))
        low, mix = lighter(high, 0.25), rough + 0.25 * np.sin(90 * x + 9 * rough + 40 * y)
    elif stuff == "sand":
        high = colour(rng, hue=(0.08, 0.13), saturation=(0.25, 0.5), value=(0.7, 0.95))
        low, mix = lighter(high, -0.2), 0.5 + 0.5 * np.sin(60 * np.sqrt(depth) + 14 * rough)
    elif stuff == "water":
        high = colour(rng, hue=(0.48, 0.6), saturation=(0.5, 0.85), value=(0.45, 0.85))
        low, mix = lighter(high, 0.35), np.clip(np.sin(70 * np.sqrt(depth) + 20 * rough + 9 * x), 0.2, 1)
    elif stuff == "floor":
        # Planks or tiles that run away from the eye, in the colours of wood and stone: no wall looks like that.
        high = colour(rng, hue=(0.05, 0.11), saturation=(0.05, 0.55), value=(0.35, 0.8))
        near = 1 / (depth + 0.2)
        u, v = rng.uniform(12, 30) * (x - rng.uniform(0.3, 0.9)) * near, rng.uniform(15, 40) * near
        low, mix = lighter(high, rng.uniform(0.15, 0.4)), pattern(("stripes", "checks")[rng.integers(2)], u, v)
    else:
        high = colour(rng, saturation=(0.1, 0.5), value=(0.5, 0.95))
        kind, frequency, turn = PATTERNS[rng.integers(4)], rng.uniform(15, 60), rng.uniform(0, math.pi)
        u, v = (x * math.cos(turn) + y * math.sin(turn)), (y * math.cos(turn) - x * math.sin(turn))
        low, mix = lighter(high, rng.uniform(-0.3, 0.4)), pattern(kind, frequency * u, frequency * v)
    return high[:, None, None] + (low - high)[:, None, None] * mix


def ground(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A background, [3, H, W] float32 in about 0..255, and its stuff, [H, W] uint8 index into `STUFF`."""
    kind = rng.random()
    if kind < 0.7:
        between = [stuff for stuff in ("hill", "water") if rng.random() < 0.5]
        bands = ["sky", *between, STUFF[rng.integers(2, 5)]]
    elif kind < 0.9:
        bands = ["wall", "floor"]
    else:
        bands = [STUFF[rng.integers(2, 7)]]
    y = ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None]
    x = ((np.arange(width, dtype=np.float32) + 0.5) / height)[None]
    rough = 0.5 * noise(rng, height, width, 5) + 0.3 * noise(rng, height, width, 12)
    rough += 0.2 * noise(rng, height, width, 40)
    image = texture(rng, bands[0], y, x, rough)
    stuff = np.full((height, width), STUFF.index(bands[0]), np.uint8)
    for band, top in zip(bands[1:], np.sort(rng.uniform(0.25, 0.8, len(bands) - 1)), strict=True):
        swell = 0.08 if band == "hill" else 0.0 if band in ("water", "floor") else 0.015
        edge = top + swell * np.sin(rng.uniform(3, 9) * x + rng.uniform(0, 2 * math.pi))
        rows = slice(int(edge.min() * height), None)
        below = (y[rows] - edge) * height + 0.5
        image[:, rows] += (texture(rng, band, y[rows], x, rough[rows]) - image[:, rows]) * np.clip(below, 0, 1)
        stuff[rows][below >= 0.5] = STUFF.index(band)
    return image, stuff
