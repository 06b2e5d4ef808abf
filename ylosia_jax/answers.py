"""What a network answered about one image, without padding and in that image's own pixels."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import cv2
import numpy as np

from ylosia_jax import rle
from ylosia_jax.data.pipeline import Letterbox, instance_map
from ylosia_jax.metrics.instances import ImageDetections, image_truth
from ylosia_jax.metrics.panoptic import ImageSegments, segments_of
from ylosia_jax.types import BoxMasks, Categories, Detections, Example, Masks, PanopticMap, Poses, SemanticMap


@dataclasses.dataclass(frozen=True)
class ImageAnswer:
    """All answers about one image; None where no task gives one.

    Attributes:
      detections: boxes, scores, labels, masks and poses, best first.
      semantic: [H, W] uint8, the class of each pixel.
      segments: [H, W] int32, the number of each pixel's segment, 0 for none.
      segment_labels: number of a segment -> its semantic class.
      categories: [K] score of each class for the image as a whole.
    """

    detections: ImageDetections | None = None
    semantic: np.ndarray | None = None
    segments: np.ndarray | None = None
    segment_labels: dict[int, int] = dataclasses.field(default_factory=dict)
    categories: np.ndarray | None = None


def unpad(answers: Mapping[str, Any], row: int, letterbox: Letterbox, canvas: tuple[int, int]) -> ImageAnswer:
    """One image's part of a batch of answers.

    Args:
      answers: by task, each in one of the answer types of `types`; arrays on the host.
      row: of the image in the batch.
      letterbox: that brought the image onto its canvas.
    """
    found = ImageAnswer()
    valid, unclipped = np.zeros(0, bool), np.zeros((0, 4), np.float32)
    for answer in answers.values():
        if isinstance(answer, Detections):
            # What lies beside the picture alone, in the canvas's padding, is nothing that was seen.
            clipped = letterbox.decode(np.asarray(answer.boxes[row]))
            valid = np.asarray(answer.valid[row]) & (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
            unclipped = np.asarray(answer.boxes[row])[valid] / letterbox.scale
            scores, labels = (np.asarray(x[row])[valid] for x in (answer.scores, answer.labels))
            found = dataclasses.replace(found, detections=ImageDetections(clipped[valid], scores, labels))
        elif isinstance(answer, SemanticMap):
            found = dataclasses.replace(found, semantic=_to_image(np.asarray(answer.labels[row]), letterbox))
        elif isinstance(answer, Categories):
            found = dataclasses.replace(found, categories=np.asarray(answer.scores[row]))
        elif isinstance(answer, Masks) and found.detections is not None:
            masks = paste(np.asarray(answer.logits[row], np.float32)[valid], found.detections.boxes, letterbox, canvas)
            found = dataclasses.replace(found, detections=dataclasses.replace(found.detections, masks=masks))
        elif isinstance(answer, BoxMasks) and found.detections is not None:
            logits = np.asarray(answer.logits[row], np.float32)[valid]
            masks = tuple(map(rle.encode, paste_boxes(logits, unclipped, letterbox.size)))
            found = dataclasses.replace(found, detections=dataclasses.replace(found.detections, masks=masks))
        elif isinstance(answer, Poses) and found.detections is not None:
            points = np.asarray(answer.keypoints[row])[valid].copy()
            points[..., :2] /= letterbox.scale[:2]
            found = dataclasses.replace(found, detections=dataclasses.replace(found.detections, keypoints=points))
        elif isinstance(answer, PanopticMap) and found.detections is not None:
            rows = len(valid)
            segments = _to_image(np.asarray(answer.segments[row]), letterbox)
            numbers = np.unique(segments[segments > 0]).tolist()
            everyone = np.cumsum(valid) - 1
            labels = {n: int(found.detections.labels[everyone[n - 1]]) if n <= rows else n - 1 - rows for n in numbers}
            found = dataclasses.replace(found, segments=segments, segment_labels=labels)
    return found


def paste(logits: np.ndarray, boxes: np.ndarray, letterbox: Letterbox, canvas: tuple[int, int]) -> tuple[bytes, ...]:
    """Masks in pixels of an image as COCO's compressed run lengths, from logits on a grid over its canvas.

    Logits are enlarged bilinearly and cut at 0; a mask has no pixel whose centre lies outside of its box.

    Args:
      logits: [m, h, w].
      boxes: [m, 4] xyxy in pixels of the image.
    """
    height, width = letterbox.size
    grid = logits.shape[1:]
    # The place of each pixel's centre on the grid, whose cells have theirs at halves.
    y, x = (
        np.clip((np.arange(size) + 0.5) * scale * cells / side - 0.5, 0, cells - 1)
        for size, scale, cells, side in zip((height, width), letterbox.scale[[1, 0]], grid, canvas, strict=True)
    )
    masks: list[bytes] = []
    page = np.zeros((height, width), np.uint8, order="F")
    for logit, box in zip(logits, boxes, strict=True):
        x0, y0, x1, y1 = np.ceil(box - 0.5).astype(int).clip(0, [width, height, width, height]).tolist()
        if x1 > x0 and y1 > y0:
            page[y0:y1, x0:x1] = _bilinear(logit, y[y0:y1], x[x0:x1]) > 0
        masks.append(rle.encode(page))
        page[y0:y1, x0:x1] = 0
    return tuple(masks)


def paste_boxes(logits: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Masks in pixels of an image, [H, W], one after the other, from logits on a grid over each one's box.

    As torchvision pastes them: probabilities with a ring of zeros around them, enlarged bilinearly to whole pixels and
    cut at one half.

    Args:
      logits: [m, h, w].
      boxes: [m, 4] xyxy in pixels of the image; they may reach beyond it.
      size: height and width of the image.
    """
    height, width = size
    with np.errstate(over="ignore"):
        scores = np.pad(1 / (1 + np.exp(-logits)), ((0, 0), (1, 1), (1, 1)))
    grid = scores.shape[1:]
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    half = half * [grid[1] / (grid[1] - 2), grid[0] / (grid[0] - 2)]
    # Rounded towards zero, and both ends belong to the mask.
    low, high = (centre - half).astype(int), (centre + half).astype(int)
    for score, (x0, y0), (x1, y1) in zip(scores, low.tolist(), high.tolist(), strict=True):
        page = np.zeros(size, bool)
        wide, tall = max(x1 - x0 + 1, 1), max(y1 - y0 + 1, 1)
        left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1 + 1, width), min(y1 + 1, height)
        if right > left and bottom > top:
            y, x = (
                np.clip((np.arange(first, last) - start + 0.5) * cells / count - 0.5, 0, cells - 1)
                for first, last, start, cells, count in (
                    (top, bottom, y0, grid[0], tall),
                    (left, right, x0, grid[1], wide),
                )
            )
            page[top:bottom, left:right] = _bilinear(score, y, x) > 0.5
        yield page


