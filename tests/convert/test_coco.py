"""Answers for COCO's 91 numbers, cut to its 80 categories."""

import numpy as np

from ylosia_jax.convert.coco import NUMBERS, OUTPUTS, cut_to_categories
from ylosia_jax.convert.layout import PerClass
from ylosia_jax.data.coco_classes import THINGS


def test_the_numbers_are_those_of_the_categories():
    # As COCO's own files have them.
    numbers = dict(zip(THINGS, NUMBERS, strict=True))
    assert [numbers[name] for name in ("person", "fire hydrant", "stop sign", "backpack", "toothbrush")] == [
        1,
        11,
        13,
        27,
        90,
    ]
    assert [numbers[name] for name in ("umbrella", "handbag", "wine glass", "dining table", "toilet", "tv")] == [
        28,
        31,
        46,
        67,
        70,
        72,
    ]
    assert (numbers["sink"], numbers["refrigerator"], numbers["book"]) == (81, 82, 84)


def test_rows_of_what_is_no_category_go():
    number = np.arange(OUTPUTS, dtype=np.float32)
    tensors = {
        "score.bias": number,
        "delta.weight": np.stack([10 * number + i for i in range(4)], axis=1).reshape(-1, 1),
        # Two anchors, without a background.
        "dense.bias": np.concatenate([number, 1000 + number]),
        "body.weight": np.ones((OUTPUTS, 2), np.float32),
    }
    kinds = PerClass(r"score\..*"), PerClass(r"delta\..*", rows=4), PerClass(r"dense\..*", background=False)
    found = cut_to_categories(tensors, kinds)
    assert found is not None
    np.testing.assert_array_equal(found["score.bias"], [0, *NUMBERS])
    assert found["delta.weight"].shape == (81 * 4, 1)
    np.testing.assert_array_equal(found["delta.weight"][-4:, 0], [900, 901, 902, 903])
    np.testing.assert_array_equal(found["dense.bias"], [*NUMBERS, *(1000 + n for n in NUMBERS)])
    assert found["body.weight"] is tensors["body.weight"]
    assert list(found) == list(tensors)


def test_weights_of_other_classes_are_left_alone():
    kinds = (PerClass(r"score\..*"),)
    assert cut_to_categories({"score.bias": np.zeros(81)}, kinds) is None
    assert cut_to_categories({"score.bias": np.zeros(())}, kinds) is None
    assert cut_to_categories({"other.bias": np.zeros(91)}, kinds) is None
    assert cut_to_categories({"score.bias": np.zeros(91)}, ()) is None
