"""The tasks of two-stage detectors: what they choose, that perfect outputs cost nothing and decode to the truth."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ylosia_jax.ops import deltas, roi_heatmaps
from ylosia_jax.ops.boxes import pairwise_iou
from ylosia_jax.tasks.roi_boxes import RoiBoxes
from ylosia_jax.tasks.roi_keypoints import RoiKeypoints
from ylosia_jax.tasks.roi_masks import RoiMasks
from ylosia_jax.tasks.rpn import RegionProposals
from ylosia_jax.train.questions import decode_tasks, selection, task_losses
from ylosia_jax.types import Batch, DenseOutputs, Objects, RoiMaps, RoiOutputs, Rois

CANVAS, CLASSES, POINTS, ROWS, GRID = (64, 96), 3, 2, 6, 28
LEVELS = ("p2", "p3", "p4", "p5", "p6")
TASKS = {
    "rpn": RegionProposals(
        sizes=((16,), (24,), (32,), (48,), (64,)), samples=64, pre_nms=(200, 100), post_nms=(64, 48)
    ),
    "box": RoiBoxes(CLASSES, samples=32, max_detections=10),
    "mask": RoiMasks(regions=8),
    "keypoint": RoiKeypoints(regions=8),
}


def make_batch(counts: tuple[int, ...] = (3, 0), rows: int = ROWS) -> Batch:
    images = len(counts)
    boxes, labels = np.zeros((images, rows, 4), np.float32), np.zeros((images, rows), np.int32)
    valid, keypoints = np.zeros((images, rows), bool), np.zeros((images, rows, POINTS, 3), np.float32)
    instances = np.zeros((images, *CANVAS), np.uint8)
    for b, count in enumerate(counts):
        for n in range(count):
            x, y = 4 + 30 * (n % 3), 6 + 30 * (n // 3)
            boxes[b, n], labels[b, n], valid[b, n] = [x, y, x + 20, y + 18 + n], n % CLASSES, True
            keypoints[b, n] = [[x + 5, y + 4, 2], [x + 15, y + 9, n % 2]]
            instances[b, y : y + 18 + n, x : x + 10] = n + 1
    size = np.broadcast_to(np.array(CANVAS, np.float32), (images, 2))
    return Batch(
        image=jnp.zeros((images, *CANVAS, 3)),
        extent=jnp.asarray(size),
        size=jnp.asarray(size),
        index=jnp.arange(images),
        epoch=jnp.zeros(images, jnp.int32),
        objects=Objects(
            boxes=jnp.asarray(boxes),
            labels=jnp.asarray(labels),
            valid=jnp.asarray(valid),
            crowd=jnp.zeros(valid.shape, bool),
            masked=jnp.asarray(valid),
            keypoints=jnp.asarray(keypoints),
        ),
        instances=jnp.asarray(instances),
    )


def perfect_rpn(batch: Batch) -> DenseOutputs:
    """Every anchor that answers for an object says so, and where."""
    shapes = {level: (-(-CANVAS[0] // 2**n), -(-CANVAS[1] // 2**n)) for n, level in enumerate(LEVELS, start=2)}
    images = len(batch.image)
    empty = DenseOutputs(
        logits={level: jnp.zeros((images, *shape, 3)) for level, shape in shapes.items()},
        deltas={level: jnp.zeros((images, *shape, 12)) for level, shape in shapes.items()},
    )
    everything = dataclasses.replace(TASKS["rpn"], samples=10**6, positive_share=1.0)
    wanted = everything.encode({"rpn": empty}, batch)
    coded = deltas.encode_deltas(wanted.boxes, jnp.asarray(everything._anchors(empty)))
    logits: dict[str, Any] = {}
    moves: dict[str, Any] = {}
    start = 0
    for level, (height, width) in shapes.items():
        rows = slice(start, start := start + height * width * 3)
        logits[level] = jnp.where(wanted.positive[:, rows], 20.0, -20.0).reshape(images, height, width, 3)
        moves[level] = jnp.where(wanted.positive[:, rows, None], coded[:, rows], 0).reshape(images, height, width, 12)
    return DenseOutputs(logits=logits, deltas=moves)


def perfect_box(rois: Rois, batch: Batch) -> RoiOutputs:
    """The class and the box of the object that each region overlaps most."""
    overlap = jax.vmap(pairwise_iou)(rois.boxes, batch.objects.boxes) * batch.objects.valid[:, None]
    owner = overlap.argmax(axis=2)
    label = jnp.where(overlap.max(axis=2) >= 0.5, 1 + jnp.take_along_axis(batch.objects.labels, owner, axis=1), 0)
    boxes = jnp.take_along_axis(batch.objects.boxes, owner[..., None], axis=1)
    moves = deltas.encode_deltas(boxes, rois.boxes, deltas.SECOND_STAGE)
    moves = jnp.where((label > 0)[..., None], moves, 0)
    moves = jnp.broadcast_to(moves[:, :, None], (*moves.shape[:2], CLASSES + 1, 4))
    return RoiOutputs(rois=rois, logits=20 * jax.nn.one_hot(label, CLASSES + 1), deltas=moves)


def owners(rois: Rois, batch: Batch) -> Any:
    return jax.vmap(pairwise_iou)(rois.boxes, batch.objects.boxes).argmax(axis=2)


def perfect_mask(rois: Rois, batch: Batch) -> RoiMaps:
    task = TASKS["mask"]
    index = owners(rois, batch)
    empty = RoiMaps(rois=rois.replace(index=index), logits=jnp.zeros((*index.shape, GRID, GRID, CLASSES + 1)))
    masks = task.encode({"mask": empty}, batch, {}).masks
    inside, outside = (jnp.log(jnp.maximum(share, 2e-9)) for share in (masks, 1 - masks))
    logits = (inside - outside)[..., None] * jnp.ones(CLASSES + 1)
    return RoiMaps(rois=rois, logits=logits)


def perfect_keypoint(rois: Rois, batch: Batch) -> RoiMaps:
    keypoints = jnp.take_along_axis(batch.objects.keypoints, owners(rois, batch)[..., None, None], axis=1)
    cells, _ = roi_heatmaps.encode_cells(keypoints, rois.boxes, (56, 56))
    logits = 30 * jax.nn.one_hot(cells, 56 * 56).swapaxes(2, 3)
    return RoiMaps(rois=rois, logits=logits.reshape(*cells.shape[:2], 56, 56, POINTS))


@functools.partial(jax.jit, static_argnames="train", compiler_options={"xla_backend_optimization_level": 0})
def perfect(batch: Batch, train: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a perfect network answers, which asks for its regions as `models.two_stage` does.

    Returns:
      The outputs, and in training the losses, else the answers.
    """
    answers: dict[str, Any] = {}
    select = selection(TASKS, answers, batch if train else None)["select"]
    outputs: dict[str, Any] = {"rpn": perfect_rpn(batch)}
    outputs["proposals"] = select("rpn", outputs)
    for name, head in (("box", perfect_box), ("mask", perfect_mask), ("keypoint", perfect_keypoint)):
        outputs[name] = head(select(name, outputs), batch)
    if train:
        return outputs, {name: loss for name, (loss, _) in task_losses(TASKS, outputs, batch).items()}
    decode_tasks(TASKS, outputs, answers)
    return outputs, answers


