import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ylosia_jax.metrics.instances import ImageDetections, ImageTruth, box_metrics, coco_results, image_truth
from ylosia_jax.types import Example

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100")


def truth(boxes, labels=None, crowd=None, area=None, name="a.jpg"):
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    return ImageTruth(
        name=name,
        height=480,
        width=640,
        boxes=boxes,
        labels=np.asarray([0] * len(boxes) if labels is None else labels, np.int32),
        crowd=np.asarray([False] * len(boxes) if crowd is None else crowd, bool),
        area=np.asarray(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) if area is None else area, np.float64),
    )


def found(boxes, scores, labels=None):
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    labels = np.asarray([0] * len(boxes) if labels is None else labels, np.int32)
    return ImageDetections(boxes, np.asarray(scores, np.float32), labels)


def reference(truths, detections, num_classes):
    """The same numbers by pycocotools, from dictionaries of Python numbers, with -1 as None."""
    images = [{"id": i, "height": 480, "width": 640} for i in range(len(truths))]
    categories = [{"id": k + 1, "name": str(k)} for k in range(num_classes)]
    annotations, results = [], []
    for i, (t, d) in enumerate(zip(truths, detections, strict=True)):
        for (x1, y1, x2, y2), label, crowd, area in zip(
            t.boxes.tolist(), t.labels.tolist(), t.crowd.tolist(), t.area.tolist(), strict=True
        ):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": label + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "iscrowd": int(crowd),
                    "area": area,
                }
            )
        for (x1, y1, x2, y2), score, label in zip(d.boxes.tolist(), d.scores.tolist(), d.labels.tolist(), strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            results.append({"image_id": i, "category_id": label + 1, "bbox": box, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        coco, answers = COCO(), COCO()
        coco.dataset = {"images": images, "categories": categories, "annotations": annotations}
        coco.createIndex()
        if results:
            answers = coco.loadRes(results)
        else:  # loadRes looks at the first result
            answers.dataset = {"images": images, "categories": categories, "annotations": []}
            answers.createIndex()
        evaluation = COCOeval(coco, answers, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    numbers = dict(zip(NAMES, evaluation.stats[:9].tolist(), strict=True))
    for k in range(num_classes):
        precision = evaluation.eval["precision"][:, :, k, 0, 2]
        numbers[str(k)] = precision[precision > -1].mean() if (precision > -1).any() else -1
    return {name: None if number == -1 else number for name, number in numbers.items()}


def random_boxes(rng, count):
    """Corners on a coarse grid, so that IoUs tie and meet the thresholds, or anywhere; sides around 32 and 96."""
    corner = rng.integers(0, 40, (count, 2)) * 5.0
    size = rng.choice([0.5, 5, 10, 20, 31.99, 32, 32.01, 40, 95.99, 96, 96.01, 200, 3000], (count, 2))
    square = rng.random(count) < 0.5
    size[square, 1] = size[square, 0]
    corner += np.where(rng.random((count, 1)) < 0.3, rng.random((count, 2)), 0)
    return np.concatenate([corner, corner + size], axis=1).astype(np.float32)


def random_case(rng):
    num_classes = int(rng.choice([1, 2, 3, 8]))
    used = rng.permutation(num_classes)[: rng.integers(1, num_classes + 1)]  # the other classes have no truth
    any_truth, any_found, crowded = rng.random(3) < (0.9, 0.9, 0.15)
    # Few distinct scores tie within and across images; float32 neighbours must stay apart.
    scores = rng.choice([rng.random(3), 0.5 + np.arange(3) * 2.0**-24, rng.random(1000)][rng.integers(3)], 1000)
    truths, detections = [], []
    for i in range(int(rng.choice([1, 1, 2, 3, 5]))):
        n = int(rng.integers(0, 7)) * bool(any_truth)
        boxes = random_boxes(rng, n)
        if n > 2:
            boxes[0] = boxes[1]
        area = np.prod(boxes[:, 2:].astype(np.float64) - boxes[:, :2], axis=1)
        other = rng.random(n) < 0.3
        area[other] = rng.choice([0, 1023.99, 1024, 1024.01, 9215.99, 9216, 9216.01, 2e10], other.sum())
        truths.append(truth(boxes, rng.choice(used, n), rng.random(n) < 0.2, area, f"{i}.jpg"))

        m = int(rng.integers(0, 12)) if not crowded else int(rng.integers(100, 260))
        guesses = random_boxes(rng, m * bool(any_found))
        labels = rng.integers(0, num_classes, len(guesses))
        if n and len(guesses):
            copied = rng.random(len(guesses)) < 0.7
            source = rng.integers(0, n, copied.sum())
            shift = rng.choice([0, 0, 1, 2.5, 5], (len(source), 4)) * (rng.random((len(source), 4)) < 0.4)
            guesses[copied] = boxes[source] + shift
            labels[copied] = np.where(rng.random(len(source)) < 0.9, truths[-1].labels[source], labels[copied])
        detections.append(found(guesses, rng.choice(scores, len(guesses)), labels))
    return truths, detections, num_classes


@pytest.mark.slow
def test_equals_pycocotools_on_adversarial_cases():
    rng = np.random.default_rng(0)
    undefined = partial = many = 0
    for case in range(320):
        truths, detections, num_classes = random_case(rng)
        ours = box_metrics(truths, detections, [str(k) for k in range(num_classes)])
        ours |= ours.pop("per_class")
        theirs = reference(truths, detections, num_classes)
        assert ours.keys() == theirs.keys()
        for name, number in theirs.items():
            assert (ours[name] is None) == (number is None), (case, name)
            assert number is None or abs(ours[name] - number) <= 1e-12, (case, name)
        undefined += None in theirs.values()
        partial += theirs["AP"] is not None and 0 < theirs["AP"] < 1
        many += any(np.bincount(d.labels).max(initial=0) > 100 for d in detections)
    assert undefined > 50
    assert partial > 150
    assert many > 10


def test_hand_computed_precision_at_exactly_half_iou():
    # The better detection misses; the other covers the upper half of the object: precision 1/2 at IoU 0.50 alone.
    metrics = box_metrics([truth([[0, 0, 10, 10]])], [found([[50, 50, 60, 60], [0, 0, 10, 5]], [0.9, 0.8])], ["cell"])
    assert metrics == {
        "AP": pytest.approx(0.05, abs=1e-12),
        "AP50": pytest.approx(0.5, abs=1e-12),
        "AP75": 0.0,
        "APs": pytest.approx(0.05, abs=1e-12),
        "APm": None,
        "APl": None,
        "AR1": 0.0,
        "AR10": pytest.approx(0.1, abs=1e-12),
        "AR100": pytest.approx(0.1, abs=1e-12),
        "per_class": {"cell": pytest.approx(0.05, abs=1e-12)},
    }


def test_hand_computed_half_the_recall_and_a_class_without_truth():
    # Recall 0, 0.01, …, 0.50 are reached at precision 1: 51 of the 101 points.
    metrics = box_metrics(
        [truth([[0, 0, 50, 50]], name="a.jpg"), truth([[0, 0, 50, 50]], name="b.jpg")],
        [found([[0, 0, 50, 50], [0, 0, 9, 9]], [0.9, 0.95], [0, 1]), found([], [])],
        ["seen", "absent"],
    )
    assert metrics["AP"] == metrics["APm"] == pytest.approx(51 / 101, abs=1e-12)
    assert metrics["per_class"] == {"seen": pytest.approx(51 / 101, abs=1e-12), "absent": None}
    assert metrics["APs"] is None


def test_the_objects_own_area_decides_its_size_and_limits_belong_to_both_sides():
    box = [[0, 0, 100, 100]]
    metrics = box_metrics([truth(box, area=[32.0**2])], [found(box, [0.5])], ["cell"])
    assert (metrics["APs"], metrics["APm"], metrics["APl"]) == (pytest.approx(1), pytest.approx(1), None)


def test_a_crowd_absorbs_detections():
    boxes, guesses = [[0, 0, 10, 10], [20, 20, 90, 90]], [[30, 30, 50, 50], [40, 40, 60, 60], [0, 0, 10, 10]]
    guess = found(guesses, [0.9, 0.8, 0.7])
    assert box_metrics([truth(boxes, crowd=[False, True])], [guess], ["cell"])["AP"] == pytest.approx(1, abs=1e-12)
    assert box_metrics([truth(boxes[:1])], [guess], ["cell"])["AP"] == pytest.approx(1 / 3, abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.5, 0.5], 1 / 2),  # equal scores: the first row, a miss, ranks first
        ([0.5, 0.5 + 2**-24], 1),  # neighbours in float32
        ([0.5 + 2**-24, 0.5], 1 / 2),
    ],
)
def test_ranking(scores, expected):
    guesses = found([[50, 50, 60, 60], [0, 0, 10, 10]], scores)
    metrics = box_metrics([truth([[0, 0, 10, 10]])], [guesses], ["cell"])
    assert metrics["AP"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("misses", "expected"), [(99, 1 / 100), (100, 0)])
def test_the_hundred_best_of_an_image_and_class_count(misses, expected):
    boxes = [[50, 50, 60, 60]] * misses + [[0, 0, 10, 10], [0, 0, 10, 10]]
    guesses = found(boxes, [0.9] * misses + [0.1, 0.95], [0] * misses + [0, 1])
    metrics = box_metrics([truth([[0, 0, 10, 10]] * 2, [0, 1])], [guesses], ["cell", "other"])
    assert metrics["per_class"] == {"cell": pytest.approx(expected, abs=1e-12), "other": pytest.approx(1, abs=1e-12)}


def test_nothing_found_is_zero_and_nothing_to_find_is_null(capfd):
    some, none = truth([[0, 0, 10, 10]]), found([], [])
    assert box_metrics([some], [none], ["cell"])["AP"] == 0
    for truths, detections, classes in [
        ([], [], ["cell"]),
        ([truth([])], [none], ["cell"]),
        ([truth([])], [found([[0, 0, 10, 10]], [0.9])], ["cell"]),
        ([truth([])], [none], []),
    ]:
        metrics = box_metrics(truths, detections, classes)
        assert json.loads(json.dumps(metrics)) == dict.fromkeys(NAMES) | {"per_class": dict.fromkeys(classes)}
    assert capfd.readouterr() == ("", "")


def test_results_list_keeps_order_and_every_digit():
    guesses = found([[1.5, 2, 11.5, 42], [0, 0, 3, 4]], [0.1, 0.9], [1, 0])
    assert json.loads(json.dumps(coco_results("a b.jpg", guesses, ["cell", "dog"], (480, 640)))) == [
        {
            "image_id": "a b.jpg",
            "category_id": 2,
            "category_name": "dog",
            "bbox": [1.5, 2.0, 10.0, 40.0],
            "score": float(np.float32(0.1)),
        },
        {
            "image_id": "a b.jpg",
            "category_id": 1,
            "category_name": "cell",
            "bbox": [0.0, 0.0, 3.0, 4.0],
            "score": float(np.float32(0.9)),
        },
    ]
    assert coco_results("a.jpg", found([], []), [], (480, 640)) == []


def test_truth_holds_no_pixels():
    t = truth([[0, 0, 10, 10]])
    example = Example(np.zeros((480, 640, 3), np.uint8), "a.jpg", t.boxes, t.labels, t.crowd, t.area)
    assert vars(image_truth(example)) == vars(t)


GOOD = [[0, 0, 10, 10]]


@pytest.mark.parametrize(
    ("truths", "detections", "message"),
    [
        ([truth(GOOD)], [], "1 truths but 0 detections"),
        ([truth(GOOD)] * 2, [found(GOOD, [0.5])] * 2, "'a.jpg' occurs twice"),
        ([truth([[0, 0, np.nan, 1]], area=[1])], [found(GOOD, [0.5])], "'a.jpg' .* not finite"),
        ([truth(GOOD, area=[np.inf])], [found(GOOD, [0.5])], "'a.jpg' .* not finite"),
        ([truth(GOOD)], [found([[0, 0, np.inf, 1]], [0.5])], "'a.jpg' .* not finite"),
        ([truth(GOOD)], [found(GOOD, [np.nan])], "'a.jpg' .* not finite"),
        ([truth(GOOD, [1])], [found(GOOD, [0.5])], "'a.jpg' has label 1, but there are 1 classes"),
        ([truth(GOOD)], [found(GOOD, [0.5], [-1])], "'a.jpg' has label -1"),
    ],
)
def test_refuses(truths, detections, message):
    with pytest.raises(ValueError, match=message):
        box_metrics(truths, detections, ["cell"])


def test_refuses_two_classes_of_one_name():
    with pytest.raises(ValueError, match="class 'cell' occurs twice"):
        box_metrics([truth(GOOD)], [found(GOOD, [0.5])], ["cell", "dog", "cell"])
