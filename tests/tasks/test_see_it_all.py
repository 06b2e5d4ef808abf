"""Masks, poses, semantic and panoptic maps beside boxes, on the built-in scenes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ylosia_jax.answers import unpad
from ylosia_jax.data.augment import Augment, augment
from ylosia_jax.data.pipeline import Needs, prepare, stack
from ylosia_jax.data.scenes import CLASSES, Scenes
from ylosia_jax.data.scenes_grounds import STUFF
from ylosia_jax.data.skeletons import COCO_PERSON
from ylosia_jax.evaluate import letterbox_of, metrics, record_of
from ylosia_jax.ops import heatmaps, points
from ylosia_jax.tasks.dense import DenseTargets
from ylosia_jax.tasks.masks import PrototypeMasks
from ylosia_jax.tasks.panoptic import Panoptic
from ylosia_jax.tasks.poses import DensePoses
from ylosia_jax.tasks.semantic import Semantic
from ylosia_jax.types import Detections, MaskOutputs, PoseOutputs

pytestmark = pytest.mark.slow

SIDE, ROWS, J = 160, 16, len(COCO_PERSON.names)
CLASSES_AND_STUFF = len(CLASSES) + len(STUFF)
SOURCE = Scenes("validation", size=4, image_size=(SIDE, SIDE))
SHAPES = {"p3": (20, 20), "p4": (10, 10)}
ANCHORS, STRIDES = points.anchor_points(SHAPES)
MASKS, POSES = PrototypeMasks(points=24), DensePoses(sigmas=COCO_PERSON.sigmas, points=24)
SEMANTIC, PANOPTIC = (
    Semantic(CLASSES_AND_STUFF),
    Panoptic(things=len(CLASSES), classes=CLASSES_AND_STUFF, min_stuff_area=1),
)


@pytest.fixture(scope="module")
def batch():
    """Four scenes as the network sees them in training."""
    needs = Needs(masks=True, points=J, semantic=True)
    items = [prepare(SOURCE[i], i, 0, (SIDE, SIDE), ROWS, needs) for i in range(len(SOURCE))]
    return augment(Augment(), stack(items), 0, 0.0, mirror=COCO_PERSON.mirror)


def nearest_point(objects):
    """For every object the finest anchor point that is nearest to its middle, [B, N]."""
    middle = (objects.boxes[..., :2] + objects.boxes[..., 2:]) / 2
    fine = SHAPES["p3"][0] * SHAPES["p3"][1]
    return np.asarray(jnp.argmin(((ANCHORS[:fine] - middle[..., None, :]) ** 2).sum(-1), axis=-1))


@pytest.fixture(scope="module")
def perfect(batch):
    """Targets of boxes, and outputs that say of every object just what is true: a prototype each."""
    count = len(SOURCE)
    share, index = np.zeros((count, len(ANCHORS)), np.float32), np.zeros((count, len(ANCHORS)), np.int32)
    coefficients = np.zeros((count, len(ANCHORS), ROWS), np.float32)
    coded = np.zeros((count, len(ANCHORS), J, 3), np.float32)
    place, objects = nearest_point(batch.objects), batch.objects
    for i in range(count):
        for j in np.flatnonzero(objects.valid[i]):
            a = place[i, j]
            share[i, a], index[i, a], coefficients[i, a, j] = 1, j, 1
            keypoints = np.asarray(objects.keypoints[i, j])
            coded[i, a, :, :2] = (keypoints[:, :2] - ANCHORS[a]) / STRIDES[a]
            coded[i, a, :, 2] = np.where(keypoints[:, 2] > 0, 20, -20)
    prototypes = logits_of(np.moveaxis(shares_of(batch.instances, 1 + np.arange(ROWS)), 0, -1))
    ends = [SHAPES["p3"][0] * SHAPES["p3"][1]]

    def levels(x):
        parts = np.split(x.reshape(count, len(ANCHORS), -1), ends, axis=1)
        return {k: jnp.asarray(p.reshape(count, *SHAPES[k], -1)) for k, p in zip(SHAPES, parts, strict=True)}

    classes = np.moveaxis(shares_of(batch.semantic, np.arange(CLASSES_AND_STUFF)), 0, -1)
    dense = DenseTargets(
        boxes=jnp.zeros((count, len(ANCHORS), 4)),
        labels=jnp.zeros((count, len(ANCHORS)), jnp.int32),
        index=jnp.asarray(index),
        share=jnp.asarray(share),
        score=jnp.asarray(share),
        ignore=jnp.zeros((count, len(ANCHORS)), bool),
    )
    outputs = {
        "mask": MaskOutputs(prototypes=jnp.asarray(prototypes, jnp.float32), coefficients=levels(coefficients)),
        "keypoint": PoseOutputs(points=levels(coded), heatmap=perfect_heatmap(batch)),
        "semantic": jnp.log(jnp.maximum(classes, 1e-9)),
    }
    return {"box": dense}, outputs


def shares_of(numbers, wanted):
    """How much of each cell shows which number, [M, B, h, w]."""
    cells = np.asarray(numbers).reshape(len(numbers), SIDE // 4, 4, SIDE // 4, 4)
    return np.stack([(cells == number).mean(axis=(2, 4)) for number in wanted])


def logits_of(shares):
    """As far as float32 tells shares from 0 and 1."""
    shares = jnp.clip(shares, 1e-7, 1 - 1e-7)
    return jnp.log(shares) - jnp.log1p(-shares)


def perfect_heatmap(batch):
    """Logits of the bumps that the truth draws."""
    keypoints = batch.objects.keypoints
    draw = functools.partial(heatmaps.encode_heatmap, height=SIDE // 4, width=SIDE // 4, spread=POSES.spread)
    heat = jnp.clip(jax.vmap(draw)(keypoints[..., :2] / 4, keypoints[..., 2] > 0), 1e-8, 1 - 1e-6)
    return jnp.log(heat) - jnp.log1p(-heat)


@pytest.fixture(scope="module")
def answers(batch, perfect):
    """All answers that perfect outputs decode to."""
    objects, (_, outputs) = batch.objects, perfect
    found = {
        "box": Detections(
            boxes=objects.boxes,
            scores=objects.valid * jnp.linspace(1, 0.9, ROWS),
            labels=objects.labels,
            valid=objects.valid,
            index=jnp.asarray(nearest_point(objects)) * objects.valid,
        )
    }
    for name, task in {"mask": MASKS, "keypoint": POSES, "semantic": SEMANTIC, "panoptic": PANOPTIC}.items():
        found[name] = jax.jit(task.decode)(outputs, found)
    return jax.device_get(found)


def loss_of(task, name, outputs, targets, batch):
    targets = targets | {name: task.encode(outputs, batch, targets)}
    return task.loss(outputs, targets, batch)


LEARNED = {"mask": MASKS, "keypoint": POSES, "semantic": SEMANTIC}


@pytest.mark.parametrize("name", LEARNED)
def test_perfect_outputs_have_no_loss_and_others_have(name, batch, perfect):
    targets, outputs = perfect
    run = jax.jit(functools.partial(loss_of, LEARNED[name], name))
    loss, parts = run(outputs, targets, batch)
    assert abs(loss) < 1e-3
    assert all(abs(part) < 1e-3 for part in parts.values())
    worse = jax.tree.map(lambda x: x * 0.05 + 0.1, outputs)
    assert run(worse, targets, batch)[0] > 0.3


@pytest.mark.parametrize("name", LEARNED)
def test_what_is_not_labelled_teaches_nothing(name, batch, perfect):
    """Images whose masks, poses and maps nobody drew have no gradient, and none that is not a number."""
    targets, outputs = perfect
    objects = batch.objects.replace(
        masked=jnp.zeros_like(batch.objects.masked), keypoints=jnp.zeros_like(batch.objects.keypoints)
    )
    unknown = batch.replace(objects=objects, semantic=jnp.full_like(batch.semantic, 255))
    worse = jax.tree.map(lambda x: x * 0.05 + 0.1, outputs)
    gradient = jax.jit(jax.grad(lambda o: loss_of(LEARNED[name], name, o, targets, unknown)[0]))(worse)
    assert all(not np.asarray(x).any() for x in jax.tree.leaves(gradient))


@pytest.mark.parametrize("name", LEARNED)
def test_padding_rows_change_nothing(name, batch, perfect):
    targets, outputs = perfect
    worse = jax.tree.map(lambda x: x * 0.05 + 0.1, outputs)
    run = jax.jit(functools.partial(loss_of, LEARNED[name], name))
    padding = ~batch.objects.valid
    junk = batch.objects.replace(
        boxes=jnp.where(padding[..., None], 77.0, batch.objects.boxes),
        keypoints=jnp.where(padding[..., None, None], 2.0, batch.objects.keypoints),
    )
    expected = run(worse, targets, batch)[0]
    np.testing.assert_allclose(run(worse, targets, batch.replace(objects=junk))[0], expected, rtol=1e-6)


@pytest.mark.parametrize("name", LEARNED)
def test_the_loss_of_a_mixture_is_the_mean_of_its_sets(name, batch, perfect):
    """However many objects an image of each has: every set's loss is its own, and weighs as much as its images."""
    targets, outputs = perfect
    worse = jax.tree.map(lambda x: x * 0.05 + 0.1, outputs)
    run = jax.jit(functools.partial(loss_of, LEARNED[name], name))
    source = np.arange(len(SOURCE)) % 3 == 0

    def alone(rows):
        return run(*jax.tree.map(lambda x: x[rows], (worse, targets, batch)))[0]

    share = source.mean()
    expected = share * alone(source) + (1 - share) * alone(~source)
    whole = run(worse, targets, batch.replace(source=jnp.stack([source, ~source], axis=1)))[0]
    np.testing.assert_allclose(whole, expected, rtol=1e-5)
    assert abs(whole - run(worse, targets, batch)[0]) > 1e-3


