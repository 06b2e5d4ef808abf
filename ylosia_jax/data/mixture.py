"""Several data sets as one: with weights, one list of classes, and whatever each of them knows of its images."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np

from ylosia_jax.types import VOID, Example, Label, Skeleton, Source, UserError


@dataclasses.dataclass(frozen=True)
class Mixed:
    """Sources side by side, a `types.Source`.

    Classes of one name are one class, in the order of their first appearance; so it is with stuff. Poses of different
    skeletons stand behind one another in one: a pose of one kind has no labels for the points of the others. What a
    source does not label, its images do not know: such labels are neither learned nor scored, and an object of a class
    that its source does not annotate is no background.

    Attributes:
      sources: what is mixed.
      weights: share of the images that each contributes to a pass, relative to the others'.
      classes, stuff, skeleton, labels: see `types.Source`; those of all together.
      counts: images of a pass out of each source: the largest for its weight contributes all of its own once.
    """

    sources: tuple[Source, ...]
    weights: tuple[float, ...]
    classes: tuple[str, ...] = dataclasses.field(init=False)
    stuff: tuple[str, ...] = dataclasses.field(init=False)
    skeleton: Skeleton | None = dataclasses.field(init=False)
    labels: frozenset[Label] = dataclasses.field(init=False)
    counts: tuple[int, ...] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        if not self.sources or len(self.sources) != len(self.weights) or min(self.weights) <= 0:
            raise UserError(f"{len(self.sources)} data sets with the weights {self.weights}: give each one above 0")
        classes = tuple(dict.fromkeys(name for source in self.sources for name in source.classes))
        stuff = dict.fromkeys(name for source in self.sources for name in source.stuff)
        unit = max(len(source) / weight for source, weight in zip(self.sources, self.weights, strict=True))
        derived = {
            "classes": classes,
            "stuff": tuple(name for name in stuff if name not in classes),
            "skeleton": join_skeletons([source.skeleton for source in self.sources if source.skeleton is not None]),
            "labels": frozenset().union(*(source.labels for source in self.sources)),
            "counts": tuple(max(1, math.floor(unit * weight + 0.5)) for weight in self.weights),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)  # the way of a frozen dataclass

    def __len__(self) -> int:
        return sum(self.counts)

    def __getitem__(self, index: int, /) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"no example {index}; there are 0 to {len(self) - 1}")
        number = 0
        while index >= self.counts[number]:
            index -= self.counts[number]
            number += 1
        source = self.sources[number]
        example = source[index % len(source)]
        own, all_classes = source.classes, self.classes
        places = np.array([all_classes.index(name) for name in own], np.int64)
        known = np.zeros(len(all_classes), bool)
        known[places] = True if example.known is None else example.known
        keypoints = example.keypoints
        if keypoints is not None and self.skeleton is not None and source.skeleton is not None:
            start = self._starts[source.skeleton]
            full = np.zeros((len(keypoints), len(self.skeleton.names), 3), np.float32)
            full[:, start : start + keypoints.shape[1]] = keypoints
            keypoints = full
        semantic = example.semantic
        if semantic is not None:
            names = (*all_classes, *self.stuff)
            table = np.full(256, VOID, np.uint8)
            mine = (*own, *source.stuff)
            table[: len(mine)] = [names.index(name) for name in mine]
            semantic = table[semantic]
        return dataclasses.replace(
            example,
            # Two sets may both have an image 1.jpg.
            name=f"{number}/{example.name}" if len(self.sources) > 1 else example.name,
            labels=places[example.labels] if len(example.labels) else example.labels,
            keypoints=keypoints,
            semantic=semantic,
            known=known,
        )

    @functools.cached_property
    def _starts(self) -> dict[Skeleton, int]:
        """Where each skeleton's points begin."""
        starts: dict[Skeleton, int] = {}
        total = 0
        for source in self.sources:
            if source.skeleton is not None and source.skeleton not in starts:
                starts[source.skeleton] = total
                total += len(source.skeleton.names)
        return starts


def join_skeletons(skeletons: Sequence[Skeleton]) -> Skeleton | None:
    """Skeletons behind one another as one, each once; None of none."""
    different = list(dict.fromkeys(skeletons))
    if len(different) < 2:
        return different[0] if different else None
    if any(not skeleton.classes for skeleton in different):
        raise UserError(
            "data sets with different skeletons are mixed, and one does not say which classes have its poses"
        )
    names: list[str] = []
    mirror: list[int] = []
    edges: list[tuple[int, int]] = []
    sigmas: list[float] = []
    classes: dict[str, None] = {}
    for skeleton in different:
        start = len(names)
        names += skeleton.names
        mirror += [start + point for point in skeleton.mirror]
        edges += [(start + a, start + b) for a, b in skeleton.edges]
        sigmas += skeleton.sigmas
        classes |= dict.fromkeys(skeleton.classes)
    return Skeleton(tuple(names), tuple(mirror), tuple(edges), tuple(sigmas), tuple(classes))
