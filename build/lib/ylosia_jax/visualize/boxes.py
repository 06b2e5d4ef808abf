"""Drawing what was found, or the truth, on images.

Shape shorthand: n objects of an image, H W image axes. Images are uint8 RGB [H, W, 3]. None is drawn upon in place: a
drawing function `enlarge`s its image, draws on that canvas in multiples of its `stroke`, and returns it.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

LEGIBLE = 480  # pixels that the longer side needs before a name on a plate can be read

_FONT = cv2.FONT_HERSHEY_SIMPLEX  # OpenCV 5 draws it as TrueType, in any script; 4 as strokes, with ? beyond ASCII
_FONT_PIXELS = 28  # height of the font, in pixels, at scale 1

_SEEDS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
# Linear RGB as seen without red, and without green, cones.
_DEFICIENT = np.array(
    [
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    ]
)


Colour = tuple[int, int, int]


class Plate(NamedTuple):
    """A text to be written beside a box.

    Attributes:
      box: [4] xyxy, whole pixels of the canvas.
      short: what is written where the text would hide an object.
    """

    text: str
    box: np.ndarray
    colour: Colour
    short: str = ""


@functools.cache
def palette(count: int) -> tuple[Colour, ...]:
    """RGB colours for `count` classes, as unlike each other as they can be; a longer palette begins with the shorter.

    The first seven are Okabe and Ito's ("Color Universal Design", 2008). Each further one is, of a grid of colours that
    are neither dark nor pale nor grey, the farthest in CIELAB from all before it, as seen by the worst of three eyes:
    normal, without red cones, without green cones (Machado et al., "A physiologically-based model for simulation of
    color vision deficiency", 2009, severity 1). Once the grid is used up, colours repeat.
    """
    steps = np.linspace(0, 255, 18).round()
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    lab = _seen(grid)[0]
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    grid = grid[(lab[:, 0] > 35) & (lab[:, 0] < 88) & (chroma > 35)]
    candidates = np.concatenate([_SEEDS, grid])
    seen = _seen(candidates)

    def apart(index: int) -> np.ndarray:
        return np.linalg.norm(seen - seen[:, index, None], axis=-1).min(axis=0)

    chosen = list(range(len(_SEEDS)))
    nearest = np.min([apart(index) for index in chosen], axis=0)
    while len(chosen) < min(count, len(candidates)):
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, apart(chosen[-1]))
    colours: list[Colour] = [(red, green, blue) for red, green, blue in candidates[chosen].astype(int).tolist()]
    return tuple(colours[i % len(colours)] for i in range(count))


def enlarge(image: np.ndarray) -> tuple[np.ndarray, int]:
    """A copy to draw upon, and the whole factor by which it is larger: the least that makes its longer side legible.

    The factor is 1 from 480 pixels on and depends on the size alone, so a video's frames get the same.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"expected a uint8 RGB image [H, W, 3], got {image.dtype} {list(image.shape)}")
    factor = math.ceil(LEGIBLE / max(image.shape[:2]))
    if factor == 1:
        return image.copy(), 1
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC), factor


