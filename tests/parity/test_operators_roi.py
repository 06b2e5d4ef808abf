"""Operators of the second stage against torchvision's, on hundreds of random cases each."""

import functools
import math
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity.record import record
from parity.reference import exact, numpy, quick_roi_align, torch, torchvision

from ylosia_jax.answers import paste_boxes
from ylosia_jax.ops import roi, roi_heatmaps
from ylosia_jax.ops.sample import luck, sample_balanced

CASES = 200
REGIONS = 6


def boxes_of(rng: np.random.Generator, count: int, height: float, width: float, *, outside: bool) -> np.ndarray:
    """Of all sizes, some without area, some beyond the map."""
    limit = np.array([width, height])
    low = rng.uniform(-0.6 if outside else 0, 1, (count, 2)) * limit
    side = np.exp(rng.uniform(np.log(0.05), np.log(1.3), (count, 2))) * limit
    side[rng.uniform(size=(count, 2)) < 0.1] = 0
    high = low + side
    if not outside:
        low, high = np.minimum(low, limit), np.minimum(high, limit)
    return np.concatenate([low, high], axis=1).astype(np.float32)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sampling", [1, 2, 4])
def test_roi_align(sampling: int, aligned: bool) -> None:
    """Of regions inside the map: torchvision's Python, which runs here, knows no other, see the next test."""
    rng = np.random.default_rng(0)
    ops, worst = torchvision().ops, 0.0
    height, width, channels = 12, 17, 5
    ours = jax.jit(functools.partial(roi.roi_align, size=(5, 3), scale=0.5, sampling=sampling, aligned=aligned))
    with exact():
        for _ in range(CASES):
            features = rng.normal(size=(2, height, width, channels)).astype(np.float32)
            # Regions without a width count as a cell wide, which shall not reach beyond the map either.
            boxes = np.stack([boxes_of(rng, REGIONS, 2 * height - 2, 2 * width - 2, outside=False) for _ in range(2)])
            wanted = ops.roi_align(
                torch.tensor(features.transpose(0, 3, 1, 2)), [*torch.tensor(boxes)], (5, 3), 0.5, sampling, aligned
            )
            found = np.array(ours(features, boxes)).reshape(-1, 5, 3, channels).transpose(0, 3, 1, 2)
            worst = max(worst, float(np.abs(found - numpy(wanted)).max()))
    record("roi_align", f"sampling {sampling}, {'aligned' if aligned else 'not aligned'}", worst, 1e-5)


def plain_roi_align(features: np.ndarray, box: np.ndarray, size: tuple[int, int], sampling: int, aligned: bool) -> Any:
    """torchvision's compiled operator, point by point: those more than a cell outside of the map are zero."""
    height, width, channels = features.shape
    x0, y0, x1, y1 = box - 0.5 if aligned else box
    wide, high = (x1 - x0, y1 - y0) if aligned else (max(x1 - x0, 1.0), max(y1 - y0, 1.0))
    out = np.zeros((*size, channels))
    for p, q in np.ndindex(size):
        for i, j in np.ndindex(sampling, sampling):
            y = y0 + high / size[0] * (p + (i + 0.5) / sampling)
            x = x0 + wide / size[1] * (q + (j + 0.5) / sampling)
            if y < -1 or y > height or x < -1 or x > width:
                continue
            y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = features[top, left] * (1 - x + left) + features[top, right] * (x - left)
            lower = features[bottom, left] * (1 - x + left) + features[bottom, right] * (x - left)
            out[p, q] += (upper * (1 - y + top) + lower * (y - top)) / sampling**2
    return out


@pytest.mark.parametrize("aligned", [False, True])
def test_roi_align_beyond_the_map(aligned: bool) -> None:
    rng = np.random.default_rng(1)
    worst = 0.0
    ours = jax.jit(functools.partial(roi.roi_align, size=(3, 2), scale=1.0, sampling=2, aligned=aligned))
    with exact():
        for _ in range(CASES):
            features = rng.normal(size=(1, 6, 7, 2)).astype(np.float32)
            boxes = boxes_of(rng, REGIONS, 6, 7, outside=True)
            found = np.array(ours(features, boxes[None]))[0]
            wanted = [
                plain_roi_align(features[0].astype(float), box, (3, 2), 2, aligned) for box in boxes.astype(float)
            ]
            worst = max(worst, float(np.abs(found - np.stack(wanted)).max()))
    record("roi_align", f"beyond the map, {'aligned' if aligned else 'not aligned'}", worst, 1e-5)


