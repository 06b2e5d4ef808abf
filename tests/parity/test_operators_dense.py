"""Operators of dense detectors against torchvision's, on 200 random cases each and more."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity.record import record
from parity.reference import exact, numpy, torch, torchvision

from ylosia_jax.ops import anchors, deltas, losses
from ylosia_jax.ops.assign import assign_centres, assign_max_iou
from ylosia_jax.ops.boxes import clip, iou
from ylosia_jax.ops.nms import nms
from ylosia_jax.ops.proposals import propose
from ylosia_jax.ops.sample import hardest_background

CASES = 200
ROWS = 6


def random_boxes(rng, *shape, side=64):
    """Boxes with corners on a grid of half pixels: products are exact, and ties are common; some have no area."""
    low = rng.integers(0, 2 * side - 16, (*shape, 2))
    size = rng.integers(0, side, (*shape, 2))
    return (np.concatenate([low, np.minimum(low + size, 2 * side)], axis=-1) / 2).astype(np.float32)


def flatten(boxes, rng):
    """Takes the width, the height or both of every fifth box."""
    flat = (rng.uniform(size=boxes.shape[:-1]) < 0.2)[..., None] & (
        rng.integers(1, 4, boxes.shape[:-1])[..., None] & [1, 2] > 0
    )
    boxes[..., 2:] = np.where(flat, boxes[..., :2], boxes[..., 2:])
    return boxes


def cases(seed):
    """Boxes, of which every fifth is a line or a point, and how many there are: in every tenth case none."""
    rng = np.random.default_rng(seed)
    boxes = random_boxes(rng, CASES, ROWS)
    boxes[..., 2:] = np.maximum(boxes[..., 2:], boxes[..., :2] + 1)
    boxes = flatten(boxes, np.random.default_rng(seed))
    counts = rng.integers(1, ROWS + 1, CASES)
    counts[::10] = 0
    return boxes, np.arange(ROWS) < counts[:, None], rng


SHAPES = {"p3": (8, 8), "p4": (4, 4)}
ANCHORS = anchors.anchor_boxes(SHAPES, ((8, 16), (24, 48)), (0.5, 1.0, 2.0))


@pytest.mark.parametrize("forced", [False, True])
def test_max_iou_equals_the_matcher(forced):
    matcher = torchvision().models.detection._utils.Matcher(0.5, 0.3, allow_low_quality_matches=forced)
    boxes, valid, _ = cases(0)
    run = jax.jit(jax.vmap(lambda b, v: assign_max_iou(b, v, ANCHORS, positive=0.5, negative=0.3, force_match=forced)))
    found = run(boxes, valid)
    ours = np.where(found.kind == 1, found.index, np.where(found.kind == 0, -1, -2))
    name = f"matcher{', low quality' if forced else ''}"
    _compare_matches(name, matcher, ANCHORS, ours, boxes, valid & (has_area(boxes) | (not forced)))


def test_bipartite_equals_ssd_matcher():
    matcher = torchvision().models.detection._utils.SSDMatcher(0.5)
    boxes, valid, _ = cases(1)
    run = jax.jit(jax.vmap(lambda b, v: assign_max_iou(b, v, ANCHORS, positive=0.5, negative=0.5, bipartite=True)))
    found = run(boxes, valid)
    ours = np.where(found.kind == 1, found.index, -1)
    _compare_matches("SSD matcher", matcher, ANCHORS, ours, boxes, valid & has_area(boxes))


def has_area(boxes):
    """What torchvision's models ask of an object. Its matchers would give one without to all anchors, or the first."""
    return (boxes[..., 2:] > boxes[..., :2]).all(axis=-1)


def _compare_matches(name, matcher, references, ours, boxes, valid):
    overlaps = torchvision().ops.box_iou
    wrong, forced = 0, 0
    for i in range(CASES):
        if not valid[i].any():
            wrong += (ours[i] != -1).sum()
            continue
        rows = np.flatnonzero(valid[i])
        quality = overlaps(torch.from_numpy(boxes[i][rows]), torch.from_numpy(references))
        wanted = numpy(matcher(quality))
        wanted = np.where(wanted >= 0, rows[np.maximum(wanted, 0)], wanted)
        wrong += (ours[i] != wanted).sum()
        forced += ((wanted >= 0) & (numpy(quality).max(axis=0) < 0.5)).sum()
    assert forced > 100 or "low quality" not in name
    record(name, "different matches", float(wrong), 0)


