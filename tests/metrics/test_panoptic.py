"""Panoptic quality against its published rules, in plain NumPy."""

import numpy as np
import pytest

from ylosia_jax.metrics.panoptic import panoptic_metrics, segments_of

CLASSES, THINGS = ("cat", "dog", "sky", "sea"), 2
SIZE = (24, 30)


def segmentation(rng, crowds):
    """Blocks of segments; some pixels belong to none."""
    page = np.zeros(SIZE, np.int32)
    labels = {}
    for number in range(1, int(rng.integers(1, 9))):
        y, x = rng.integers(0, SIZE[0]), rng.integers(0, SIZE[1])
        high, wide = rng.integers(3, 20, 2)
        label = int(rng.integers(0, 4))
        if label >= THINGS and label in labels.values():
            continue  # stuff is one segment an image
        page[y : y + high, x : x + wide] = number
        labels[number] = label
    labels = {n: k for n, k in labels.items() if (page == n).any()}
    groups = [n for n, k in labels.items() if k < THINGS and rng.random() < 0.3] if crowds else []
    return page, labels, groups


def altered(rng, page, labels):
    """A prediction: the truth shifted, with some segments lost and some classes wrong."""
    found = np.roll(page, rng.integers(-2, 3, 2), axis=(0, 1))
    kept = {
        n: (int(rng.integers(0, 4)) if rng.random() < 0.15 else k) for n, k in labels.items() if rng.random() < 0.85
    }
    found = np.where(np.isin(found, list(kept)), found, 0)
    return found, {n: k for n, k in kept.items() if (found == n).any()}


def twin(cases):
    """Kirillov et al., arXiv:1801.00868, section 4, with the reference implementation's way with void and groups."""
    true_positive, false_positive, false_negative, overlap = (np.zeros(4) for _ in range(4))
    for (page, labels, groups), (found, guesses) in cases:
        matched_truth, matched_found = set(), set()
        for n, k in labels.items():
            for m, g in guesses.items():
                if g != k or n in groups:
                    continue
                both = ((page == n) & (found == m)).sum()
                union = (page == n).sum() + (found == m).sum() - both - ((page == 0) & (found == m)).sum()
                if both / union > 0.5:
                    true_positive[k] += 1
                    overlap[k] += both / union
                    matched_truth.add(n)
                    matched_found.add(m)
        for n, k in labels.items():
            if n not in matched_truth and n not in groups:
                false_negative[k] += 1
        for m, g in guesses.items():
            if m in matched_found:
                continue
            # Of several groups of one class the reference knows the last.
            mine = [n for n in groups if labels[n] == g][-1:]
            excused = ((found == m) & ((page == 0) | np.isin(page, mine))).sum()
            if excused / (found == m).sum() <= 0.5:
                false_positive[g] += 1
    total = true_positive + (false_positive + false_negative) / 2
    there = total > 0
    sq, rq = overlap / np.maximum(true_positive, 1e-9), true_positive / np.maximum(total, 1e-9)
    return {"PQ": sq * rq, "SQ": sq, "RQ": rq}, there


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_equals_the_published_rules(seed):
    """50 evaluations of 20 images: 1,000 cases."""
    rng = np.random.default_rng(seed)
    cases = []
    for _ in range(20):
        page, labels, groups = segmentation(rng, crowds=seed % 2 == 0)
        cases.append(((page, labels, groups), altered(rng, page, labels)))
    truths = [segments_of(f"{i}", page, labels, groups) for i, ((page, labels, groups), _) in enumerate(cases)]
    found = [segments_of(f"{i}", page, labels) for i, (_, (page, labels)) in enumerate(cases)]
    scores = panoptic_metrics(truths, found, CLASSES, THINGS)
    expected, there = twin(cases)
    parts = {"all": slice(None), "things": slice(0, THINGS), "stuff": slice(THINGS, None)}
    for kind, part in parts.items():
        found_scores = scores if kind == "all" else scores[kind]
        for name, values in expected.items():
            np.testing.assert_allclose(found_scores[name], values[part][there[part]].mean(), atol=1e-9)
    for k, name in enumerate(CLASSES):
        assert (scores["per_class"][name] is None) == (not there[k])
        if there[k]:
            np.testing.assert_allclose(scores["per_class"][name], expected["PQ"][k], atol=1e-9)


def test_different_images_are_refused():
    one, two = (segments_of(name, np.ones(SIZE, np.int32), {1: 0}) for name in "ab")
    with pytest.raises(ValueError, match="different images"):
        panoptic_metrics([one], [two], CLASSES, THINGS)
