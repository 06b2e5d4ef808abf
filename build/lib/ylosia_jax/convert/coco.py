"""Weights with an answer for each of COCO's numbers, cut to those that are a category's.

COCO numbers its categories up to 90 and has objects of 80. torchvision's detectors answer for all numbers from 0 on,
91 of them; networks of this package for the 80 alone, in the same order. What a softmax gave the rest, which is next to
nothing in trained weights, falls to the others; sigmoids do not change.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from ylosia_jax.convert.layout import PerClass

OUTPUTS = 91
_NOTHING = (0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
NUMBERS = tuple(number for number in range(OUTPUTS) if number not in _NOTHING)


def cut_to_categories(
    tensors: Mapping[str, np.ndarray], per_class: Sequence[PerClass]
) -> Mapping[str, np.ndarray] | None:
    """The tensors with rows for the 80 categories, and the background where it has some; None if they are not for 91.

    Args:
      tensors: by foreign name, rows along the first axis; those that no entry of `per_class` names stay as they are.
      per_class: see `convert.layout.PerClass`.
    """
    found: dict[str, np.ndarray] = {}
    for name, value in tensors.items():
        kind = next((kind for kind in per_class if re.fullmatch(kind.pattern, name)), None)
        if kind is None:
            continue
        if not value.ndim or not value.size or value.shape[0] % (OUTPUTS * kind.rows):
            return None
        kept = [0, *NUMBERS] if kind.background else NUMBERS
        rest = value.shape[1:]
        found[name] = value.reshape(-1, OUTPUTS, kind.rows, *rest)[:, kept].reshape(-1, *rest)
    return {**tensors, **found} if found else None
