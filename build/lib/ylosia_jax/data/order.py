"""Which example comes when, and on which canvas: functions of the place in the run alone, on any number of hosts."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import grain
import numpy as np
from jaxtyping import Int

from ylosia_jax.types import Source


def assign_buckets(shapes: Int[np.ndarray, "n 2"], canvases: Sequence[tuple[int, int]]) -> Int[np.ndarray, " n"]:
    """Which canvas shows each picture largest: an upright one is small on a canvas that lies. Of equals, the smallest.

    Args:
      shapes: (height, width) of the pictures in pixels.
      canvases: (height, width) of each.
    """
    sides = np.array(canvases)
    order = np.argsort(sides.prod(axis=1), kind="stable")
    ratios = (sides[order] / np.asarray(shapes)[:, None]).min(axis=-1)
    return order[ratios.argmax(axis=1)]


def buckets_of(source: Source, canvases: Sequence[tuple[int, int]]) -> list[Int[np.ndarray, " _"]]:
    """The places in the source, ascending, of the images of each canvas."""
    if len(canvases) == 1:
        return [np.arange(len(source))]
    own = assign_buckets(source.shapes, canvases)
    return [np.flatnonzero(own == number) for number in range(len(canvases))]


def filled_canvases(source: Source, canvases: Sequence[tuple[int, int]], batch_size: int) -> Sequence[tuple[int, int]]:
    """Those canvases that have enough images for a batch; the others' images go to these."""
    while len(canvases) > 1:
        counts = [len(own) for own in buckets_of(source, canvases)]
        fewest = min(range(len(canvases)), key=counts.__getitem__)
        if counts[fewest] >= batch_size:
            break
        canvases = [canvas for number, canvas in enumerate(canvases) if number != fewest]
    return canvases


def shuffled(counts: Sequence[int], seed: int) -> Callable[[int], int]:
    """The place in the source of the i-th example of a run, whose sets of so many images stand behind one another.

    In each pass every set is in an order of its own, and the sets take turns in proportion to their images. The same
    seed gives the same order; one set alone is in Grain's own.

    Args:
      counts: images of each set.
    """
    ends = np.cumsum(counts)
    sets: list[Any] = [
        # Of nothing there is no order.
        grain.MapDataset.range(int(end) - count, int(end)).shuffle(seed=seed + number).repeat() if count else None
        for number, (count, end) in enumerate(zip(counts, ends, strict=True))
    ]
    whose = in_turns(counts)

    def place(i: int) -> int:
        number, nth = whose(i)
        return int(sets[number][nth])

    return place


def in_turns(counts: Sequence[int]) -> Callable[[int], tuple[int, int]]:
    """Several that take turns, as evenly as their numbers allow: whose the i-th turn is, and which of its own it is."""
    ends = np.cumsum(counts)
    starts = ends - counts
    turns = np.argsort(np.concatenate([(np.arange(count) + 0.5) / count for count in counts]), kind="stable")

    def whose(i: int) -> tuple[int, int]:
        passed, turn = divmod(i, len(turns))
        number = int(np.searchsorted(ends, turns[turn], side="right"))
        return number, passed * counts[number] + int(turns[turn]) - int(starts[number])

    return whose


def each_at_first(counts: Sequence[int]) -> Callable[[int], tuple[int, int]]:
    """`in_turns`, but everybody's first turn comes at the very beginning."""
    whose = in_turns(counts)
    firsts = sorted(next(i for i in itertools.count() if whose(i)[0] == number) for number in range(len(counts)))

    def early(i: int) -> tuple[int, int]:
        if i < len(firsts):
            return whose(firsts[i])
        i -= len(firsts)
        for first in firsts:
            i += i >= first
        return whose(i)

    return early