def test_centres_equal_fcos():
    tv = torchvision()
    model = tv.models.detection.FCOS.compute_loss
    shapes = {"p3": (16, 16), "p4": (8, 8), "p5": (4, 4)}
    cells = anchors.anchor_boxes(shapes, ((8,), (16,), (32,)), (1.0,))
    place, strides = (cells[:, :2] + cells[:, 2:]) / 2, cells[:, 2] - cells[:, 0]
    reach = strides[:, None] * np.float32([4, 8])
    reach[strides == 8, 0], reach[strides == 32, 1] = 0, np.inf
    # torchvision takes areas from 1e8 in float32, which tells them apart by 8 square pixels: these are multiples of 16.
    boxes = 8 * random_boxes(np.random.default_rng(2), CASES, ROWS, side=16)
    boxes[..., 2:] = np.maximum(boxes[..., 2:], boxes[..., :2] + 8)
    _, valid, rng = cases(3)
    boxes = flatten(boxes, rng)
    found = jax.jit(jax.vmap(lambda b, v: assign_centres(b, v, place, strides, reach)))(boxes, valid)
    ours = np.where(found.kind == 1, found.index, -1)
    kept = {}

    class Head:
        def compute_loss(self, targets, outputs, references, matches):
            kept["matches"] = matches

    class Self:
        center_sampling_radius, head = 1.5, Head()

    wrong = 0
    for i in range(CASES):
        target = {"boxes": torch.from_numpy(boxes[i][valid[i]])}
        model(Self(), [target], {}, [torch.from_numpy(cells)], [256, 64, 16])
        wrong += (ours[i] != numpy(kept["matches"][0])).sum()
    assert (ours >= 0).sum() > 1000
    record("FCOS matching", "different matches", float(wrong), 0)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), deltas.SECOND_STAGE])
def test_deltas_equal_the_coder(weights):
    coder = torchvision().models.detection._utils.BoxCoder(weights)
    boxes, _, rng = cases(4)
    references = np.maximum(random_boxes(rng, CASES, ROWS), 0)
    references[..., 2:] = np.maximum(references[..., 2:], references[..., :2] + 2)
    codes = rng.normal(0, 3, (CASES, ROWS, 4)).astype(np.float32) * np.float32(weights)
    assert (codes[..., 2:] / np.float32(weights)[2:] > deltas.CLIP).any()
    flat = [torch.from_numpy(x.reshape(-1, 4)) for x in (boxes, references, codes)]
    encoded = deltas.encode_deltas(jnp.asarray(boxes), jnp.asarray(references), weights)
    decoded = deltas.decode_deltas(jnp.asarray(codes), jnp.asarray(references), weights)
    for name, ours, theirs, bound in (
        ("encode", encoded, coder.encode_single(flat[0], flat[1]), 1e-5),
        ("decode", decoded, coder.decode_single(flat[2], flat[1]), 1e-5),
    ):
        ours, theirs = np.asarray(ours).reshape(-1, 4), numpy(theirs)
        # The logarithm of no side is a number here, and a very small one.
        assert np.isfinite(ours).all()
        sides = np.isfinite(theirs)
        assert sides.all() or (name == "encode" and (ours[~sides] < -10).all())
        ours, theirs = ours[sides], theirs[sides]
        record("box coder", name, (np.abs(ours - theirs) / np.maximum(np.abs(theirs), 1)).max(), bound)


