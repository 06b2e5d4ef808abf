"""Average precision of boxes, masks and poses as COCO defines it, and COCO's results list.

Shape shorthand: n objects of an image, m detections of an image, T IoU thresholds, R recall thresholds, K classes,
S size ranges (all, small, medium, large), L limits on the detections of an image and class (1, 10, 100), J points of a
pose.

Everything here is host NumPy, unpadded, xyxy in pixels of the original image. The records hold no pixels: an evaluation
appends one `ImageTruth` and one `ImageDetections` an image and scores the two lists at its end.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import hotcoco
import numpy as np
from jaxtyping import Bool, Float, Int

from ylosia_jax import rle
from ylosia_jax.types import Example


@dataclasses.dataclass(frozen=True)
class ImageTruth:
    """What scoring needs of a labelled image: `types.Example` without its pixels.

    Attributes:
      name: the image's file name, unique in the evaluation.
      height: of the image, in pixels.
      width: of the image, in pixels.
      boxes: [n, 4] xyxy.
      labels: [n] class index.
      crowd: [n] True where one box stands for a group: detections inside it count neither for nor against.
      area: [n] the object's own area in square pixels, which decides its size range.
      masks: the objects' pixels as COCO's compressed run lengths; None where they are not known.
      keypoints: [n, J, 3] x, y, v; None where they are not known.
    """

    name: str
    height: int
    width: int
    boxes: Float[np.ndarray, "n 4"]
    labels: Int[np.ndarray, " n"]
    crowd: Bool[np.ndarray, " n"]
    area: Float[np.ndarray, " n"]
    masks: tuple[bytes, ...] | None = None
    keypoints: Float[np.ndarray, "n J 3"] | None = None


@dataclasses.dataclass(frozen=True)
class ImageDetections:
    """Detections of one image in any order; of equal scores the earlier row ranks first.

    Attributes:
      boxes: [m, 4] xyxy.
      scores: [m] in [0, 1].
      labels: [m] class index.
      masks: as in `ImageTruth`.
      keypoints: [m, J, 3] x, y, and a score of being there.
    """

    boxes: Float[np.ndarray, "m 4"]
    scores: Float[np.ndarray, " m"]
    labels: Int[np.ndarray, " m"]
    masks: tuple[bytes, ...] | None = None
    keypoints: Float[np.ndarray, "m J 3"] | None = None


def image_truth(example: Example) -> ImageTruth:
    """The example without its pixels. A crowd that nobody drew is taken to fill its box.

    Where a single object has no mask, none are known: what is found there could be neither right nor wrong.
    """
    height, width, _ = example.image.shape
    masks = example.masks
    if masks is not None and not all(mask or crowd for mask, crowd in zip(masks, example.crowd, strict=True)):
        masks = None
    if masks is not None and not all(masks):
        boxes = np.round(example.boxes).astype(int).tolist()
        masks = tuple(m or rle.of_box(box, (height, width)) for m, box in zip(masks, boxes, strict=True))
    return ImageTruth(
        example.name,
        height,
        width,
        example.boxes,
        example.labels,
        example.crowd,
        example.area,
        masks,
        example.keypoints,
    )


def box_metrics(
    truths: Sequence[ImageTruth], detections: Sequence[ImageDetections], classes: Sequence[str]
) -> dict[str, Any]:
    """Average precision and recall of boxes, equal to pycocotools' (COCO, arXiv:1405.0312, and its evaluation code).

    Args:
      truths: a record an image.
      detections: of the same images in the same order. Of an image and class only the 100 best count.
      classes: names in label order.

    Returns:
      The `box` entry of `metrics.json`; see `coco_summary`.

    Raises:
      ValueError: if the two lists differ in length, or as `coco_truth` and `coco_results` do.
    """
    _check_all(truths, detections, classes)
    # Rows of (image id, x, y, w, h, score, category id); float64 holds every float32 score, so no new ties arise.
    rows = np.column_stack(
        [
            _image_ids([found.labels for found in detections]),
            _xywh(_concatenate([found.boxes for found in detections], (0, 4))),
            _concatenate([found.scores for found in detections], (0,)),
            _concatenate([found.labels for found in detections], (0,)) + 1,
        ]
    )
    truth = coco_truth(truths, classes)
    return coco_summary(truth, truth.load_res(rows), "bbox", classes)


def mask_metrics(
    truths: Sequence[ImageTruth], detections: Sequence[ImageDetections], classes: Sequence[str]
) -> dict[str, Any]:
    """`box_metrics` by the overlap of masks; images whose masks are not known are left out.

    Returns:
      The `mask` entry of `metrics.json`.

    Raises:
      ValueError: as `box_metrics`, or if detections have no masks.
    """
    _check_all(truths, detections, classes)
    pairs = [(t, d) for t, d in zip(truths, detections, strict=True) if t.masks is not None]
    truth = coco_truth([t for t, _ in pairs], classes, masks=True)
    rows = [
        {"image_id": i, "category_id": label + 1, "score": score, "segmentation": _rle(t, counts)}
        for i, (t, d) in enumerate(pairs, start=1)
        for label, score, counts in zip(d.labels.tolist(), d.scores.tolist(), _known(t, d.masks, "masks"), strict=True)
    ]
    return coco_summary(truth, truth.load_res(rows), "segm", classes)


def keypoint_metrics(
    truths: Sequence[ImageTruth],
    detections: Sequence[ImageDetections],
    classes: Sequence[str],
    sigmas: Sequence[float],
) -> dict[str, Any]:
    """Average precision and recall by object keypoint similarity, equal to pycocotools'.

    Images whose poses are not known are left out. Of an image and class only the 20 best detections count. There is no
    size range below the medium one. A class without a single pose in the truth has no score.

    Args:
      sigmas: the skeleton's.

    Returns:
      The `keypoint` entry of `metrics.json`: `AP`, `AP50`, `AP75`, `APm`, `APl`, `AR`, `per_class`.

    Raises:
      ValueError: as `box_metrics`, or if detections have no keypoints.
    """
    _check_all(truths, detections, classes)
    pairs = [(t, d) for t, d in zip(truths, detections, strict=True) if t.keypoints is not None]
    images = [{"id": i, "file_name": t.name, "height": t.height, "width": t.width} for i, (t, _) in enumerate(pairs, 1)]
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for i, (t, d) in enumerate(pairs, start=1):
        points = _known(t, t.keypoints, "keypoints").astype(np.float64)
        for j, box in enumerate(_xywh(t.boxes).tolist()):
            entry = {"id": len(annotations) + 1, "image_id": i, "category_id": int(t.labels[j]) + 1, "bbox": box}
            entry |= {"area": float(t.area[j]), "iscrowd": int(t.crowd[j])}
            entry |= {"keypoints": points[j].ravel().tolist(), "num_keypoints": int((points[j, :, 2] > 0).sum())}
            annotations.append(entry)
        found = [row.ravel().tolist() for row in _known(t, d.keypoints, "keypoints").astype(np.float64)]
        for label, score, row in zip(d.labels.tolist(), d.scores.tolist(), found, strict=True):
            results.append({"image_id": i, "category_id": label + 1, "score": score, "keypoints": row})
    categories = [{"id": k, "name": name} for k, name in enumerate(classes, start=1)]
    truth = hotcoco.COCO({"images": images, "annotations": annotations, "categories": categories})
    evaluation = hotcoco.COCOeval(truth, truth.load_res(results), "keypoints")
    evaluation.params.kpt_oks_sigmas = list(sigmas)
    evaluation.evaluate()
    evaluation.accumulate()
    assert evaluation.eval is not None
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]  # [T, R, K, S, 1] and [T, K, S, 1]
    return {
        "AP": _mean(precision[..., 0, 0]),
        "AP50": _mean(precision[0, ..., 0, 0]),
        "AP75": _mean(precision[5, ..., 0, 0]),
        "APm": _mean(precision[..., 1, 0]),
        "APl": _mean(precision[..., 2, 0]),
        "AR": _mean(recall[..., 0, 0]),
        "per_class": {name: _mean(precision[:, :, k, 0, 0]) for k, name in enumerate(classes)},
    }


def coco_results(
    name: str, detections: ImageDetections, classes: Sequence[str], size: tuple[int, int]
) -> list[dict[str, Any]]:
    """The detections of one image as entries of a COCO results list, in their order.

    Args:
      name: the image's file name, which becomes `image_id`.
      detections: in pixels of that image.
      classes: names in label order.
      size: the image's height and width.

    Returns:
      `{"image_id", "category_id", "category_name", "bbox", "score"}` a detection; `bbox` is x, y, width, height, and
      `category_id` is the label plus one, since COCO numbers its categories from 1. With masks also `segmentation`, a
      compressed RLE, and with a pose `keypoints`, x, y and a score of each point in turn.

    Raises:
      ValueError: if a label has no class or a number is not finite.
    """
    _check(name, detections, detections.scores, classes)
    rows = [
        {
            "image_id": name,
            "category_id": label + 1,
            "category_name": classes[label],
            "bbox": box,
            "score": score,
        }
        for box, score, label in zip(
            _xywh(detections.boxes).tolist(), detections.scores.tolist(), detections.labels.tolist(), strict=True
        )
    ]
    if detections.masks is not None:
        for row, counts in zip(rows, detections.masks, strict=True):
            row["segmentation"] = {"size": list(size), "counts": counts.decode("ascii")}
    if detections.keypoints is not None:
        for row, points in zip(rows, detections.keypoints.astype(np.float64), strict=True):
            if points.any():
                row["keypoints"] = points.ravel().tolist()
    return rows


def coco_truth(truths: Sequence[ImageTruth], classes: Sequence[str], *, masks: bool = False) -> hotcoco.COCO:
    """The truth as hotcoco holds it: the images numbered from 1 in their order, the categories by label plus one.

    Args:
      masks: hand over the masks, which every record must then have.

    Raises:
      ValueError: if an image or class name occurs twice, a label has no class, or a number is not finite.
    """
    for kind, names in (("image", [truth.name for truth in truths]), ("class", classes)):
        if len(set(names)) < len(names):
            twice = next(name for i, name in enumerate(names) if name in names[:i])
            raise ValueError(f"{kind} {twice!r} occurs twice: evaluate each {kind} once")
    for truth in truths:
        _check(truth.name, truth, truth.area, classes)
    return hotcoco.COCO.from_arrays(
        [{"id": i, "file_name": t.name, "height": t.height, "width": t.width} for i, t in enumerate(truths, start=1)],
        [{"id": i, "name": name} for i, name in enumerate(classes, start=1)],
        image_ids=_image_ids([truth.labels for truth in truths]),
        category_ids=_concatenate([truth.labels for truth in truths], (0,)).astype(np.int64) + 1,
        boxes=_xywh(_concatenate([truth.boxes for truth in truths], (0, 4))),
        area=_concatenate([truth.area for truth in truths], (0,)),
        iscrowd=_concatenate([truth.crowd for truth in truths], (0,)).astype(bool),
        segmentation=[_rle(t, counts) for t in truths for counts in _known(t, t.masks, "masks")] if masks else None,
    )


def coco_summary(
    truth: hotcoco.COCO, results: hotcoco.COCO, iou_type: Literal["bbox", "segm"], classes: Sequence[str]
) -> dict[str, Any]:
    """Scores results against their truth.

    Returns:
      `AP` is the mean over IoU 0.50:0.05:0.95, recall 0:0.01:1 and the classes that have truth; `AP50` and `AP75` are
      at one IoU; `APs`, `APm`, `APl` count objects up to 32**2, between, and from 96**2 square pixels on; `AR1`,
      `AR10`, `AR100` are the recall with so many detections an image and class; `per_class` maps every class to its AP.
      Each lies in [0, 1], or is None (null in JSON; pycocotools says -1) where no truth exists to measure it on.
    """
    evaluation = hotcoco.COCOeval(truth, results, iou_type)
    evaluation.evaluate()
    evaluation.accumulate()
    assert evaluation.eval is not None
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]  # [T, R, K, S, L] and [T, K, S, L]
    return {
        "AP": _mean(precision[..., 0, 2]),
        "AP50": _mean(precision[0, ..., 0, 2]),
        "AP75": _mean(precision[5, ..., 0, 2]),
        "APs": _mean(precision[..., 1, 2]),
        "APm": _mean(precision[..., 2, 2]),
        "APl": _mean(precision[..., 3, 2]),
        "AR1": _mean(recall[..., 0, 0]),
        "AR10": _mean(recall[..., 0, 1]),
        "AR100": _mean(recall[..., 0, 2]),
        "per_class": {name: _mean(precision[:, :, k, 0, 2]) for k, name in enumerate(classes)},
    }


def _mean(values: np.ndarray) -> float | None:
    """Mean of what is defined: -1 marks a class without truth."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else None