def test_every_kind_of_point_has_one_vote_in_the_loss_of_heatmaps(batch, perfect):
    """The loss is the mean of the kinds', however many points of each there are; one that nobody has, has none."""
    (dense, outputs), rare, absent = (perfect[0]["box"], perfect[1]), 0, 1
    shown = np.array(batch.objects.keypoints)
    shown[:, :, absent] = 0
    shown[1:, :, rare] = 0
    worse = jax.tree.map(lambda x: x * 0.05 + 0.1, outputs)
    run = jax.jit(functools.partial(loss_of, POSES, "keypoint"))

    def heat(kinds):
        keypoints = jnp.zeros_like(shown).at[:, :, kinds].set(shown[:, :, kinds])
        some = batch.replace(objects=batch.objects.replace(keypoints=keypoints))
        return float(run(worse, {"box": dense, "keypoint": POSES.encode(worse, some, {"box": dense})}, some)[1]["heat"])

    every = [kind for kind in range(len(POSES.sigmas)) if kind != absent]
    assert heat(np.array([rare])) > 0
    np.testing.assert_allclose(
        heat(np.arange(len(POSES.sigmas))), np.mean([heat(np.array([j])) for j in every]), rtol=1e-5
    )


def test_every_object_is_trained_before_any_is_trained_twice(batch, perfect):
    (dense, outputs) = perfect[0]["box"], perfect[1]
    # All points answer for some object, many of them well, one of each best.
    index = np.tile(np.arange(len(ANCHORS)) % 3, (len(SOURCE), 1)).astype(np.int32)
    share = np.full(index.shape, 0.9, np.float32)
    share[:, [60, 100, 140]] = 1  # of the objects 0, 1 and 2
    dense = dense.replace(index=jnp.asarray(index), share=jnp.asarray(share), score=jnp.asarray(share))
    valid = jnp.ones_like(batch.objects.valid)
    known = batch.replace(objects=batch.objects.replace(valid=valid, masked=valid))
    chosen = PrototypeMasks(points=3).encode(outputs, known, {"box": dense})
    np.testing.assert_array_equal(np.sort(chosen.points), np.tile([60, 100, 140], (len(SOURCE), 1)))


