"""Skeletons of well-known pose data sets."""

import re
from collections.abc import Iterator

from ylosia_jax.types import Skeleton

_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^A-Za-z]+")

# COCO keypoints (cocodataset.org): names and edges of the format, sigmas of its evaluation.
COCO_PERSON = Skeleton(
    names=(
        "nose",
        "left_eye",
        "right_eye",
        "left_ear",
        "right_ear",
        "left_shoulder",
        "right_shoulder",
        "left_elbow",
        "right_elbow",
        "left_wrist",
        "right_wrist",
        "left_hip",
        "right_hip",
        "left_knee",
        "right_knee",
        "left_ankle",
        "right_ankle",
    ),
    mirror=(0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15),
    edges=(
        *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8)),
        *((7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
    ),
    sigmas=(
        *(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107),
        *(0.087, 0.087, 0.089, 0.089),
    ),
    classes=("person",),
)


def mirror_of(names: tuple[str, ...]) -> tuple[int, ...]:
    """Each point's counterpart by its name, else itself.

    Counterparts differ in one word alone: left and right, or l and r. Words end at anything but a letter and where
    capitals begin; `leftear` and `earright` count too.
    """
    lower = [name.lower() for name in names]

    def other(point: int) -> int:
        words = [word.lower() for word in _WORDS.findall(names[point])]
        for i, word in enumerate(words):
            for swapped in _swaps(word):
                name = "".join([*words[:i], swapped, *words[i + 1 :]])
                if name in lower:
                    return lower.index(name)
        return point

    others = [other(point) for point in range(len(names))]
    # A mirror of a mirror is the point itself, or the two are no pair.
    return tuple(there if others[there] == here else here for here, there in enumerate(others))


def _swaps(word: str) -> Iterator[str]:
    """The word with its side exchanged, if it has one."""
    for one, two in (("left", "right"), ("right", "left"), ("l", "r"), ("r", "l")):
        if word == one:
            yield two
        elif len(one) > 1 and word.startswith(one):
            yield two + word[len(one) :]
        elif len(one) > 1 and word.endswith(one):
            yield word[: -len(one)] + two


# A mouse seen from above, as labelled in DeepLabCut's open-field example; its constants are those that an import gives
# to points that COCO does not know.
MOUSE = Skeleton(
    names=("snout", "leftear", "rightear", "tailbase"),
    mirror=(0, 2, 1, 3),
    edges=((0, 1), (0, 2), (1, 3), (2, 3)),
    sigmas=(0.05, 0.05, 0.05, 0.05),
    classes=("mouse",),
)
