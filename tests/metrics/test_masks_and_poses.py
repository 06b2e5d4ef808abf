"""Mask and keypoint AP against pycocotools, on cases made to be difficult."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ylosia_jax.data.skeletons import COCO_PERSON
from ylosia_jax.metrics.instances import ImageDetections, ImageTruth, keypoint_metrics, mask_metrics

SIZE = (40, 56)
CLASSES = ("cat", "dog")
SIGMAS = (0.05, 0.1, 0.08)
MASK = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100")
POSE = ("AP", "AP50", "AP75", "APm", "APl", "AR")


def blobs(rng, count):
    """Rectangles, discs, and now and then nothing, as masks [n, H, W]."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    masks = np.zeros((count, *SIZE), bool)
    for i in range(count):
        cy, cx = rng.integers(0, SIZE[0]), rng.integers(0, SIZE[1])
        high, wide = rng.integers(2, 24, 2)
        if rng.random() < 0.5:
            masks[i] = (abs(y - cy) < high / 2) & (abs(x - cx) < wide / 2)
        else:
            masks[i] = ((y - cy) / high) ** 2 + ((x - cx) / wide) ** 2 < 0.25
    return masks


def encoded(masks):
    return tuple(coco_mask.encode(np.asfortranarray(m.astype(np.uint8)))["counts"] for m in masks)


def case(rng):
    """One image's truth and detections, some of which are shifted truths."""
    count = int(rng.choice([0, 1, 3, 8]))
    masks = blobs(rng, count)
    masks = masks[masks.any(axis=(1, 2))]
    count = len(masks)
    labels, crowd = rng.integers(0, 2, count), rng.random(count) < 0.2
    points = np.concatenate([rng.uniform(0, 40, (count, 3, 2)), rng.integers(0, 3, (count, 3, 1))], axis=-1) * (
        rng.random((count, 1, 1)) < 0.8
    )
    boxes = np.array([box_of(m) for m in masks], np.float32).reshape(-1, 4)
    # A few areas are not the mask's, as in COCO; scaled so that all size ranges occur.
    area = masks.sum(axis=(1, 2)) * rng.choice([1.0, 10.0, 60.0], count)
    truth = ImageTruth("", *SIZE, boxes, labels, crowd, area, encoded(masks), points.astype(np.float32))

    copies = [int(i) for i in rng.integers(0, count, 2 * count)] if count else []
    moved = [np.roll(masks[i], rng.integers(-3, 4, 2), axis=(0, 1)) for i in copies]
    more = blobs(rng, int(rng.choice([0, 2, 30])))
    found = np.concatenate([np.array(moved, bool).reshape(-1, *SIZE), more])
    near = [points[i, :, :2] + rng.normal(0, rng.choice([0.2, 3]), (3, 2)) for i in copies]
    places = np.concatenate([np.array(near).reshape(-1, 3, 2), rng.uniform(0, 40, (len(more), 3, 2))])
    total = len(found)
    guessed = np.concatenate([labels[copies], rng.integers(0, 2, len(more))]).astype(np.int64)
    # Sixteenths: ties are common.
    scores = (rng.integers(1, 17, total) / 16).astype(np.float32)
    keypoints = np.concatenate([places, np.ones((total, 3, 1))], axis=-1).astype(np.float32)
    boxes = np.zeros((total, 4), np.float32)
    return truth, ImageDetections(boxes, scores, guessed, encoded(found), keypoints)


def box_of(mask):
    y, x = np.nonzero(mask)
    return x.min(), y.min(), x.max() + 1, y.max() + 1


def reference(truths, detections, kind):
    images = [{"id": i, "height": SIZE[0], "width": SIZE[1]} for i in range(len(truths))]
    annotations, results = [], []
    for i, (t, d) in enumerate(zip(truths, detections, strict=True)):
        for j in range(len(t.labels)):
            x0, y0, x1, y1 = t.boxes[j].astype(float).tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": int(t.labels[j]) + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": float(t.area[j]),
                    "iscrowd": int(t.crowd[j]),
                    "segmentation": {"size": list(SIZE), "counts": t.masks[j]},
                    "keypoints": t.keypoints[j].astype(float).ravel().tolist(),
                    "num_keypoints": int((t.keypoints[j, :, 2] > 0).sum()),
                }
            )
        for j in range(len(d.labels)):
            row = {"image_id": i, "category_id": int(d.labels[j]) + 1, "score": float(d.scores[j])}
            if kind == "segm":
                row["segmentation"] = {"size": list(SIZE), "counts": d.masks[j]}
            else:
                row["keypoints"] = d.keypoints[j].astype(float).ravel().tolist()
            results.append(row)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": images,
            "categories": [{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)],
            "annotations": annotations,
        }
        coco.createIndex()
        answers = coco.loadRes(results) if results else COCO()
        if not results:
            answers.dataset = {**coco.dataset, "annotations": []}
            answers.createIndex()
        evaluation = COCOeval(coco, answers, kind)
        if kind == "keypoints":
            evaluation.params.kpt_oks_sigmas = np.array(SIGMAS)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def same(found, names, expected):
    for name, value in zip(names, expected, strict=True):
        assert (found[name] is None) == (value == -1), name
        if found[name] is not None:
            np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-12, err_msg=name)


# 60 evaluations of up to 25 images: some 1,000 image cases a kind.
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_equal_to_pycocotools(seed):
    rng = np.random.default_rng(seed)
    cases = [case(rng) for _ in range(int(rng.integers(8, 26)))]
    truths = [ImageTruth(f"{i}", *list(vars(t).values())[1:]) for i, (t, _) in enumerate(cases)]
    detections = [d for _, d in cases]
    same(mask_metrics(truths, detections, CLASSES), MASK, reference(truths, detections, "segm")[:9])
    stats = reference(truths, detections, "keypoints")
    same(keypoint_metrics(truths, detections, CLASSES, SIGMAS), POSE, stats[[0, 1, 2, 3, 4, 5]])


def test_images_without_masks_or_poses_are_left_out():
    rng = np.random.default_rng(3)
    (truth, found), (other, other_found) = case(rng), case(rng)
    first = ImageTruth("a", *list(vars(truth).values())[1:])
    unknown = ImageTruth("b", *SIZE, other.boxes, other.labels, other.crowd, other.area)
    for score, *more in ((mask_metrics, CLASSES), (keypoint_metrics, CLASSES, SIGMAS)):
        assert score([first, unknown], [found, other_found], *more) == score([first], [found], *more)


def test_detections_without_masks_are_refused():
    truth, found = case(np.random.default_rng(0))
    bare = ImageDetections(found.boxes, found.scores, found.labels)
    with pytest.raises(ValueError, match="scored by masks"):
        mask_metrics([truth], [bare], CLASSES)
    with pytest.raises(ValueError, match="scored by keypoints"):
        keypoint_metrics([truth], [bare], CLASSES, COCO_PERSON.sigmas)