def test_perfect_outputs_cost_nothing() -> None:
    outputs, losses = perfect(make_batch(), True)
    logits = np.asarray(outputs["mask"].logits, np.float64)[np.asarray(outputs["mask"].rois.valid)][..., 0]
    # A cell that an object covers in part has an entropy that no answer gets below.
    share = 1 / (1 + np.exp(-logits))
    entropy = -(share * np.log(share) + (1 - share) * np.log(1 - share)).mean()
    assert 0 < entropy < 0.1
    for name, loss in losses.items():
        assert abs(float(loss) - (entropy if name == "mask" else 0)) < 1e-3, name


def test_perfect_outputs_decode_to_the_truth() -> None:
    batch = make_batch()
    answers = jax.device_get(perfect(batch, False)[1])
    found = answers["box"]
    assert found.valid.sum(axis=1).tolist() == [3, 0]
    order = np.lexsort(np.array(found.boxes[0][:3, :1]).T)
    np.testing.assert_allclose(found.boxes[0][:3][order], batch.objects.boxes[0][:3], atol=1e-3)
    np.testing.assert_array_equal(found.labels[0][:3][order], batch.objects.labels[0][:3])
    places = np.array(answers["keypoint"].keypoints)[0][:3][order][..., :2]
    truth = np.array(batch.objects.keypoints[0][:3])
    assert np.abs(places - truth[..., :2])[truth[..., 2] > 0].max() <= 1
    assert not answers["keypoint"].keypoints[1].any()
    # The left half of each box is the object's, less half a pixel each way: RoIAlign is not aligned here.
    share = (answers["mask"].logits[0][:3] > 0).mean(axis=(1, 2))
    np.testing.assert_allclose(share, 13 / 28 * 27 / 28, atol=1e-6)


