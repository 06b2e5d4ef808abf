"""Several data sets as one: with weights, one list of classes, and whatever each of them knows of its images."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from ylosia_jax.types import VOID, Example, Label, Skeleton, Source, UserError


@dataclasses.dataclass(frozen=True)
class Mapped:
    """A source in a wider space of labels, a `types.Source`.

    Its classes get the numbers that they have among the wider ones; of the others its images know nothing: they are
    neither learned nor scored there. Its poses stand at their place in the wider skeleton, the points of other kinds
    without labels. Pixels of stuff that the wider space has not are void, and poses that it has not are not known.

    Attributes:
      source: what is mapped.
      classes, stuff, skeleton: of the wider space. All of the source's classes are among them.
    """

    source: Source
    classes: tuple[str, ...]
    stuff: tuple[str, ...]
    skeleton: Skeleton | None

    @property
    def labels(self) -> frozenset[Label]:
        """Those of the source."""
        return self.source.labels

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int, /) -> Example:
        example, own = self.source[index], self._places
        known, drawn = np.zeros(len(self.classes), bool), np.zeros(len(self.classes) + len(self.stuff), bool)
        known[own[: len(self.source.classes)]] = True if example.known is None else example.known
        drawn[own[own >= 0]] = True if example.drawn is None else example.drawn[own >= 0]
        keypoints, start = example.keypoints, self._start
        if start is None or self.skeleton is None:
            keypoints = None
        elif keypoints is not None:
            full = np.zeros((len(keypoints), len(self.skeleton.names), 3), np.float32)
            full[:, start : start + keypoints.shape[1]] = keypoints
            keypoints = full
        labels = own[example.labels] if len(example.labels) else example.labels
        semantic = _relabelled(example.semantic, own)
        return dataclasses.replace(
            example, labels=labels, keypoints=keypoints, semantic=semantic, known=known, drawn=drawn
        )

    @functools.cached_property
    def _places(self) -> Int[np.ndarray, " S"]:
        """Of each of the source's semantic classes among the wider ones; -1 for stuff that is not there."""
        names = {name: i for i, name in enumerate((*self.classes, *self.stuff))}
        things, stuff = ([names.get(name, -1) for name in part] for part in (self.source.classes, self.source.stuff))
        if -1 in things:
            raise UserError(f"the class {self.source.classes[things.index(-1)]!r} is not among {list(self.classes)}")
        return np.array([*things, *stuff], np.int64)

    @functools.cached_property
    def _start(self) -> int | None:
        """Where the source's points begin in the wider skeleton; None where they do not stand."""
        own, whole = self.source.skeleton, self.skeleton
        return None if own is None or whole is None else place_of(own, whole)


@dataclasses.dataclass(frozen=True)
class Renamed:
    """A source whose classes go by other names, a `types.Source`.

    Classes of one new name become one, things before stuff; those with an empty one are left out: their objects are
    background, their pixels void.

    Attributes:
      source: what is renamed.
      names: pairs of an old and a new name; classes that are not among them keep theirs.
      classes, stuff, skeleton: see `types.Source`, in new names.
    """

    source: Source
    names: tuple[tuple[str, str], ...]
    classes: tuple[str, ...] = dataclasses.field(init=False)
    stuff: tuple[str, ...] = dataclasses.field(init=False)
    skeleton: Skeleton | None = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        new, old = dict(self.names), (*self.source.classes, *self.source.stuff)
        for name in new:
            if name not in old:
                raise UserError(f"names has {name!r}, which is no class of the set; it has {', '.join(old)}")
        classes, stuff = (
            tuple(dict.fromkeys(filter(None, (new.get(name, name) for name in part))))
            for part in (self.source.classes, self.source.stuff)
        )
        skeleton = self.source.skeleton
        if skeleton is not None:
            posed = tuple(dict.fromkeys(filter(None, (new.get(name, name) for name in skeleton.classes))))
            skeleton = dataclasses.replace(skeleton, classes=posed)
        derived = {
            "classes": classes,
            "stuff": tuple(name for name in stuff if name not in classes),
            "skeleton": skeleton,
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)  # the way of a frozen dataclass

    @property
    def labels(self) -> frozenset[Label]:
        """Those of the source."""
        return self.source.labels

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int, /) -> Example:
        example, places = self.source[index], self._places
        labels = places[example.labels] if len(example.labels) else example.labels
        keep, masks, keypoints = labels >= 0, example.masks, example.keypoints
        return dataclasses.replace(
            example,
            boxes=example.boxes[keep],
            labels=labels[keep],
            crowd=example.crowd[keep],
            area=example.area[keep],
            masks=None if masks is None else tuple(itertools.compress(masks, keep)),
            keypoints=None if keypoints is None else keypoints[keep],
            semantic=_relabelled(example.semantic, places),
        )

    @functools.cached_property
    def _places(self) -> Int[np.ndarray, " S"]:
        """Of each of the source's semantic classes among the new ones; -1 for those that are left out."""
        new, places = dict(self.names), {name: i for i, name in enumerate((*self.classes, *self.stuff))}
        old = (*self.source.classes, *self.source.stuff)
        return np.array([places.get(new.get(name, name), -1) for name in old], np.int64)


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
        source = self._mapped[number]
        example = source[index % len(source)]
        # Two sets may both have an image 1.jpg.
        name = f"{number}/{example.name}" if len(self.sources) > 1 else example.name
        return dataclasses.replace(example, name=name, source=number)

    @functools.cached_property
    def _mapped(self) -> tuple[Mapped, ...]:
        return tuple(Mapped(source, self.classes, self.stuff, self.skeleton) for source in self.sources)


def _relabelled(semantic: np.ndarray | None, places: np.ndarray) -> np.ndarray | None:
    """A semantic map whose classes have moved to other places; VOID, and what has no place, is VOID."""
    if semantic is None:
        return None
    table = np.full(256, VOID, np.uint8)
    table[: len(places)] = np.where(places >= 0, places, VOID)[:256]
    return table[semantic]


def place_of(part: Skeleton, whole: Skeleton) -> int | None:
    """Where the points of one of the skeletons that `join_skeletons` joined begin; None if it was not among them."""
    count = len(part.names)
    for start in range(len(whole.names) - count + 1):
        here = slice(start, start + count)
        mirror = tuple(start + point for point in part.mirror)
        edges = {(start + a, start + b) for a, b in part.edges}
        # Points of one name in two sets need not be the same; where all of this is, they are.
        if (
            (whole.names[here], whole.sigmas[here], whole.mirror[here]) == (part.names, part.sigmas, mirror)
            and edges == {(a, b) for a, b in whole.edges if start <= a < start + count}
            and set(part.classes) <= set(whole.classes)
        ):
            return start
    return None


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
