import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ylosia_jax.ops import boxes as box_ops
from ylosia_jax.ops import deltas
from ylosia_jax.tasks.rcnn import RCNN
from ylosia_jax.tasks.roi_boxes import RoiBoxes
from ylosia_jax.types import Batch, CropOutputs, Objects, Rois

CLASSES, REGIONS, ROWS, CANVAS = 3, 80, 6, (128, 128)
TASK = RCNN(regions=RoiBoxes(num_classes=CLASSES, samples=32), svm_c=1.0, ridge=1e-3)


def batch_of(seed: int, images: int = 4) -> Batch:
    """Images with a few objects, and regions of which about half lie near to one; the last object is a group."""
    rng = np.random.default_rng(seed)
    # Each in a cell of its own: suppression at 0.3 takes those that overlap for one.
    corner = rng.uniform(0, 12, (images, ROWS, 2)) + [[42 * (i % 3), 64 * (i // 3)] for i in range(ROWS)]
    boxes = np.concatenate([corner, corner + rng.uniform(16, 30, corner.shape)], axis=-1)
    valid = np.arange(ROWS) < rng.integers(2, ROWS + 1, (images, 1))
    crowd = np.zeros_like(valid)
    crowd[:, -1] = valid[:, -1]
    labels = rng.integers(0, CLASSES, valid.shape)
    near = rng.integers(0, 2, (images, REGIONS // 2))
    around = np.take_along_axis(boxes, near[..., None], axis=1) + rng.uniform(-6, 6, (images, REGIONS // 2, 4))
    corner = rng.uniform(0, 90, (images, REGIONS // 2, 2))
    away = np.concatenate([corner, corner + rng.uniform(8, 38, corner.shape)], axis=-1)
    regions = np.concatenate([around, away], axis=1)
    there = np.arange(REGIONS) < REGIONS - 5
    nothing = np.zeros((images, REGIONS), np.int32)
    return Batch(
        image=np.zeros((images, *CANVAS, 3), np.uint8),
        extent=np.full((images, 2), 128, np.float32),
        size=np.full((images, 2), 128, np.float32),
        index=np.arange(images, dtype=np.int32),
        epoch=np.zeros(images, np.int32),
        objects=Objects(
            boxes=(boxes * valid[..., None]).astype(np.float32),
            labels=(labels * valid).astype(np.int32),
            valid=valid,
            crowd=crowd,
        ),
        regions=Rois(
            boxes=(regions * there[:, None]).astype(np.float32),
            valid=np.broadcast_to(there, (images, REGIONS)),
            index=nothing,
            kind=nothing,
            canvas=CANVAS,
        ),
    )


def look(batch: Batch, fitted=None) -> dict[str, CropOutputs]:
    """What a perfect network would see: how much of which class a region is, and where its object is."""
    objects, regions = batch.objects, batch.regions
    single = objects.valid & ~objects.crowd
    rois = regions.replace(
        boxes=jnp.concatenate([regions.boxes, objects.boxes], axis=1),
        valid=jnp.concatenate([regions.valid, single], axis=1),
        index=jnp.zeros((len(single), REGIONS + ROWS), jnp.int32),
        kind=jnp.zeros((len(single), REGIONS + ROWS), jnp.int32),
    )
    overlap = box_ops.pairwise_iou(rois.boxes, jnp.asarray(objects.boxes)) * single[:, None]
    best = overlap.argmax(axis=2)
    labels = jnp.take_along_axis(jnp.asarray(objects.labels), best, axis=1)
    features = jax.nn.one_hot(labels, CLASSES) * (overlap.max(axis=2)[..., None] > 0.75)
    features = jnp.concatenate([features, jnp.ones((*labels.shape, 1))], axis=-1)
    mine = jnp.take_along_axis(jnp.asarray(objects.boxes), best[..., None], axis=1)
    pooled = jnp.concatenate([deltas.encode_deltas(mine, rois.boxes), jnp.ones((*labels.shape, 4))], axis=-1)
    pooled = jnp.where(rois.valid[..., None], pooled, 0)
    fitted = fitted or {
        "svm_kernel": np.zeros((CLASSES + 1, CLASSES)),
        "svm_bias": np.zeros(CLASSES),
        "ridge_kernel": np.zeros((8, CLASSES * 4)),
        "ridge_bias": np.zeros(CLASSES * 4),
        "done": np.zeros(()),
    }
    moved = (pooled @ fitted["ridge_kernel"] + fitted["ridge_bias"]).reshape(*labels.shape, CLASSES, 4)
    return {
        "box": CropOutputs(
            rois=rois,
            logits=8 * jnp.pad(features[..., :CLASSES], ((0, 0), (0, 0), (1, 0)), constant_values=0.5),
            deltas=jnp.pad(moved, ((0, 0), (0, 0), (1, 0), (0, 0))),
            margins=features @ fitted["svm_kernel"] + fitted["svm_bias"],
            fitted=jnp.asarray(fitted["done"]),
            pooled=pooled,
            features=features,
        )
    }


@pytest.fixture(scope="module")
def fitted():
    return TASK.fit(look, lambda: (batch_of(seed) for seed in range(6)))


def test_machines_find_the_objects_and_the_regression_their_boxes(fitted):
    batch = batch_of(99)
    outputs = look(batch, fitted)
    found = TASK.decode(outputs, {})
    assert fitted["done"] == 1
    for row in range(len(batch.index)):
        single = batch.objects.valid[row] & ~batch.objects.crowd[row]
        good = found.valid[row] & (found.scores[row] > 0.5)
        overlap = np.asarray(box_ops.pairwise_iou(batch.objects.boxes[row][single], found.boxes[row][good]))
        same = batch.objects.labels[row][single][:, None] == np.asarray(found.labels[row])[np.asarray(good)]
        # Its own box is among the regions: every object is found, nearly exactly.
        assert ((overlap * same).max(axis=1) > 0.9).all()


def test_before_they_are_fitted_the_softmax_answers():
    batch = batch_of(99)
    found = TASK.decode(look(batch), {})
    softmax = jax.nn.softmax(look(batch)["box"].logits)[..., 1:]
    np.testing.assert_allclose(found.scores[:, 0], softmax.max(axis=(1, 2)), rtol=1e-5)


def test_groups_and_padding_teach_nothing(fitted):
    def without_groups(seed):
        batch = batch_of(seed)
        objects = batch.objects
        moved = np.where(objects.crowd[..., None], objects.boxes * [1, 1, 0, 0] + [0, 0, 3, 3], objects.boxes)
        poison = np.where(batch.regions.valid[..., None], batch.regions.boxes, 55).astype(np.float32)
        return batch.replace(
            objects=objects.replace(boxes=np.where(objects.valid[..., None], moved, 7).astype(np.float32)),
            regions=batch.regions.replace(boxes=poison),
        )

    again = TASK.fit(look, lambda: (without_groups(seed) for seed in range(6)))
    # A group that lies elsewhere covers other regions, of which the machines learn others; the pairs are of objects.
    np.testing.assert_allclose(again["ridge_kernel"], fitted["ridge_kernel"], atol=1e-6)


def test_the_loss_is_of_classes_alone():
    batch = batch_of(1)
    outputs = {"proposals": batch.regions}
    rois = TASK.select(outputs, {}, batch)
    assert rois.boxes.shape == (4, 32, 4)
    logits = jnp.zeros((4, 32, CLASSES + 1))
    crops = CropOutputs(
        rois=rois,
        logits=logits,
        deltas=jnp.full((4, 32, CLASSES + 1, 4), 1e3),
        margins=logits[..., 1:],
        fitted=jnp.zeros(()),
        pooled=logits,
        features=logits,
    )
    targets = {"box": TASK.encode({"box": crops}, batch, {})}
    loss, parts = TASK.loss({"box": crops}, targets, batch)
    np.testing.assert_allclose(loss, np.log(CLASSES + 1), rtol=1e-5)
    assert parts == {}
    perfect = crops.replace(logits=50 * jax.nn.one_hot(targets["box"].labels, CLASSES + 1))
    assert TASK.loss({"box": perfect}, targets, batch)[0] < 1e-6


def test_fast_rcnns_background_lies_near_objects():
    batch = batch_of(2)
    task = RoiBoxes(num_classes=CLASSES, samples=64, background=0.1)
    rois = task.select({"proposals": batch.regions}, {}, batch)
    single = batch.objects.valid & ~batch.objects.crowd
    overlap = (np.asarray(box_ops.pairwise_iou(rois.boxes, jnp.asarray(batch.objects.boxes))) * single[:, None]).max(2)
    ground = np.asarray(rois.valid & (rois.kind == 0))
    assert ground.any()
    assert (overlap[ground] >= 0.1).all()
    assert (overlap[ground] < 0.5).all()
