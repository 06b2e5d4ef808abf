"""Several data sets as one: with weights, one list of classes, and whatever each of them knows of its images."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from ylosia_jax.data.records import near
from ylosia_jax.types import VOID, Example, Label, Skeleton, Source, UserError


@dataclasses.dataclass(frozen=True)
class Mapped:
    """A source in another space of labels, a `types.Source`.

    Its classes go by the names that `names` gives them; those that get the same one become one, and those that get an
    empty one are left out: their objects are background, their pixels void, their images without category. By name they
    find their numbers among the classes of the space; of the others there its images know nothing: they are neither
    learned nor scored. A category alone is one of all classes of the space, for an image has but one. Poses stand at
    their place in the wider skeleton, the points of other kinds without labels. Pixels of stuff that the space has not
    are void, and poses that it has not are not known.

    Attributes:
      source: what is mapped.
      classes, stuff, skeleton: of the space. All of the source's classes are among them, or left out.
      names: pairs of an old and a new name; classes and stuff that are not among them keep theirs.
    """

    source: Source
    classes: tuple[str, ...]
    stuff: tuple[str, ...]
    skeleton: Skeleton | None
    names: tuple[tuple[str, str], ...] = ()

    @property
    def labels(self) -> frozenset[Label]:
        """Those of the source, poses only where the space has them."""
        return self.source.labels if self._start is not None else self.source.labels - {"keypoint"}

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int, /) -> Example:
        example, places, things = self.source[index], self._places, len(self.source.classes)
        # Of a set of categories alone no object has a box.
        known = example.known if "box" in self.source.labels else np.zeros(things, bool)
        category = -1 if example.category is None else int(places[example.category])
        labels = places[np.asarray(example.labels, np.int64)]
        keep, masks, semantic = labels >= 0, example.masks, example.semantic
        return dataclasses.replace(
            example,
            boxes=example.boxes[keep],
            labels=labels[keep],
            crowd=example.crowd[keep],
            area=example.area[keep],
            masks=None if masks is None else tuple(itertools.compress(masks, keep)),
            keypoints=None if example.keypoints is None else self._posed(example.keypoints[keep]),
            semantic=None if semantic is None else self._table[semantic],
            known=_carried(known, places[:things], len(self.classes)),
            drawn=_carried(example.drawn, places, len(self.classes) + len(self.stuff)),
            category=category if category >= 0 else None,
        )

    @property
    def shapes(self) -> Int[np.ndarray, "n 2"]:
        """Heights and widths of the source's images."""
        return self.source.shapes

    def _posed(self, keypoints: Float[np.ndarray, "n j 3"]) -> Float[np.ndarray, "n J 3"] | None:
        if self._start is None or self.skeleton is None:
            return None
        full = np.zeros((len(keypoints), len(self.skeleton.names), 3), np.float32)
        full[:, self._start : self._start + keypoints.shape[1]] = keypoints
        return full

    @functools.cached_property
    def _places(self) -> Int[np.ndarray, " S"]:
        """Of each of the source's semantic classes in the space; -1 for what is left out, or for stuff not there."""
        things, stuff = (
            [_new_name(name, self.names) for name in part] for part in (self.source.classes, self.source.stuff)
        )
        for name in filter(None, things):
            if name not in self.classes:
                raise UserError(f"the class {name!r} is not among {list(self.classes)}")
        places = {name: i for i, name in enumerate((*self.classes, *self.stuff))}
        return np.array([places.get(name, -1) for name in (*things, *stuff)], np.int64)

    @functools.cached_property
    def _table(self) -> UInt8[np.ndarray, "256"]:
        """Of each value in a semantic map the value in the space."""
        table = np.full(256, VOID, np.uint8)
        table[: len(self._places)] = np.where(self._places >= 0, self._places, VOID)[:256]
        return table

    @functools.cached_property
    def _start(self) -> int | None:
        """Where the source's points begin in the space's skeleton; None where they do not stand."""
        own = _renamed_skeleton(self.source.skeleton, self.names)
        return None if own is None or self.skeleton is None else place_of(own, self.skeleton)


def renamed(source: Source, names: tuple[tuple[str, str], ...]) -> Mapped:
    """A source under other names, in the space that they make: things before stuff, in the order of the source.

    Args:
      names: as in `Mapped`.

    Raises:
      UserError: if the source has no class of an old name.
    """
    old = (*source.classes, *source.stuff)
    for name, _ in names:
        if name not in old:
            remedy = near(name, old) or f"; it has {', '.join(old)}"
            raise UserError(f"names has {name!r}, which is no class of the set{remedy}")
    classes, stuff = (
        tuple(dict.fromkeys(filter(None, (_new_name(name, names) for name in part))))
        for part in (source.classes, source.stuff)
    )
    stuff = tuple(name for name in stuff if name not in classes)
    return Mapped(source, classes, stuff, _renamed_skeleton(source.skeleton, names), names)


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

    @property
    def shapes(self) -> Int[np.ndarray, "n 2"]:
        """Heights and widths of the examples' images."""
        pairs = zip(self.sources, self.counts, strict=True)
        return np.concatenate([source.shapes[np.arange(count) % len(source)] for source, count in pairs])

    @functools.cached_property
    def _mapped(self) -> tuple[Mapped, ...]:
        return tuple(Mapped(source, self.classes, self.stuff, self.skeleton) for source in self.sources)


def _new_name(name: str, names: tuple[tuple[str, str], ...]) -> str:
    """The new name of a class; its own where none is given."""
    return dict(names).get(name, name)


def _renamed_skeleton(skeleton: Skeleton | None, names: tuple[tuple[str, str], ...]) -> Skeleton | None:
    """The skeleton of classes under other names; None once all that have it are left out."""
    if skeleton is None or not skeleton.classes:
        return skeleton
    posed = tuple(dict.fromkeys(filter(None, (_new_name(name, names) for name in skeleton.classes))))
    return dataclasses.replace(skeleton, classes=posed) if posed else None


def _carried(flags: Bool[np.ndarray, " s"] | None, places: Int[np.ndarray, " s"], count: int) -> Bool[np.ndarray, " S"]:
    """Flags of classes at their places among others: of several that became one, all have to hold."""
    found = places >= 0
    carried = np.zeros(count, bool)
    carried[places[found]] = True
    if flags is not None:
        carried[places[found & ~flags]] = False
    return carried


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
