"""Drawing masks, poses, and maps of classes or segments.

Shape shorthand: n objects of an image, J points of a pose, H W image axes. Everything is drawn on a canvas that is the
image, uint8 RGB, enlarged by a whole factor (`boxes.enlarge`).
"""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from ylosia_jax.visualize.boxes import Colour, Plate, draw_plates, enlarge, palette, stroke

_OPACITY = 0.45
_SHADES = (0.0, 0.45, -0.4, 0.2)  # towards white or black: neighbours of one class tell themselves apart


def shade(colour: Colour, number: int) -> Colour:
    """The colour itself for 0, then lighter and darker ones in turn."""
    amount = _SHADES[number % len(_SHADES)]
    mixed = (round(c + amount * ((255 - c) if amount > 0 else c)) for c in colour)
    red, green, blue = mixed
    return red, green, blue


def paint_masks(canvas: np.ndarray, masks: np.ndarray, colours: Sequence[Colour]) -> None:
    """Tints the pixels of each mask and traces its outline, in place; the last lies on top.

    Args:
      masks: [n, H, W] bool, of the image before it was enlarged.
    """
    factor = canvas.shape[0] // masks.shape[1] if len(masks) else 1
    tint, covered = np.zeros_like(canvas), np.zeros(canvas.shape[:2], bool)
    outlines: list[tuple[list[np.ndarray], Colour]] = []
    for mask, colour in zip(masks, colours, strict=True):
        whole = mask.astype(np.uint8)
        if factor > 1:
            smooth = cv2.resize(whole * 255, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
            whole = (smooth > 127).astype(np.uint8)
        inside = whole > 0
        tint[inside], covered[inside] = colour, True
        contours, _ = cv2.findContours(whole, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        outlines.append((list(contours), colour))
    blend = canvas[covered] * (1 - _OPACITY) + tint[covered] * _OPACITY
    canvas[covered] = blend.round().astype(np.uint8)
    width = max(1, stroke(canvas) // 2)
    for contours, colour in outlines:
        cv2.drawContours(canvas, contours, -1, colour, width, cv2.LINE_AA)


def paint_poses(
    canvas: np.ndarray,
    keypoints: np.ndarray,
    edges: Sequence[tuple[int, int]],
    colours: Sequence[Colour],
    *,
    threshold: float = 0.5,
) -> None:
    """Draws skeletons in place: dark lines with a bright core, and a dot at each point.

    Args:
      keypoints: [n, J, 3] x, y in pixels of the canvas, and a score or v; points below `threshold` are left out, and
        the edges at them.
    """
    width = stroke(canvas)
    for points, colour in zip(keypoints, colours, strict=True):
        shown = (points[:, 2] >= threshold) & np.isfinite(points).all(axis=1)
        # OpenCV's whole numbers are pixel centres, ours are corners; it is given 4 fractional bits.
        pixels = np.where(shown[:, None], np.clip((points[:, :2] - 0.5) * 16, -(2**20), 2**20), 0).round().astype(int)
        lines = [(pixels[a], pixels[b]) for a, b in edges if shown[a] and shown[b]]
        for ink, extra in (((0, 0, 0), 2), (colour, 0)):
            for a, b in lines:
                cv2.line(canvas, a.tolist(), b.tolist(), ink, width + extra, cv2.LINE_AA, 4)
        for (x, y), there in zip(pixels.tolist(), shown, strict=True):
            if there:
                cv2.circle(canvas, (x, y), (width + 1) * 16, (0, 0, 0), -1, cv2.LINE_AA, 4)
                cv2.circle(canvas, (x, y), width * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)


def draw_map(
    image: np.ndarray,
    numbers: np.ndarray,
    labels: Mapping[int, int],
    names: Sequence[str],
) -> np.ndarray:
    """A map of classes, or of segments, over its image, each with its class's name.

    Segments of one class differ in shade. A name stands at the place of its segment that is farthest from the edge.

    Args:
      image: uint8 RGB [H, W, 3].
      numbers: [H, W] number of each pixel's class or segment.
      labels: number -> index into `names`; pixels of other numbers stay as they are.
      names: of all classes.

    Returns:
      A new image, enlarged.
    """
    canvas, factor = enlarge(image)
    colours = palette(len(names))
    seen: dict[int, int] = {}
    plates: list[Plate] = []
    masks, tints = [], []
    for number, label in sorted(labels.items()):
        mask = numbers == number
        if not mask.any():
            continue
        colour = shade(colours[label], seen.get(label, 0))
        seen[label] = seen.get(label, 0) + 1
        masks.append(mask)
        tints.append(colour)
        # Padded, so that the image's own edge counts as one.
        depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
        y, x = np.unravel_index(int(depth.argmax()), depth.shape)
        place = np.array([x, y, x, y]) * factor
        plates.append(Plate(names[label], place, colour))
    if masks:
        paint_masks(canvas, np.stack(masks), tints)
        draw_plates(canvas, plates)
    return canvas