@pytest.mark.parametrize("aligned", [False, True])
def test_the_quick_roi_align_of_the_reference(aligned: bool) -> None:
    """What takes the place of torchvision's slow Python where there is much to do."""
    rng = np.random.default_rng(2)
    features = rng.normal(size=(2, 7, 9, 3))
    maps = torch.tensor(features.transpose(0, 3, 1, 2))
    for _ in range(20):
        boxes = boxes_of(rng, REGIONS, 14, 18, outside=True).astype(float)
        images = rng.integers(0, 2, REGIONS)
        rois = torch.tensor(np.concatenate([images[:, None], boxes], axis=1))
        found = quick_roi_align(maps, rois, 0.5, 3, 2, 2, aligned)
        for image, box, each in zip(images, boxes, numpy(found), strict=True):
            wanted = plain_roi_align(features[image], box / 2, (3, 2), 2, aligned)
            np.testing.assert_allclose(each.transpose(1, 2, 0), wanted, atol=1e-12)
        rois[:, 1:] = torch.tensor(boxes_of(rng, REGIONS, 12, 16, outside=False))
        align = torchvision().ops.roi_align
        each_cell = quick_roi_align(maps, rois, 0.5, 3, 2, 0, aligned)
        np.testing.assert_allclose(each_cell, align(maps, rois, (3, 2), 0.5, 0, aligned), atol=1e-12)


def test_roi_align_over_levels() -> None:
    rng = np.random.default_rng(2)
    worst, levels = 0.0, (2, 3, 4, 5)
    pooler = torchvision().ops.MultiScaleRoIAlign(["0", "1", "2", "3"], 4, 2)
    ours = jax.jit(functools.partial(roi.multilevel_roi_align, size=(4, 4)))
    counts = np.zeros(6, int)
    with exact():
        for _ in range(CASES):
            maps = {k: rng.normal(size=(2, 768 >> k, 1024 >> k, 2)).astype(np.float32) for k in levels}
            boxes = np.stack([boxes_of(rng, REGIONS, 736, 992, outside=False) for _ in range(2)])
            # In eighths of a pixel every point's place is exact: at cell 256 rounding alone would be 1e-5 of a cell.
            boxes = np.round(boxes * 8) / 8
            theirs = {str(k - 2): torch.tensor(x.transpose(0, 3, 1, 2)) for k, x in maps.items()}
            wanted = pooler(theirs, [*torch.tensor(boxes)], [(768, 1024)] * 2)
            found = np.array(ours({f"p{k}": x for k, x in maps.items()}, boxes))
            found = found.reshape(-1, 4, 4, 2).transpose(0, 3, 1, 2)
            worst = max(worst, float(np.abs(found - numpy(wanted)).max()))
            counts += np.bincount(np.array(roi.roi_levels(boxes.reshape(-1, 4), 2, 5)), minlength=6)
    assert (counts[2:] > 50).all(), counts
    record("multilevel_roi_align", "values", worst, 1e-5)


def test_levels_of_regions() -> None:
    """Also where a side is just a power of two of the canonical one, a little less and a little more."""
    mapper = torchvision().ops.poolers.LevelMapper(2, 5)
    rng = np.random.default_rng(3)
    sides = np.concatenate([224 * 2.0 ** np.arange(-4, 4), rng.uniform(1, 1500, 400), [0.0]]).astype(np.float32)
    sides = np.concatenate([sides, np.nextafter(sides, 0), np.nextafter(sides, 1e9)])
    boxes = np.stack([np.zeros_like(sides), np.zeros_like(sides), sides, sides], axis=1)
    wanted = numpy(mapper([torch.tensor(boxes)])) + 2
    np.testing.assert_array_equal(np.array(roi.roi_levels(jnp.asarray(boxes), 2, 5)), wanted)