def stroke(canvas: np.ndarray) -> int:
    """Width of lines, in pixels, on a canvas of this size."""
    return max(2, round(math.sqrt(canvas.shape[0] * canvas.shape[1]) / 400))


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray | None,
    labels: np.ndarray,
    names: Sequence[str],
    *,
    before: Callable[[np.ndarray, np.ndarray], None] | None = None,
) -> np.ndarray:
    """Boxes with their class and score; the better the score, the nearer to the viewer.

    Args:
      image: uint8 RGB [H, W, 3].
      boxes: [n, 4] xyxy in pixels of `image`. Where one sticks out, it is drawn along the image's edge; one without any
        area inside is left out.
      scores: [n], or None for the truth, which is drawn with thin broken lines in the order given.
      labels: [n] index into `names`.
      names: of all classes.
      before: draws what lies below the frames: called with the canvas and the order in which the boxes follow.

    Returns:
      A new image, `enlarge`d.

    Raises:
      ValueError: if the image is not uint8 RGB, the lengths differ, or a label has no name.
    """
    boxes, labels = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(labels)
    ranks = np.zeros(len(boxes)) if scores is None else np.asarray(scores)
    if not len(boxes) == len(labels) == len(ranks):
        raise ValueError(f"{len(boxes)} boxes, {len(labels)} labels and {len(ranks)} scores: give one of each a box")
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
        raise ValueError(f"labels run from {labels.min()} to {labels.max()}, but there are {len(names)} names")
    canvas, factor = enlarge(image)
    corners = np.clip(boxes * factor, 0, np.tile(canvas.shape[1::-1], 2))
    shown = np.all(corners[:, 2:] > corners[:, :2], axis=1)  # false for NaN, too
    pixels = np.where(shown[:, None], corners, 0).round().astype(int)
    colours = palette(len(names))

    plates: list[Plate] = []
    order = np.argsort(ranks, kind="stable")
    if before is not None:
        before(canvas, order)
    for i in order:
        if shown[i]:
            label = int(labels[i])
            score = "" if scores is None else f"{ranks[i]:.2f}"
            plates.append(Plate(f"{names[label]} {score}".rstrip(), pixels[i], colours[label], short=score))
            _frame(canvas, pixels[i], colours[label], dashed=scores is None)
    # After every frame, so that no line runs through a name.
    draw_plates(canvas, plates)
    return canvas


def draw_plates(canvas: np.ndarray, plates: Sequence[Plate]) -> None:
    """Writes each text on a plate beside its box, inside the canvas; the last is the nearest to the viewer.

    A plate stands on its box's top left corner, or hangs elsewhere at the box where a later plate is in the way, or
    where it would hide more than half of a box. Where no place will do, or other plates leave less than two thirds of
    it, the short text is tried, and then left out too: in a crowd the frame's colour tells the class. What cannot be
    printed shows as a question mark; a text longer than the canvas is wide loses its middle.
    """
    height, width = canvas.shape[:2]
    size = max(14, round(math.sqrt(height * width) / 60))
    scale, thickness, margin, h = size / _FONT_PIXELS, max(1, size // 24), size // 3, round(1.4 * size)
    half = stroke(canvas) // 2

    def extent(text: str) -> int:
        return cv2.getTextSize(text, _FONT, scale, thickness)[0][0] + 2 * margin

    def fitting(text: str) -> str:
        text = "".join(c if c.isprintable() else "?" for c in text)
        if extent(text) <= width:
            return text
        cuts = (text[:n] + "..." + text[-5:] for n in range(min(len(text) - 6, 150), 0, -1))
        return next((cut for cut in cuts if extent(cut) <= width), "")

    def shared(places: np.ndarray, w: int, others: np.ndarray) -> np.ndarray:
        """Pixels of each place for a plate that lie in each of some boxes."""
        sides = np.minimum(places[:, None] + (w, h), others[:, 2:]) - np.maximum(places[:, None], others[:, :2])
        return np.clip(sides, 0, None).prod(axis=-1)

    boxes = np.array([plate.box for plate in plates], int).reshape(-1, 4)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=-1)
    boxes, areas = boxes[areas > 0], areas[areas > 0]
    taken = np.zeros((0, 4), int)
    written: list[tuple[str, Colour]] = []
    for plate in plates[::-1]:
        (x1, y1), (x2, y2) = plate.box[:2] - half, plate.box[2:] + half
        for text in filter(None, (fitting(plate.text), plate.short)):
            w = extent(text)
            places = np.array([(x1, y1 - h), (x2 - w, y1 - h), (x1, y1), (x1, y2), (x2 - w, y2), (x2 - w, y1)])
            places = np.maximum(0, np.minimum(places, (width - w, height - h)))
            covered = shared(places, w, taken).sum(axis=1)
            useless = (2 * shared(places, w, boxes) > areas).any(axis=1) | (3 * covered > w * h)
            if w > width or useless.all():
                continue
            x, y = places[np.where(useless, np.inf, covered).argmin()]
            taken = np.concatenate([taken, [[x, y, x + w, y + h]]])
            written.append((text, plate.colour))
            break

    for (text, colour), (x1, y1, x2, y2) in zip(written[::-1], taken[::-1].tolist(), strict=True):
        canvas[y1:y2, x1:x2] = _rim(colour)
        canvas[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1] = colour
        # The ink that stands out more, by relative luminance (WCAG 2.2).
        ink = (0, 0, 0) if _linear(np.array(colour)) @ (0.2126, 0.7152, 0.0722) > 0.179 else (255, 255, 255)
        cv2.putText(canvas, text, (x1 + margin, y1 + size), _FONT, scale, ink, thickness, cv2.LINE_AA)