def test_mask_loss_equals_loops(batch, perfect):
    targets, outputs = perfect
    rng = np.random.default_rng(0)
    noisy = jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 1, x.shape), jnp.float32), outputs["mask"])
    score = jnp.asarray(rng.uniform(0.2, 1, targets["box"].score.shape), jnp.float32) * targets["box"].share
    dense = targets["box"].replace(score=score)
    found = loss_of(MASKS, "mask", {"mask": noisy}, {"box": dense}, batch)[0]
    total, weights = 0.0, 0.0
    flat = np.asarray(points.flatten_levels(noisy.coefficients), np.float64)
    for i in range(len(SOURCE)):
        for a in np.flatnonzero(np.asarray(dense.share[i])):
            j = int(dense.index[i, a])
            logit = np.asarray(noisy.prototypes[i], np.float64) @ flat[i, a]
            truth = shares_of(batch.instances[i : i + 1], [j + 1])[0, 0]
            x0, y0, x1, y1 = np.asarray(batch.objects.boxes[i, j]) / 4
            assert min(x1 - x0, y1 - y0) > 1
            y, x = np.mgrid[: logit.shape[0], : logit.shape[1]] + 0.5
            inside = (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
            entropy = truth * np.logaddexp(0, -logit) + (1 - truth) * np.logaddexp(0, logit)
            entropy -= np.asarray(jax.scipy.special.entr(truth) + jax.scipy.special.entr(1 - truth))
            total += float(score[i, a]) * entropy[inside].sum() / max(inside.sum(), 1)
            weights += float(score[i, a])
    np.testing.assert_allclose(found, MASKS.gain * total / max(weights, 1), rtol=1e-4)


def test_an_object_narrower_than_a_cell_still_learns_its_mask(batch, perfect):
    targets, outputs = perfect
    wanted = MASKS.encode(outputs, batch, {"box": targets["box"]})
    # The centres of the cells lie at 2, 6, 10, … px.
    thin = jnp.broadcast_to(jnp.array([7, 3, 9.5, 30]) / 4, wanted.boxes.shape)
    wanted = wanted.replace(boxes=thin, masks=jnp.zeros_like(wanted.masks))

    def total(prototypes):
        found = {"mask": outputs["mask"].replace(prototypes=prototypes)}
        return MASKS.loss(found, {"mask": wanted}, batch)[0]

    slope = np.asarray(jax.grad(total)(outputs["mask"].prototypes))
    columns = np.flatnonzero(np.abs(slope).sum(axis=(0, 1, 3)))
    assert columns.tolist() == [2]


def test_perfect_answers_score_perfectly(batch, answers):
    """Through the decoding, back into the images' pixels, and through every metric."""
    canvas = (SIDE, SIDE)
    records = [
        record_of(SOURCE[i], unpad(answers, i, letterbox_of(batch, i), canvas), len(CLASSES), CLASSES_AND_STUFF)
        for i in range(len(SOURCE))
    ]
    scores = metrics(records, SOURCE)
    assert set(scores) == {"box", "mask", "keypoint", "semantic", "panoptic"}
    assert scores["box"]["AP"] > 0.999
    assert scores["keypoint"]["AP"] > 0.999
    # The truth has four times the resolution of what is learned, which tells shares of cells.
    assert scores["mask"]["AP50"] > 0.999
    assert scores["mask"]["AP"] > 0.85
    assert scores["semantic"]["mIoU"] > 0.9
    assert scores["panoptic"]["PQ"] > 0.9


def test_semantic_logits_are_enlarged_before_the_choice(perfect):
    logits = perfect[1]["semantic"]
    expected = jax.image.resize(logits, (len(logits), SIDE, SIDE, logits.shape[3]), "bilinear").argmax(3)
    np.testing.assert_array_equal(SEMANTIC.decode({"semantic": logits}, {}).labels, expected)


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        (MASKS, {"instances": None}, "no map of instances"),
        (SEMANTIC, {"semantic": None}, "no semantic map"),
        (DensePoses(sigmas=(0.1, 0.1)), {}, "17 points, the task has 2"),
    ],
)
def test_a_batch_without_the_labels_is_refused(task, change, message, batch, perfect):
    targets, outputs = perfect
    with pytest.raises(ValueError, match=message):
        task.encode(outputs, batch.replace(**change), targets)


