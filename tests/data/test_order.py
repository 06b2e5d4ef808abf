"""Several canvases: which image goes where, and in which order."""

from collections import Counter

import numpy as np
import pytest

from ylosia_jax.data.mixture import Mixed
from ylosia_jax.data.order import assign_buckets, buckets_of, each_at_first, filled_canvases, in_turns
from ylosia_jax.data.pipeline import eval_batches, train_batches
from ylosia_jax.data.scenes import Scenes

LYING, UPRIGHT = (64, 96), (96, 64)
CANVASES = [LYING, UPRIGHT]
# Two sets, whose images lie, and one whose images stand.
SOURCE = Mixed(
    (
        Scenes(size=7, image_size=(100, 150)),
        Scenes(size=6, image_size=(150, 90)),
        Scenes("validation", size=4, image_size=(64, 80)),
    ),
    (7, 6, 4),
)

Seen = list[tuple[tuple[int, int], list[tuple[int, int]]]]


def read(count: int, **options: int) -> Seen:
    """Of each batch its canvas, and (epoch, index) of its images."""
    given = {"seed": 0, "batch_size": 4, **options}
    batches = train_batches(SOURCE, canvases=CANVASES, max_objects=32, **given)
    seen: Seen = []
    for _ in range(count):
        batch = next(batches)
        rows = zip(np.asarray(batch.epoch).tolist(), np.asarray(batch.index).tolist(), strict=True)
        seen.append(((batch.image.shape[1], batch.image.shape[2]), list(rows)))
    return seen


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((480, 640), 0), ((640, 480), 1), ((500, 500), 0), ((90, 4000), 0), ((4000, 90), 1), ((1, 1), 0)],
)
def test_an_image_goes_where_it_is_largest(size: tuple[int, int], wanted: int) -> None:
    assert assign_buckets(np.array([size]), [(800, 1344), (1344, 800)]).tolist() == [wanted]


def test_of_canvases_that_show_it_as_large_it_takes_the_smallest() -> None:
    assert assign_buckets(np.array([(100, 300)]), [(128, 96), (96, 96), (64, 96)]).tolist() == [2]


def test_one_canvas_asks_for_no_shapes() -> None:
    assert list(buckets_of([None] * 3, [LYING])[0]) == [0, 1, 2]  # type: ignore[arg-type]


def test_the_shapes_of_a_mixture_are_those_of_its_examples() -> None:
    weighted = Mixed(SOURCE.sources, (1.0, 2.0, 1.0))
    for source in (SOURCE, weighted):
        assert source.shapes.tolist() == [list(source[i].image.shape[:2]) for i in range(len(source))]


@pytest.mark.parametrize("counts", [[5], [7, 2], [3, 0, 9], [4, 4, 1]])
def test_turns_are_taken_evenly(counts: list[int]) -> None:
    """After any number of turns nobody is more than one ahead or behind; each has its own in order."""
    whose, total, seen = in_turns(counts), sum(counts), Counter[int]()
    for i in range(3 * total):
        number, nth = whose(i)
        assert nth == seen[number]
        seen[number] += 1
        for each, count in enumerate(counts):
            assert abs(seen[each] - (i + 1) * count / total) <= 1


@pytest.mark.parametrize("counts", [[5], [40, 2], [9, 3, 9], [1, 30, 4]])
def test_every_canvas_has_one_of_the_first_batches(counts: list[int]) -> None:
    whose, natural, total = each_at_first(counts), in_turns(counts), sum(counts)
    early = [whose(i) for i in range(2 * total)]
    assert sorted(early[: len(counts)]) == [(number, 0) for number in range(len(counts))]
    # The others keep their order, and after as many turns as there are everybody has had all of its own.
    rest = [turn for turn in map(natural, range(2 * total)) if turn[1] > 0]
    assert early[len(counts) :] == rest


def test_a_canvas_without_a_batch_of_images_is_not_used_in_training() -> None:
    assert list(filled_canvases(SOURCE, CANVASES, 6)) == CANVASES
    assert list(filled_canvases(SOURCE, CANVASES, 7)) == [LYING]
    assert list(filled_canvases(SOURCE, CANVASES, 100)) == [LYING]
    seen = read(17, batch_size=8)
    assert {canvas for canvas, _ in seen} == {LYING}
    assert Counter(row for _, rows in seen for row in rows) == {(e, i): 1 for e in range(8) for i in range(17)}


def test_every_batch_is_of_one_canvas_and_every_image_is_seen_as_often() -> None:
    # 17 images: 17 batches of four pass over all of them four times.
    seen = read(17)
    for canvas, rows in seen:
        own = range(7, 13) if canvas == UPRIGHT else [*range(7), *range(13, 17)]
        assert {index for _, index in rows} <= set(own)
    assert Counter(row for _, rows in seen for row in rows) == {(e, i): 1 for e in range(4) for i in range(17)}
    assert seen == read(17)
    assert seen != read(17, seed=1)


def test_the_sets_of_a_mixture_take_turns_within_a_canvas() -> None:
    lying = [index for canvas, rows in read(17) for _, index in rows if canvas == LYING]
    for i in range(1, len(lying) + 1):
        assert abs(sum(index < 7 for index in lying[:i]) - i * 7 / 11) <= 1


@pytest.mark.parametrize("processes", [2, 4])
def test_hosts_share_the_same_batches(processes: int) -> None:
    hosts = [read(9, process=i, processes=processes) for i in range(processes)]
    joined = [(parts[0][0], [row for _, rows in parts for row in rows]) for parts in zip(*hosts, strict=True)]
    assert joined == read(9)


def test_an_iterator_goes_on_where_it_stood() -> None:
    def fresh():
        return train_batches(SOURCE, canvases=CANVASES, max_objects=32, seed=3, batch_size=4, cache=1 << 20)

    one, two = fresh(), fresh()
    for _ in range(6):
        next(one)
    two.set_state(one.get_state())
    for _ in range(4):
        a, b = next(one), next(two)
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.index, b.index)


@pytest.mark.parametrize("processes", [1, 3])
def test_evaluation_sees_each_image_once_and_hosts_have_the_same_shapes(processes: int) -> None:
    names: list[str] = []
    shapes: list[list[tuple[int, ...]]] = []
    for process in range(processes):
        batches = list(eval_batches(SOURCE, canvases=CANVASES, batch_size=6, process=process, processes=processes))
        shapes.append([batch.image.shape for batch, _ in batches])
        for batch, examples in batches:
            index = np.asarray(batch.index)[: len(examples)]
            assert [SOURCE[i].name for i in index] == [item.name for item in examples]
            names += [item.name for item in examples]
    assert all(each == shapes[0] for each in shapes)
    assert sorted(names) == sorted(SOURCE[i].name for i in range(17))


def test_a_canvas_that_no_image_takes_makes_no_batch() -> None:
    source = Scenes(size=5, image_size=(64, 80))
    assert [b.image.shape[1:3] for b, _ in eval_batches(source, canvases=CANVASES, batch_size=2)] == [LYING] * 3
    batches = train_batches(source, canvases=CANVASES, batch_size=2, max_objects=32, seed=0, steps=5)
    assert [batch.image.shape[1:3] for batch in batches] == [LYING] * 5