def contact_sheet(images: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Images in rows from the top left, each centred in a cell of the largest one's size, on a plain ground.

    Raises:
      ValueError: if there is no image or no column.
    """
    if not len(images) or columns < 1:
        raise ValueError(f"{len(images)} images in {columns} columns: give at least one of each")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    h, w = (max(image.shape[axis] for image in images) for axis in (0, 1))
    gap = max(4, (h + w) // 100)
    sheet = np.full((rows * (h + gap) + gap, columns * (w + gap) + gap, 3), 245, np.uint8)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        top = gap + row * (h + gap) + (h - image.shape[0]) // 2
        left = gap + column * (w + gap) + (w - image.shape[1]) // 2
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return sheet


def _frame(canvas: np.ndarray, box: np.ndarray, colour: Colour, *, dashed: bool) -> None:
    """Draws lines centred on a box's edges, or as near to them as keeps their full width inside the canvas."""
    width = stroke(canvas)
    _lines(canvas, box, width if dashed else width + 2 * max(1, width // 3), _rim(colour), dash=None)
    _lines(canvas, box, width, colour, dash=4 * width if dashed else None)


def _rim(colour: Colour) -> Colour:
    """A darker shade, to show a colour on a ground like it."""
    red, green, blue = colour
    return red // 2, green // 2, blue // 2


def _lines(canvas: np.ndarray, box: np.ndarray, width: int, colour: Colour, *, dash: int | None) -> None:
    edge = np.array(canvas.shape[1::-1])
    end = np.maximum(edge - width, 0)
    (x1, y1), (x2, y2) = np.clip(box[:2] - width // 2, 0, end), np.clip(box[2:] - width // 2, 0, end)
    xs, ys = np.arange(x1, min(x2 + width, edge[0])), np.arange(y1, min(y2 + width, edge[1]))
    if dash is not None:
        xs, ys = xs[(xs - x1) // dash % 2 == 0], ys[(ys - y1) // dash % 2 == 0]
    for y in (y1, y2):
        canvas[y : y + width, xs] = colour
    for x in (x1, x2):
        canvas[ys, x : x + width] = colour


def _seen(rgb: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of 8-bit sRGB colours [n, 3] to three eyes, [3, n, 3]: normal, protanopic, deuteranopic."""
    linear = _linear(rgb)
    eyes = np.stack([linear, *np.clip(linear @ _DEFICIENT.transpose(0, 2, 1), 0, 1)])
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = eyes @ to_xyz.T / (0.9505, 1.0, 1.089)
    x, y, z = np.moveaxis(np.where(ratio > 216 / 24389, np.cbrt(ratio), (ratio * 24389 / 27 + 16) / 116), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def _linear(rgb: np.ndarray) -> np.ndarray:
    """Linear light in [0, 1] of 8-bit sRGB (IEC 61966-2-1)."""
    share = rgb / 255
    return np.where(share > 0.04045, ((share + 0.055) / 1.055) ** 2.4, share / 12.92)