def test_anchors_equal_the_generator():
    tv = torchvision()
    rng = np.random.default_rng(5)
    worst = 0.0
    for _ in range(CASES):
        ratios = tuple(rng.choice([0.25, 0.5, 1.0, 1.5, 2.0, 4.0], rng.integers(1, 4), replace=False))
        sizes = tuple(tuple(int(x) for x in rng.integers(8, 600, 2)) for _ in range(5))
        height, width = (int(x) for x in 32 * rng.integers(2, 12, 2))
        shapes = {f"p{n}": (-(-height // 2**n), -(-width // 2**n)) for n in range(3, 8)}
        images = tv.models.detection.image_list.ImageList(torch.zeros(1, 3, height, width), [(height, width)])
        generator = tv.models.detection.anchor_utils.AnchorGenerator(sizes, (ratios,) * 5)
        theirs = numpy(generator(images, [torch.zeros(1, 1, *shape) for shape in shapes.values()])[0])
        worst = max(worst, np.abs(anchors.anchor_boxes(shapes, sizes, ratios) - theirs).max())
    record("anchors", "boxes (px)", worst, 0)


def test_default_boxes_equal_the_generator():
    tv = torchvision()
    rng = np.random.default_rng(6)
    worst = 0.0
    for _ in range(CASES):
        ratios = [[float(x) for x in rng.choice([2, 3, 1.5], rng.integers(1, 4), replace=False)] for _ in range(3)]
        scales = sorted(float(x) for x in rng.uniform(0.05, 1.1, 4))
        steps = [int(x) for x in (8, 16, rng.integers(30, 120))]
        height, width = (int(x) for x in rng.integers(100, 600, 2))
        shapes = {f"p{3 + i}": (-(-height // step), -(-width // step)) for i, step in enumerate(steps)}
        images = tv.models.detection.image_list.ImageList(torch.zeros(1, 3, height, width), [(height, width)])
        generator = tv.models.detection.anchor_utils.DefaultBoxGenerator(ratios, scales=scales, steps=steps)
        theirs = numpy(generator(images, [torch.zeros(1, 1, *shape) for shape in shapes.values()])[0])
        ours = anchors.default_boxes(shapes, (height, width), scales=scales, ratios=ratios, steps=steps)
        worst = max(worst, np.abs(ours - theirs).max())
    record("default boxes", "boxes (px)", worst, 0)


def test_suppression_equals_batched_nms():
    batched = torchvision().ops.boxes._batched_nms_vanilla
    rng = np.random.default_rng(7)
    boxes = random_boxes(rng, CASES, 40, side=12)
    boxes[::5, 20:] = boxes[::5, :20]
    labels = rng.integers(0, 3, (CASES, 40))
    counts = np.where(np.arange(CASES) % 10 == 0, 0, rng.integers(1, 41, CASES))
    scores = -np.sort(-rng.uniform(size=(CASES, 40)).astype(np.float32), axis=1)
    valid = np.arange(40) < counts[:, None]
    ours = jax.jit(jax.vmap(lambda b, v, g: nms(b, v, iou_threshold=0.4, groups=g)))(boxes, valid, labels)
    wrong = 0
    for i, count in enumerate(counts):
        theirs = batched(*(torch.from_numpy(x[i][:count]) for x in (boxes, scores, labels)), 0.4)
        wrong += (np.isin(np.arange(40), numpy(theirs)) != ours[i]).sum()
    assert 0.2 < np.asarray(ours)[valid].mean() < 0.9
    record("batched nms", "different choices", float(wrong), 0)


def test_proposals_of_levels_equal_the_rpn():
    """Boxes beyond the picture, lines and points among them; levels with fewer anchors than enter the suppression."""
    detection = torchvision().models.detection
    rng = np.random.default_rng(10)
    counts, side = (24, 12, 5, 1), 32
    limits = {"training": 8, "testing": 8}
    rpn = detection.rpn.RegionProposalNetwork(
        detection.anchor_utils.AnchorGenerator(), torch.nn.Identity(), 0.7, 0.3, 8, 0.5, limits, limits, 0.4
    )
    boxes = flatten(random_boxes(rng, CASES, sum(counts), side=side + 16) - 8, rng)
    boxes[::7] = np.tile([side, 1, side + 3, 9], (sum(counts), 1))  # none of these is in the picture
    boxes[::5, 12:24] = boxes[::5, :12]
    logits = rng.normal(size=(CASES, sum(counts))).astype(np.float32)
    run = functools.partial(propose, counts=counts, pre_nms=8, post_nms=8, iou_threshold=0.4)
    found, valid, index = jax.jit(jax.vmap(run))(clip(boxes, side, side), logits)
    wanted, scores = rpn.filter_proposals(
        torch.from_numpy(boxes), torch.from_numpy(logits).reshape(-1, 1), [(side, side)] * CASES, list(counts)
    )
    wrong = 0
    for i in range(CASES):
        theirs = numpy(wanted[i])
        ours = np.asarray(found[i])[np.asarray(valid[i])]
        wrong += ours.shape != theirs.shape or not (ours == theirs).all()
        chosen = logits[i][np.asarray(index[i])[np.asarray(valid[i])]]
        np.testing.assert_allclose(1 / (1 + np.exp(-chosen)), numpy(scores[i])[: len(chosen)], rtol=1e-5)
    assert 4 < np.asarray(valid).sum(axis=1).mean() < 8
    assert not np.asarray(valid)[::7].any()
    record("proposals of levels", "different boxes", float(wrong), 0)


def test_losses_equal_torchvision():
    tv = torchvision()
    rng = np.random.default_rng(8)
    logits = rng.normal(0, 6, (CASES, 30)).astype(np.float32)
    targets = (rng.uniform(size=logits.shape) < 0.2).astype(np.float32)

    def both(name, ours, theirs, *inputs, smooth=None):
        """`smooth`: where the function is; elsewhere either side's gradient is one of several."""
        tensors = [torch.from_numpy(x).requires_grad_(i == 0) for i, x in enumerate(inputs)]
        wanted = theirs(*tensors)
        wanted.sum().backward()
        found, grads = jax.jit(jax.vmap(jax.value_and_grad(lambda *x: ours(*x).sum())))(*inputs)
        wanted = numpy(wanted).reshape(CASES, -1).sum(axis=1)
        record(name, "loss", (np.abs(found - wanted) / np.abs(wanted)).max(), 1e-5)
        kept = np.ones(grads.shape[:2], bool) if smooth is None else smooth
        grads, slopes = np.asarray(grads)[kept], numpy(tensors[0].grad)[kept]
        assert np.isfinite(grads).all()
        record(name, "gradient", np.linalg.norm(grads - slopes) / np.linalg.norm(grads), 1e-4)

    with exact():
        both("focal loss", losses.sigmoid_focal_loss, tv.ops.sigmoid_focal_loss, logits, targets)
        found, wanted = (rng.normal(0, 1, (CASES, 30)).astype(np.float32) for _ in range(2))
        l1 = torch.nn.functional.smooth_l1_loss
        both("smooth L1 loss", losses.smooth_l1_loss, lambda a, b: l1(a, b, reduction="none"), found, wanted)
        first, second = (random_boxes(rng, CASES, ROWS) for _ in range(2))
        for boxes in (first, second):
            boxes[..., 2:] = np.maximum(boxes[..., 2:], boxes[..., :2] + 1) + rng.uniform(0, 0.4, boxes[..., 2:].shape)
            flatten(boxes, rng)
        giou = tv.ops.generalized_box_iou_loss
        smooth = has_area(first) & has_area(second)
        both("GIoU loss", lambda a, b: 1 - iou(a, b, kind="giou"), giou, first, second, smooth=smooth)


def test_hard_negatives_equal_ssd():
    """torchvision's own loss, an image at a time: its background's part is that of the negatives chosen here."""
    tv = torchvision()
    rng = np.random.default_rng(9)
    logits = rng.normal(0, 3, (CASES, 60, 4)).astype(np.float32)
    positive = rng.uniform(size=(CASES, 60)) < np.linspace(0, 0.2, CASES)[:, None]
    labels = np.where(positive, rng.integers(1, 4, positive.shape), 0)
    entropy = torch.nn.functional.cross_entropy
    flat = torch.from_numpy(logits.reshape(-1, 4)), torch.from_numpy(labels.reshape(-1))
    loss = numpy(entropy(*flat, reduction="none")).reshape(CASES, 60)
    ours = jax.jit(jax.vmap(lambda x, kind: hardest_background(x, kind, ratio=3.0)))(loss, positive.astype(int))
    # As SSD's loss sorts them: by falling loss, the positives last.
    negative = torch.from_numpy(np.where(positive, -np.inf, loss))
    rank = negative.sort(1, descending=True)[1].sort(1)[1]
    theirs = numpy(rank < 3 * torch.from_numpy(positive).sum(1, keepdim=True)) & ~positive
    record("hard negatives", "different choices", float((theirs != ours).sum()), 0)

    class Self:
        box_coder, neg_to_pos_ratio = tv.models.detection._utils.BoxCoder((10.0, 10.0, 5.0, 5.0)), 3

    boxes, worst = torch.tensor([[0.0, 0.0, 8.0, 8.0]]), 0.0
    for i in np.flatnonzero(4 * positive.sum(axis=1) <= 60):  # with fewer negatives it counts positives twice
        # An object a class, and each positive is matched to that of its class.
        target = {"boxes": boxes.repeat(3, 1), "labels": torch.tensor([1, 2, 3])}
        outputs = {"cls_logits": torch.from_numpy(logits[i : i + 1]), "bbox_regression": torch.zeros(1, 60, 4)}
        wanted = tv.models.detection.ssd.SSD.compute_loss(
            Self(), [target], outputs, [boxes.repeat(60, 1)], [torch.from_numpy(labels[i] - 1)]
        )["classification"]
        found = loss[i][positive[i] | np.asarray(ours[i])].sum() / max(positive[i].sum(), 1)
        worst = max(worst, abs(found - float(wanted)) / max(float(wanted), 1e-6))
    record("hard negatives", "loss", worst, 1e-6)
