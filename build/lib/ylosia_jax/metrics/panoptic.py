"""Panoptic quality (Kirillov et al., arXiv:1801.00868), equal to panopticapi's.

Everything here is host NumPy, in pixels of the original image.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from hotcoco.panoptic import PanopticEval
from jaxtyping import Int

from ylosia_jax import rle


@dataclasses.dataclass(frozen=True)
class ImageSegments:
    """The segments of one image; they share no pixel.

    Attributes:
      name: the image's file name, unique in the evaluation.
      height: of the image, in pixels.
      width: of the image, in pixels.
      masks: each segment's pixels as COCO's compressed run lengths.
      labels: [n] semantic class of each.
      crowd: [n] True for a group: what is found in it counts neither for nor against.
    """

    name: str
    height: int
    width: int
    masks: tuple[bytes, ...]
    labels: Int[np.ndarray, " n"]
    crowd: np.ndarray


def segments_of(name: str, segments: Int[np.ndarray, "H W"], labels: dict[int, int], crowd: Sequence[int] = ()) -> Any:
    """The record of a map of segment numbers.

    Args:
      segments: 0 where there is none.
      labels: number -> semantic class; those that have no pixel are left out.
      crowd: the numbers of groups.
    """
    numbers = [number for number in labels if (segments == number).any()]
    return ImageSegments(
        name=name,
        height=segments.shape[0],
        width=segments.shape[1],
        masks=tuple(rle.encode(segments == number) for number in numbers),
        labels=np.array([labels[number] for number in numbers], np.int64),
        crowd=np.array([number in crowd for number in numbers], bool),
    )


def panoptic_metrics(
    truths: Sequence[ImageSegments], found: Sequence[ImageSegments], classes: Sequence[str], things: int
) -> dict[str, Any]:
    """Panoptic quality, and its factors segmentation quality and recognition quality.

    Args:
      truths: a record an image.
      found: of the same images in the same order.
      classes: names of the semantic classes, things first.
      things: how many of them are things.

    Returns:
      The `panoptic` entry of `metrics.json`: `PQ`, `SQ`, `RQ` over all classes that occur; the same under `things` and
      `stuff`; `per_class`, PQ by name. None where no class occurs.
    """
    if [t.name for t in truths] != [f.name for f in found]:
        raise ValueError("truths and findings are of different images: give one record of each an image, in one order")
    result = PanopticEval(_coco(truths, classes, things), _coco(found, classes, things))
    result.evaluate()
    scores = result.results()

    def entry(kind: str) -> dict[str, float | None]:
        return {name: _defined(scores[kind][name.lower()], scores[kind]["n"]) for name in ("PQ", "SQ", "RQ")}

    per_class = scores["per_class"]
    return {
        **entry("All"),
        "things": entry("Things"),
        "stuff": entry("Stuff"),
        "per_class": {
            name: None if per_class[k]["pq"] < 0 else float(per_class[k]["pq"]) for k, name in enumerate(classes, 1)
        },
    }


def _defined(value: float, classes: int) -> float | None:
    return float(value) if classes else None


def _coco(records: Sequence[ImageSegments], classes: Sequence[str], things: int) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for i, record in enumerate(records, start=1):
        for counts, label, crowd in zip(record.masks, record.labels.tolist(), record.crowd.tolist(), strict=True):
            mask = {"size": [record.height, record.width], "counts": counts.decode()}
            entry = {"id": len(annotations) + 1, "image_id": i, "category_id": label + 1, "segmentation": mask}
            area = rle.area(counts, (record.height, record.width))
            annotations.append(entry | {"iscrowd": int(crowd), "area": area, "bbox": [0, 0, 1, 1]})
    return {
        "images": [
            {"id": i, "file_name": r.name, "height": r.height, "width": r.width} for i, r in enumerate(records, 1)
        ],
        "annotations": annotations,
        "categories": [{"id": k, "name": name, "isthing": int(k <= things)} for k, name in enumerate(classes, 1)],
    }