def test_poses_move_to_the_heatmaps_bumps(batch, perfect):
    """Anchor points that are off by a few pixels still give the truth, wherever a bump says so."""
    _, outputs = perfect
    rng = np.random.default_rng(5)
    objects = batch.objects
    noise = {
        k: jnp.asarray(rng.uniform(-0.3, 0.3, x.shape), jnp.float32) for k, x in outputs["keypoint"].points.items()
    }
    shaken = jax.tree.map(jnp.add, outputs["keypoint"].points, noise)
    found = Detections(
        boxes=objects.boxes,
        scores=objects.valid * 1.0,
        labels=objects.labels,
        valid=objects.valid,
        index=jnp.asarray(nearest_point(objects)) * objects.valid,
    )

    def error(heatmap):
        output = {"keypoint": PoseOutputs(points=shaken, heatmap=heatmap)}
        poses = jax.jit(POSES.decode)(output, {"box": found}).keypoints
        known = np.asarray(objects.keypoints[..., 2] > 0)
        return np.linalg.norm(np.asarray(poses - objects.keypoints)[..., :2], axis=-1)[known]

    heat = outputs["keypoint"].heatmap
    exact, rough = error(heat), error(jnp.full_like(heat, -20.0))
    assert np.median(rough) > 1
    assert np.median(exact) < 0.05
    # Where no bump is near, the pose stays where the anchor point put it.
    assert rough.max() < 0.3 * 8 * 2**0.5 + 1e-3