def _rle(truth: ImageTruth, counts: bytes) -> dict[str, Any]:
    return {"size": [truth.height, truth.width], "counts": counts}


def _known(truth: ImageTruth, values: Any, what: str) -> Any:
    if values is None:
        raise ValueError(f"image {truth.name!r} is to be scored by {what}, but has none")
    return values


def _check_all(truths: Sequence[ImageTruth], detections: Sequence[ImageDetections], classes: Sequence[str]) -> None:
    if len(truths) != len(detections):
        raise ValueError(f"{len(truths)} truths but {len(detections)} detections: give one record of each an image")
    for truth, found in zip(truths, detections, strict=True):
        _check(truth.name, found, found.scores, classes)


def _check(name: str, record: ImageTruth | ImageDetections, numbers: np.ndarray, classes: Sequence[str]) -> None:
    """Refuses what hotcoco would score without a word: it takes a NaN box for a miss and drops an unknown category."""
    if not (np.isfinite(record.boxes).all() and np.isfinite(numbers).all()):
        raise ValueError(
            f"image {name!r} has a box, area or score that is not finite: mend the annotation or the model"
        )
    unknown = record.labels[(record.labels < 0) | (record.labels >= len(classes))]
    if unknown.size:
        raise ValueError(f"image {name!r} has label {unknown[0]}, but there are {len(classes)} classes, from 0")


def _image_ids(labels: Sequence[np.ndarray]) -> np.ndarray:
    """The image's number, from 1, for each row of each image."""
    return np.repeat(np.arange(1, len(labels) + 1), [len(rows) for rows in labels])


def _concatenate(rows: Sequence[np.ndarray], empty: tuple[int, ...]) -> np.ndarray:
    """Rows of all images; of no image at all, none."""
    return np.concatenate([np.zeros(empty), *rows])


def _xywh(boxes: np.ndarray) -> np.ndarray:
    """Corners to corner and size in float64, so that the sizes of float32 boxes are not rounded once more."""
    boxes = boxes.astype(np.float64)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