def test_regions_that_learn() -> None:
    batch = make_batch((3, 1))
    outputs, _ = jax.device_get(perfect(batch, True))
    box, mask = outputs["box"].rois, outputs["mask"].rois
    assert box.boxes.shape == (2, 32, 4)
    assert (box.kind.sum(axis=1) <= 8).all()
    # Positives come first; each overlaps its object by a half.
    assert (np.diff(box.kind, axis=1) <= 0).all()
    overlap = np.array(pairwise_iou(jnp.asarray(box.boxes), batch.objects.boxes))
    own = np.take_along_axis(overlap, box.index[..., None], axis=2)[..., 0]
    assert (own[box.kind == 1] >= 0.5).all()
    assert (overlap.max(axis=2)[box.valid & (box.kind == 0)] < 0.5).all()
    np.testing.assert_array_equal(mask.boxes, box.boxes[:, :8])
    np.testing.assert_array_equal(mask.valid, box.valid[:, :8] & (box.kind[:, :8] == 1))


def test_an_object_without_a_mask_learns_none() -> None:
    batch = make_batch((1, 1))
    masked = batch.objects.masked.at[1].set(False)
    batch = batch.replace(objects=batch.objects.replace(masked=masked))
    outputs, _ = jax.device_get(perfect(batch, True))
    assert outputs["box"].rois.kind.sum(axis=1).min() > 0
    assert outputs["mask"].rois.valid.any(axis=1).tolist() == [True, False]


def test_a_crowd_is_neither_target_nor_background() -> None:
    batch = make_batch((2, 1))
    crowd = batch.objects.crowd.at[0, 0].set(True)
    batch = batch.replace(objects=batch.objects.replace(crowd=crowd))
    rois = jax.device_get(perfect(batch, True)[0])["box"].rois
    assert not (rois.index[0] == 0)[rois.kind[0] == 1].any()
    boxes = np.array(batch.objects.boxes)
    centres = (rois.boxes[0][:, :2] + rois.boxes[0][:, 2:]) / 2
    low, high = boxes[0, 0, :2], boxes[0, 0, 2:]
    covered = ((centres > low) & (centres < high)).all(axis=1)
    assert not (covered & rois.valid[0]).any()


def test_classes_without_labels_are_no_background() -> None:
    batch = make_batch((2, 1))
    batch = batch.replace(known=jnp.ones((2, CLASSES), bool).at[0, 2].set(False))
    outputs, _ = perfect(batch, True)
    box = outputs["box"]

    @jax.jit
    @jax.grad
    def gradient_of(logits: Any) -> Any:
        changed = {**outputs, "box": dataclasses.replace(box, logits=logits)}
        return TASKS["box"].loss(changed, {"box": TASKS["box"].encode(changed, batch, {})}, batch)[0]

    # Far from saturation, where every logit has a gradient.
    gradient = np.array(gradient_of(box.logits / 20))
    assert not gradient[0, :, 3].any()
    assert gradient[1, :, 3].any()
    # Without any background the first stage would take everything for an object.
    anchors = jax.jit(TASKS["rpn"].encode)(outputs, batch)
    assert (anchors.asked[0] & ~anchors.positive[0]).any()


def test_padding_changes_nothing() -> None:
    few, many = make_batch((3, 1)), make_batch((3, 1), rows=40)

    losses = perfect(many, True)[1]
    for name, loss in perfect(few, True)[1].items():
        assert float(loss) == pytest.approx(float(losses[name]), rel=1e-5), name


def test_chance_changes_with_the_epoch_and_not_with_the_place_in_the_batch() -> None:
    batch = make_batch((3, 3))
    dense = jax.jit(lambda batch: {"rpn": perfect_rpn(batch)})(batch)
    encode = jax.jit(TASKS["rpn"].encode)
    first = encode(dense, batch).asked
    assert (first[0] != first[1]).any()
    again = encode(dense, batch.replace(index=batch.index[::-1])).asked
    np.testing.assert_array_equal(first[::-1], again)
    later = encode(dense, batch.replace(epoch=batch.epoch + 1)).asked
    assert (first != later).any()