def plain_roi_pool(features: np.ndarray, box: np.ndarray, size: tuple[int, int], scale: float) -> np.ndarray:
    """RoIPool as it is documented: corners rounded to cells that both belong to it, bins from floor to ceil."""
    height, width, channels = features.shape
    x0, y0, x1, y1 = (int(np.sign(v) * np.floor(abs(v) + 0.5)) for v in box * np.float32(scale))
    high, wide = max(y1 - y0 + 1, 1), max(x1 - x0 + 1, 1)
    out = np.zeros((*size, channels), np.float32)
    for p, q in np.ndindex(size):
        top, bottom = (
            min(max(y0 + cell, 0), height)
            for cell in (p * high // size[0], math.ceil(Fraction((p + 1) * high, size[0])))
        )
        left, right = (
            min(max(x0 + cell, 0), width)
            for cell in (q * wide // size[1], math.ceil(Fraction((q + 1) * wide, size[1])))
        )
        if bottom > top and right > left:
            out[p, q] = features[top:bottom, left:right].max(axis=(0, 1))
    return out


def test_roi_pool() -> None:
    rng = np.random.default_rng(4)
    ours = jax.jit(functools.partial(roi.roi_pool, size=(3, 4), scale=1 / 16))
    empty = 0
    for _ in range(CASES):
        features = rng.normal(size=(2, 7, 9, 3)).astype(np.float32)
        boxes = np.stack([boxes_of(rng, REGIONS, 7 * 16, 9 * 16, outside=True) for _ in range(2)])
        # Some corners lie half way between two cells.
        boxes = np.where(rng.uniform(size=boxes.shape) < 0.2, np.round(boxes / 8) * 8, boxes).astype(np.float32)
        found = np.array(ours(features, boxes))
        for b, r in np.ndindex(2, REGIONS):
            wanted = plain_roi_pool(features[b], boxes[b, r], (3, 4), 1 / 16)
            np.testing.assert_array_equal(found[b, r], wanted)
            empty += int((wanted == 0).all(axis=-1).sum())
    assert empty > 50
    record("roi_pool", "values, of a NumPy twin", 0.0, 0.0)


def test_masks_that_regions_learn() -> None:
    """A map of numbers for masks that do not overlap; torchvision samples as densely as the region is large."""
    project = torchvision().models.detection.roi_heads.project_masks_on_boxes
    rng = np.random.default_rng(5)
    ours, worst = jax.jit(functools.partial(roi.crop_numbers, size=(7, 7))), 0.0
    with exact():
        for _ in range(CASES):
            numbers = np.kron(rng.integers(0, 4, (1, 8, 10)), np.ones((3, 3), int)).astype(np.int32)
            masks = torch.tensor(numbers == np.array([1, 2, 3])[:, None, None])
            boxes = boxes_of(rng, REGIONS, 22, 28, outside=False)
            rows = rng.integers(0, 3, REGIONS)
            wanted = project(masks.to(torch.uint8), torch.tensor(boxes), torch.tensor(rows), 7)
            found = np.array(ours(numbers, (1 + rows)[None].astype(np.int32), boxes[None]))[0]
            worst = max(worst, float(np.abs(found - numpy(wanted)).max()))
    record("crop_numbers", "values", worst, 1e-5)


def test_pasted_masks() -> None:
    heads = torchvision().models.detection.roi_heads
    rng = np.random.default_rng(6)
    ours, pixels, differ = 0, 0, 0
    for _ in range(CASES):
        height, width = rng.integers(10, 80, 2)
        logits = rng.normal(size=(3, 28, 28)).astype(np.float32).cumsum(axis=1) + rng.normal(size=(3, 1, 1))
        boxes = boxes_of(rng, 3, height, width, outside=bool(rng.integers(2)))
        # Boxes that do not touch the image torchvision cannot paste.
        boxes[:, 2:] = np.maximum(boxes[:, 2:], 1)
        boxes[:, :2] = np.minimum(boxes[:, :2], [width - 1, height - 1])
        masks = torch.sigmoid(torch.tensor(logits, dtype=torch.float32))[:, None]
        wanted = numpy(heads.paste_masks_in_image(masks, torch.tensor(boxes), (height, width))[:, 0])
        found = np.stack([*paste_boxes(logits.astype(np.float32), boxes, (height, width))])
        assert found.shape == wanted.shape
        assert found.dtype == bool
        pixels += int((wanted > 0.5).sum())
        # Where what is cut at one half is one half up to rounding, either is right.
        differ += int(((found != (wanted > 0.5)) & (np.abs(wanted - 0.5) > 1e-5)).sum())
        ours += int(found.sum())
    assert pixels > 10_000
    assert ours > 10_000
    record("paste_boxes", "pixels", differ, 0)


def test_decoded_keypoints() -> None:
    heads = torchvision().models.detection.roi_heads
    rng = np.random.default_rng(7)
    canvas = (60, 90)
    decode = jax.jit(functools.partial(roi_heatmaps.decode_cells, canvas=canvas))
    worst, heights, ties = 0.0, 0.0, 0
    with exact():
        for _ in range(CASES):
            logits = rng.normal(size=(4, 56, 56, 3)).astype(np.float32)
            # Smooth ones too, as networks answer, whose bumps are wider than a pixel.
            if rng.integers(2):
                logits = logits.cumsum(axis=1).cumsum(axis=2)
            boxes = boxes_of(rng, 4, *canvas, outside=False)
            wanted, scores = heads.heatmaps_to_keypoints(
                torch.tensor(logits.transpose(0, 3, 1, 2)), torch.tensor(boxes)
            )
            places, found = (np.array(x) for x in decode(logits, boxes))
            scale = np.abs(logits).max()
            heights = max(heights, float(np.abs(found - numpy(scores)).max() / scale))
            error = np.abs(places - numpy(wanted)[..., :2]).max(axis=-1)
            ties += int((error > 1e-3).sum())
            worst = max(worst, float(error[error <= 1e-3].max()))
    record("decode_cells", "keypoints (px)", worst, 1e-3)
    record("decode_cells", "heights", heights, 1e-5)
    # Of 2,400 points, those whose two highest pixels are alike up to rounding.
    record("decode_cells", "points of equal height elsewhere", ties, 2)


def test_cells_of_keypoints() -> None:
    heads = torchvision().models.detection.roi_heads
    rng = np.random.default_rng(8)
    encode = jax.jit(functools.partial(roi_heatmaps.encode_cells, size=(56, 56)))
    for _ in range(CASES):
        boxes = boxes_of(rng, 5, 60, 90, outside=False)
        boxes[:, 2:] += 0.5  # torchvision divides by a region's sides
        keypoints = np.concatenate([rng.uniform(-5, 95, (5, 6, 2)), rng.integers(0, 3, (5, 6, 1))], axis=-1)
        keypoints[:, 0, :2], keypoints[:, 1, :2] = boxes[:, 2:], boxes[:, :2]
        keypoints = keypoints.astype(np.float32)
        wanted, valid = heads.keypoints_to_heatmap(torch.tensor(keypoints), torch.tensor(boxes), 56)
        cells, inside = encode(keypoints, boxes)
        np.testing.assert_array_equal(np.array(inside), numpy(valid).astype(bool))
        np.testing.assert_array_equal(np.array(cells), numpy(wanted))
    record("encode_cells", "cells", 0, 0)


def test_counts_of_balanced_samples() -> None:
    ours = jax.jit(sample_balanced, static_argnames=("count", "positive_share"))
    detection = torchvision().models.detection
    rng = np.random.default_rng(10)
    for case in range(CASES):
        count, share = int(rng.choice([3, 10, 40])), float(rng.choice([0.25, 0.5]))
        sampler = detection._utils.BalancedPositiveNegativeSampler(count, share)
        kind = rng.choice([-1, 0, 1], size=50, p=rng.dirichlet([1, 1, 1])).astype(np.int32)
        # torchvision shuffles by itself: how many it takes does not depend on it.
        positive, negative = (int(x[0].sum()) for x in sampler([torch.tensor(kind)]))
        lucky = luck(jnp.full(50, case), jnp.arange(50))
        found = ours(jnp.asarray(kind), lucky, count=count, positive_share=share)
        chosen = np.array(found.index)[np.array(found.valid)]
        assert len(np.unique(chosen)) == len(chosen)
        assert (kind[chosen] == np.array(found.positive)[np.array(found.valid)]).all()
        assert (int(found.positive.sum()), int((found.valid & ~found.positive).sum())) == (positive, negative)
    record("sample_balanced", "counts", 0, 0)


def test_no_regions() -> None:
    none = jnp.zeros((2, 0, 4))
    features = jnp.ones((2, 8, 8, 3))
    assert roi.roi_align(features, none, (7, 7), scale=1.0).shape == (2, 0, 7, 7, 3)
    assert roi.roi_pool(features, none, (7, 7), scale=1.0).shape == (2, 0, 7, 7, 3)
    assert roi.multilevel_roi_align({"p2": features, "p3": features}, none, (7, 7)).shape == (2, 0, 7, 7, 3)
    numbers = jnp.zeros((2, 8, 8), jnp.int32)
    assert roi.crop_numbers(numbers, jnp.zeros((2, 0), jnp.int32), none, (7, 7)).shape == (2, 0, 7, 7)
    places, heights = roi_heatmaps.decode_cells(jnp.zeros((0, 56, 56, 3)), none[0], (8, 8))
    assert places.shape == (0, 3, 2)
    assert heights.shape == (0, 3)
    assert not [*paste_boxes(np.zeros((0, 28, 28), np.float32), np.zeros((0, 4), np.float32), (8, 8))]
