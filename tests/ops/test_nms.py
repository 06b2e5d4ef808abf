import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ylosia_jax.ops.nms import nms, select_detections, select_of_each_class, soft_nms, top_pairs

COUNT = 60


def overlaps(boxes):
    """IoU of every pair, in the same float32 steps as the library, so that thresholds are hit exactly."""
    a, b = boxes[:, None], boxes[None]
    sides = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0)
    shared = sides[..., 0] * sides[..., 1]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return shared / (area[:, None] + area[None] - shared + np.float32(1e-9))


def greedy(boxes, valid, iou_threshold, groups):
    """The sequential loop."""
    close = (overlaps(boxes) > np.float32(iou_threshold)).tolist()
    kept = []
    for i in range(len(boxes)):
        if valid[i] and not any(close[i][j] and groups[j] == groups[i] for j in kept):
            kept.append(i)
    return np.isin(np.arange(len(boxes)), kept)


def random_cases(cases, seed):
    """Boxes on a half-pixel grid: products and sums are exact, equal boxes and exact thresholds are common."""
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 24, (cases, COUNT, 2))
    boxes = np.concatenate([low, low + rng.integers(0, 20, (cases, COUNT, 2))], axis=-1) / 2
    # Chains, in which each box removes the next unless it is itself removed.
    boxes[::5, :, 1::2] = [0, 6]
    boxes[::5, :, 0] = np.arange(COUNT)
    boxes[::5, :, 2] = boxes[::5, :, 0] + rng.integers(2, 5, (len(boxes[::5]), 1))
    # Duplicates.
    boxes[1::5, COUNT // 2 :] = boxes[1::5, : COUNT // 2]
    valid = rng.uniform(size=(cases, COUNT)) < rng.choice([0.5, 0.95, 1.0], (cases, 1))
    groups = rng.integers(0, 3, (cases, COUNT)) * (rng.uniform(size=(cases, 1)) < 0.6)
    return boxes.astype(np.float32), valid, groups.astype(np.int32)


@pytest.mark.parametrize("tile", [1, 7, 16, 256])
def test_equals_the_sequential_loop_whatever_the_tile(tile):
    @jax.jit
    @jax.vmap
    def run(boxes, valid, groups, threshold):
        return nms(boxes, valid, iou_threshold=threshold, groups=groups, tile=tile)

    boxes, valid, groups = random_cases(210, seed=0)
    thresholds = np.resize(np.array([0.25, 0.5, 0.7], np.float32), 210)
    expected = [greedy(*case) for case in zip(boxes, valid, thresholds, groups, strict=True)]
    assert 0.1 < np.mean(expected) < 0.9
    np.testing.assert_array_equal(run(boxes, valid, groups, thresholds), expected)


def test_eager_and_without_groups_equals_the_sequential_loop():
    boxes, valid, groups = random_cases(1, seed=1)
    expected = greedy(boxes[0], valid[0], 0.4, 0 * groups[0])
    np.testing.assert_array_equal(
        nms(jnp.asarray(boxes[0]), jnp.asarray(valid[0]), iou_threshold=0.4, tile=16), expected
    )


@jax.jit
def run_all(boxes, iou_threshold):
    return nms(boxes, jnp.ones(len(boxes), bool), iou_threshold=iou_threshold)


def test_a_removed_box_removes_nothing():
    # Neighbours overlap by 2/3, the outer two by 1/3.
    boxes = jnp.array([[0.0, 0, 5, 1], [1, 0, 6, 1], [2, 0, 7, 1]])
    np.testing.assert_array_equal(run_all(boxes, 0.5), [True, False, True])


def test_an_overlap_equal_to_the_threshold_stays():
    boxes = jnp.array([[0.0, 0, 4, 4], [0, 0, 4, 2]])
    np.testing.assert_array_equal(run_all(boxes, 0.5), [True, True])
    np.testing.assert_array_equal(run_all(boxes, 0.49), [True, False])


def test_padding_changes_nothing():
    boxes, valid, groups = random_cases(1, seed=2)
    run = jax.jit(lambda b, v, g: nms(b, v, iou_threshold=0.4, groups=g, tile=16))
    expected = run(boxes[0], valid[0], groups[0])
    noisy = np.where(valid[0][:, None], boxes[0], np.float32([0, 0, 22, 22]))
    np.testing.assert_array_equal(run(noisy, valid[0], groups[0]), expected)
    longer = (np.pad(x[0], [(0, 30)] + [(0, 0)] * (x.ndim - 2)) for x in (boxes, valid, groups))
    np.testing.assert_array_equal(run(*longer), np.pad(expected, (0, 30)))
    assert not run(boxes[0], np.zeros_like(valid[0]), groups[0]).any()


def select_by_loops(boxes, scores, score_threshold, iou_threshold, pre_nms, max_detections, class_agnostic):
    """One image: every (point, class) pair, best first; of equal scores the first."""
    pairs = [(point, label) for point in range(len(boxes)) for label in range(scores.shape[1])]
    pairs = sorted(pairs, key=lambda pair: -scores[pair])[:pre_nms]
    pairs = [pair for pair in pairs if scores[pair] > score_threshold]
    if not pairs:
        return []
    groups = [0 if class_agnostic else label for _, label in pairs]
    keep = [True] * len(pairs)
    if iou_threshold is not None:
        keep = greedy(boxes[[point for point, _ in pairs]], keep, iou_threshold, groups)
    found = [pair for pair, kept in zip(pairs, keep, strict=True) if kept][:max_detections]
    return [(*boxes[point], scores[point, label], label, point) for point, label in found]


@pytest.mark.parametrize(
    "setting",
    [
        {"pre_nms": 150, "max_detections": 20, "class_agnostic": False},
        {"pre_nms": 40, "max_detections": 20, "class_agnostic": True},
        # More rows than candidates, more candidates than pairs.
        {"pre_nms": 500, "max_detections": 200, "class_agnostic": False},
        {"pre_nms": 150, "max_detections": 20, "class_agnostic": False, "iou_threshold": None},
    ],
)
def test_selection_equals_loops(setting):
    rng = np.random.default_rng(4)
    boxes = random_cases(12, seed=5)[0]
    # Multiples of 1/64: ties are common.
    scores = (rng.integers(0, 64, (12, COUNT, 3)) / 64).astype(np.float32)
    # An image without any detection: its scores reach the threshold, and have to exceed it.
    scores[3] = np.minimum(scores[3], 0.25)
    setting = {"score_threshold": 0.25, "iou_threshold": 0.4, **setting}
    selected = jax.jit(lambda boxes, scores: select_detections(boxes, scores, **setting))(boxes, scores)
    for b, s, *found in zip(boxes, scores, *map(np.asarray, selected), strict=True):
        expected = select_by_loops(b, s, **setting)
        found_boxes, found_scores, found_labels, valid, found_points = found
        assert len(valid) == setting["max_detections"]
        np.testing.assert_array_equal(valid, np.arange(len(valid)) < len(expected))
        assert len(expected) > 0 or (s <= 0.25).all()
        rows = np.column_stack([found_boxes, found_scores, found_labels, found_points])
        np.testing.assert_array_equal(rows[valid], np.array(expected, np.float32).reshape(-1, 7))
        assert not rows[~valid].any()


def test_pairs_equal_the_best_of_all():
    rng = np.random.default_rng(6)
    # Few different numbers: ties cross every boundary.
    for scores in rng.integers(0, 6, (40, 30, 4)).astype(np.float32):
        for count in (1, 7, 30, 119, 200):
            top, points, labels = top_pairs(jnp.asarray(scores), count)
            expected = np.argsort(-scores.reshape(-1), kind="stable")[:count]
            np.testing.assert_array_equal(np.asarray(points) * 4 + np.asarray(labels), expected)
            np.testing.assert_array_equal(top, scores.reshape(-1)[expected])


def test_each_level_has_candidates_of_its_own():
    rng = np.random.default_rng(7)
    boxes = random_cases(8, seed=8)[0]
    scores = (rng.integers(0, 64, (8, COUNT, 3)) / 64).astype(np.float32)
    scores[:, :40] /= 2
    levels = (40, 15, 5)
    setting = {"score_threshold": 0.1, "iou_threshold": 0.4, "pre_nms": 12, "max_detections": 30}
    found = jax.jit(lambda boxes, scores: select_detections(boxes, scores, levels=levels, **setting))(boxes, scores)
    assert (np.asarray(found[4]) < 40).any()
    for i in range(8):
        # Without the pairs that are none of their level's best, the best of all are the same.
        masked = scores[i].copy()
        for part in np.split(masked, np.cumsum(levels)[:-1]):
            order = np.argsort(-part.reshape(-1), kind="stable")
            part.reshape(-1)[order[12:]] = 0
        expected = select_by_loops(boxes[i], masked, 0.1, 0.4, 36, 30, False)
        valid = np.asarray(found[3][i])
        rows = np.column_stack([np.asarray(x[i]) for x in (found[0], found[1], found[2], found[4])])[valid]
        np.testing.assert_array_equal(rows[:, 4], np.array(expected, np.float32)[:, 4])
        assert sorted(map(tuple, rows)) == sorted(map(tuple, np.array(expected, np.float32)))


def test_each_class_has_candidates_of_its_own():
    rng = np.random.default_rng(9)
    boxes = random_cases(8, seed=10)[0]
    scores = (rng.integers(0, 1024, (8, COUNT, 3)) / 1024).astype(np.float32)
    scores[2] = 0.1
    setting = {"score_threshold": 0.1, "iou_threshold": 0.4}
    found = select_of_each_class(boxes, scores, **setting, pre_nms=20, max_detections=70)
    assert not found[3][2].any()
    for i in range(8):
        expected = []
        for label in range(3):
            own = select_by_loops(boxes[i], scores[i][:, label : label + 1], 0.1, 0.4, 20, 70, False)
            expected += [(*row[:5], label, row[6]) for row in own]
        valid = np.asarray(found[3][i])
        rows = np.column_stack([np.asarray(x[i]) for x in (found[0], found[1], found[2], found[4])])
        assert (np.diff(rows[valid][:, 4]) <= 0).all()
        assert sorted(map(tuple, rows[valid])) == sorted(map(tuple, np.array(expected, np.float32).reshape(-1, 7)))
        assert not rows[~valid].any()


def soften(boxes, scores, valid, groups, decay, count):
    """The loop of the paper's figure 2."""
    close = overlaps(boxes)
    left = np.where(valid, scores, -1)
    taken = []
    for _ in range(count):
        best = int(np.argmax(left))
        if left[best] <= 0:
            break
        taken.append((best, left[best]))
        for i in range(len(boxes)):
            if left[i] >= 0 and groups[i] == groups[best]:
                overlap = close[best, i]
                linear = 1 - overlap if overlap > np.float32(0.3) else np.float32(1)
                left[i] *= linear if decay == "linear" else np.exp(-(overlap**2) / np.float32(0.5))
        left[best] = -1
    return taken


@pytest.mark.parametrize("decay", ["linear", "gaussian"])
def test_soft_suppression_equals_the_loop(decay):
    boxes, valid, groups = random_cases(200, seed=11)
    # Degenerate boxes and duplicates are among the cases; one has no box at all.
    scores = np.random.default_rng(12).uniform(0.05, 1, valid.shape).astype(np.float32)
    valid[4] = False
    run = jax.jit(
        jax.vmap(lambda b, s, v, g: soft_nms(b, s, v, count=25, decay=decay, groups=g)),
    )
    for case, (index, found, kept) in enumerate(zip(*map(np.asarray, run(boxes, scores, valid, groups)), strict=True)):
        expected = soften(boxes[case], scores[case], valid[case], groups[case], decay, 25)
        # An exact duplicate's score may be a rounding away from 0, on either side.
        np.testing.assert_allclose(found[: len(expected)], [score for _, score in expected], atol=2e-6)
        assert kept[: sum(score > 1e-5 for _, score in expected)].all()
        # Where scores nearly tie, either may come first.
        gaps = np.abs(np.diff([score for _, score in expected], append=-1, prepend=2))
        sure = [i for i in range(len(expected)) if min(gaps[i], gaps[i + 1]) > 1e-5]
        np.testing.assert_array_equal(index[sure], [expected[i][0] for i in sure])
        assert not index[~kept].any()
        assert not found[~kept].any()


def test_soft_suppression_of_nothing():
    index, scores, kept = soft_nms(jnp.zeros((0, 4)), jnp.zeros(0), jnp.zeros(0, bool), count=3)
    assert (index.shape, scores.shape, kept.shape) == ((3,), (3,), (3,))
    assert not kept.any()


def test_soft_suppression_keeps_what_overlaps_with_a_lower_score():
    boxes = jnp.array([[0.0, 0, 4, 4], [0, 0, 4, 2], [9, 9, 11, 11]])
    scores = jnp.array([0.9, 0.8, 0.5])
    index, found, kept = soft_nms(boxes, scores, jnp.ones(3, bool), count=4, decay="linear")
    np.testing.assert_array_equal(index, [0, 2, 1, 0])
    np.testing.assert_allclose(found, [0.9, 0.5, 0.4, 0])
    np.testing.assert_array_equal(kept, [True, True, True, False])
    # Of another group it does not.
    index, found, _ = soft_nms(boxes, scores, jnp.ones(3, bool), count=3, decay="linear", groups=jnp.array([0, 1, 0]))
    np.testing.assert_array_equal(index, [0, 1, 2])
    np.testing.assert_allclose(found, scores)