def true_segments(example: Example, things: int) -> ImageSegments | None:
    """The panoptic truth of an image; None where its masks or its semantic map are not known.

    Where masks overlap, the smaller lies on top, groups at the bottom; stuff lies where no thing does.
    """
    masks = image_truth(example).masks
    if masks is None or example.semantic is None:
        return None
    size = (example.image.shape[0], example.image.shape[1])
    segments = np.zeros(size, np.int32)
    for rows in (np.flatnonzero(example.crowd), np.flatnonzero(~example.crowd)):
        for start in range(0, len(rows), 254):  # as many as a map of bytes tells apart
            some = rows[start : start + 254]
            page = instance_map(masks, some.tolist(), size)
            segments = np.where(page > 0, np.append(0, some + 1)[page], segments)
    labels = {i + 1: int(label) for i, label in enumerate(example.labels)}
    count = len(labels)
    for label in np.unique(example.semantic[(example.semantic >= things) & (example.semantic < 255)]).tolist():
        segments[(segments == 0) & (example.semantic == label)] = 1 + count + label
        labels[1 + count + label] = label
    return segments_of(example.name, segments, labels, (np.flatnonzero(example.crowd) + 1).tolist())


def _to_image(numbers: np.ndarray, letterbox: Letterbox) -> np.ndarray:
    """A canvas's map of numbers in pixels of the image, each the nearest."""
    (height, width), (high, wide) = letterbox.size, letterbox.extent
    part = numbers[:high, :wide].astype(np.float32)  # exact up to 2**24, and a type that OpenCV resizes
    resized = cv2.resize(part, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return resized.astype(numbers.dtype)


def _bilinear(image: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Samples [h, w] at rows y and columns x, both in [0, size - 1]."""
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    bottom, right = np.minimum(top + 1, image.shape[0] - 1), np.minimum(left + 1, image.shape[1] - 1)
    rows = image[top] + (image[bottom] - image[top]) * (y - top)[:, None]
    return rows[:, left] + (rows[:, right] - rows[:, left]) * (x - left)