def test_heatmaps_are_asked_only_where_they_are_known(batch, perfect):
    targets, outputs = perfect
    objects = batch.objects
    posed = np.asarray((objects.keypoints[..., 2] > 0).any(axis=-1) & objects.valid)
    image = int(np.argmax(posed.sum(axis=1)))
    rows = np.flatnonzero(posed[image])
    assert len(rows) >= 2
    wanted = POSES.encode(outputs, batch, targets)
    shown = np.asarray(objects.keypoints[image, rows, :, 2] > 0)
    asked = np.asarray(wanted.asked[image])
    np.testing.assert_array_equal(asked.any(axis=(0, 1)), shown.any(axis=0))
    # A figure that lacks a point may have it somewhere in its box; one that all have is asked for everywhere.
    np.testing.assert_array_equal(asked.all(axis=(0, 1)), shown.all(axis=0))
    # Of one figure nobody marked the points: inside its box a bump is neither right nor wrong.
    keypoints = np.array(objects.keypoints)
    keypoints[image, rows[0]] = 0
    fewer = POSES.encode(outputs, batch.replace(objects=objects.replace(keypoints=jnp.asarray(keypoints))), targets)
    x0, y0, x1, y1 = (int(v) for v in objects.boxes[image, rows[0]] / 4)
    asked, heat = np.asarray(fewer.asked[image]), np.asarray(fewer.heatmap[image])
    inside = asked[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1]
    assert not inside[heat[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1] < POSES.min_heat].any()
    outside = np.ones(asked.shape[:2], bool)
    outside[max(y0 - 1, 0) : y1 + 2, max(x0 - 1, 0) : x1 + 2] = False
    kinds = (keypoints[image, rows[1:], :, 2] > 0).all(axis=0)
    assert kinds.any()
    assert asked[outside][:, kinds].all()
    # In an image whose labels do not cover all people, only what is marked is known.
    known = jnp.ones((len(SOURCE), len(CLASSES)), bool).at[image, CLASSES.index("person")].set(False)
    some = POSES.encode(outputs, batch.replace(known=known), targets)
    np.testing.assert_array_equal(some.asked[image], wanted.heatmap[image] > 0.1)
    np.testing.assert_array_equal(some.asked[image - 1], wanted.asked[image - 1])
