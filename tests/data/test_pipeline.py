import dataclasses
from collections.abc import Callable
from typing import Any

import grain
import jax
import numpy as np
import pytest

from ylosia_jax.data.pipeline import Letterbox, Style, canvas_of, eval_batches, prepare, train_batches
from ylosia_jax.data.scenes import Scenes
from ylosia_jax.types import Batch, Example

CANVAS = (32, 32)


def example(height: int, width: int, boxes: list[list[float]], name: str = "a") -> Example:
    rows = np.array(boxes, np.float32).reshape(-1, 4)
    sides = rows[:, 2:] - rows[:, :2]
    return Example(
        image=np.full((height, width, 3), 200, np.uint8),
        name=name,
        boxes=rows,
        labels=np.arange(len(rows)),
        crowd=np.zeros(len(rows), bool),
        area=sides[:, 0] * sides[:, 1],
    )


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (100, 100), (7, 301), (301, 7), (1, 1), (33, 31)])
@pytest.mark.parametrize("canvas", [(320, 320), (64, 96), (320, 256)])
def test_letterbox_keeps_the_aspect_and_is_undone_exactly(size: tuple[int, int], canvas: tuple[int, int]) -> None:
    box = Letterbox.fit(size, canvas)
    assert all(0 < side <= limit for side, limit in zip(box.extent, canvas, strict=True))
    assert any(side == limit for side, limit in zip(box.extent, canvas, strict=True))
    ideal = min(canvas[0] / size[0], canvas[1] / size[1])
    np.testing.assert_allclose(box.extent, np.maximum(np.array(size) * ideal, 1), atol=0.5)
    whole = np.array([[0, 0, size[1], size[0]]], np.float32)
    np.testing.assert_array_equal(box.encode(whole), [[0, 0, box.extent[1], box.extent[0]]])
    inside = np.random.default_rng(0).uniform(0, 1, (50, 4)) * np.tile(size[::-1], 2)
    np.testing.assert_allclose(box.decode(box.encode(inside)), inside, rtol=1e-5, atol=1e-4)


def test_letterbox_draws_the_picture_top_left_and_grey_elsewhere() -> None:
    for style, grey in ((Style(), 114), (Style(fill=7), 7)):
        page = prepare(example(10, 20, []), 0, 0, CANVAS, 4, style=style).image
        assert (page[:16] == 200).all()
        assert (page[16:] == grey).all()


@pytest.mark.parametrize("size", [(480, 640), (427, 640), (301, 7), (1, 1), (200, 333)])
def test_the_bilinear_letterbox_rounds_down_and_scales_both_ways_alike(size: tuple[int, int]) -> None:
    box = Letterbox.fit(size, (416, 416), Style("bilinear"))
    ratio = 416 / max(size)
    assert box.extent == tuple(max(int(side * 416) // max(size), 1) for side in size)
    np.testing.assert_allclose(box.scale, [ratio] * 4, rtol=1e-12)
    inside = np.random.default_rng(0).uniform(0, 1, (50, 4)) * np.tile(size[::-1], 2)
    np.testing.assert_allclose(box.decode(box.encode(inside)), inside, rtol=1e-5, atol=1e-4)


def test_a_picture_is_stretched_over_its_canvas_and_brought_back() -> None:
    for resize in ("area", "bilinear"):
        item = example(50, 200, [[20, 10, 60, 50]])
        batch = prepare(item, 0, 0, CANVAS, 1, style=Style(resize, stretch=True))
        height, width = CANVAS
        np.testing.assert_array_equal(batch.extent, CANVAS)
        np.testing.assert_allclose(batch.objects.boxes, [[width / 10, height / 5, width * 0.3, height]], rtol=1e-6)
        box = Letterbox.fit((50, 200), CANVAS, Style(resize, stretch=True))
        np.testing.assert_allclose(box.decode(np.asarray(batch.objects.boxes)), item.boxes, rtol=1e-6)


def test_what_is_stretched_one_way_and_shrunk_the_other_is_averaged_and_interpolated() -> None:
    stripes = np.zeros((50, 640, 3), np.uint8)
    stripes[:, ::2] = 200
    box = Letterbox.fit((50, 640), (60, 64), Style(stretch=True))
    np.testing.assert_array_equal(box.apply(stripes, (60, 64)), 100)
    ramp = np.repeat(np.arange(0, 200, 2, dtype=np.uint8)[:, None], 300, axis=1)[..., None].repeat(3, axis=-1)
    drawn = Letterbox.fit((100, 300), (300, 100), Style(stretch=True)).apply(ramp, (300, 100))[:, 0, 0].astype(int)
    assert np.diff(drawn).max() == 1


def test_a_picture_shrinks_as_is_asked() -> None:
    # Of every four rows the bilinear pixel lies between the second and the third.
    image = np.tile(np.array([[[240]], [[80]], [[40]], [[240]]], np.uint8), (32, 128, 3))
    item = dataclasses.replace(example(128, 128, []), image=image)
    assert (prepare(item, 0, 0, CANVAS, 1).image == 150).all()
    assert (prepare(item, 0, 0, CANVAS, 1, style=Style("bilinear")).image == 60).all()
    batch, _ = next(eval_batches([item], canvases=[CANVAS], batch_size=1, style=Style("bilinear")))  # type: ignore[arg-type]
    assert (batch.image == 60).all()


def test_boxes_sit_on_the_same_pixels_after_the_letterbox() -> None:
    image = np.zeros((40, 80, 3), np.uint8)
    image[10:30, 20:60] = 255
    item = dataclasses.replace(example(40, 80, [[20, 10, 60, 30]]), image=image)
    batch = prepare(item, 0, 0, CANVAS, 1)
    x0, y0, x1, y1 = np.asarray(batch.objects.boxes[0]).astype(int)
    assert (x0, y0, x1, y1) == (8, 4, 24, 12)
    assert (batch.image[y0:y1, x0:x1] == 255).all()
    assert batch.image[:16].astype(int).sum() == 255 * 3 * (x1 - x0) * (y1 - y0)


def test_padding_is_zero_and_not_valid() -> None:
    objects = prepare(example(32, 32, [[0, 0, 8, 8], [4, 4, 9, 9]]), 0, 0, CANVAS, 5).objects
    np.testing.assert_array_equal(objects.valid, [True, True, False, False, False])
    assert not np.asarray(objects.boxes[2:]).any()


def test_too_many_objects_keep_the_largest_and_warn() -> None:
    item = example(32, 32, [[0, 0, 4, 4], [0, 0, 9, 9], [0, 0, 2, 2], [0, 0, 8, 8]])
    with pytest.warns(UserWarning, match="4 objects, and data.max_objects is 2"):
        objects = prepare(item, 0, 0, CANVAS, 2).objects
    np.testing.assert_array_equal(objects.labels, [1, 3])


def rows(batch: Batch) -> list[tuple[int, int]]:
    return list(zip(np.asarray(batch.epoch).tolist(), np.asarray(batch.index).tolist(), strict=True))


@pytest.fixture
def stream() -> Callable[..., list[list[tuple[int, int]]]]:
    source = Scenes("train", size=10, image_size=(64, 64))

    def read(count: int, **options: int) -> list[list[tuple[int, int]]]:
        batches = train_batches(source, canvases=[CANVAS], max_objects=32, **{"seed": 0, "batch_size": 4, **options})
        return [rows(next(batches)) for _ in range(count)]

    return read


def test_every_epoch_sees_every_example_once_in_a_new_order(stream: Callable[..., list[list[tuple[int, int]]]]) -> None:
    seen = [row for batch in stream(5) for row in batch]
    assert sorted(seen) == [(epoch, index) for epoch in (0, 1) for index in range(10)]
    first, second = ([index for epoch, index in seen if epoch == e] for e in (0, 1))
    assert first != second
    assert stream(5) == stream(5)
    assert stream(5) != stream(5, seed=1)


def test_the_global_batch_is_the_same_for_any_number_of_hosts(
    stream: Callable[..., list[list[tuple[int, int]]]],
) -> None:
    hosts = [stream(6, process=i, processes=2) for i in range(2)]
    assert [a + b for a, b in zip(*hosts, strict=True)] == stream(6)


def test_a_restored_iterator_goes_on_where_it_stood() -> None:
    def fresh() -> grain.DatasetIterator:
        return train_batches(
            Scenes("train", size=10, image_size=(64, 64)), canvases=[CANVAS], max_objects=32, seed=3, batch_size=4
        )

    one = fresh()
    for _ in range(7):
        next(one)
    state = one.get_state()
    expected = [next(one) for _ in range(3)]
    two = fresh()
    two.set_state(state)
    for batch in expected:
        jax.tree.map(np.testing.assert_array_equal, next(two), batch)


@pytest.mark.parametrize("room", [0, 3, 10])
def test_what_is_kept_in_memory_is_not_read_again(room: int) -> None:
    scenes = Scenes("train", size=10, image_size=(64, 64))
    read: list[int] = []

    class Counted(Scenes):
        def __getitem__(self, index: int, /) -> Example:
            read.append(index)
            return super().__getitem__(index)

    options: dict[str, Any] = {"canvases": [CANVAS], "max_objects": 32, "seed": 3, "batch_size": 5, "steps": 6}
    plain = train_batches(scenes, **options)
    kept = train_batches(
        Counted("train", size=10, image_size=(64, 64)), **options, threads=1, cache=room * CANVAS[0] * CANVAS[1] * 5
    )
    for _ in range(6):
        jax.tree.map(np.testing.assert_array_equal, next(kept), next(plain))
    assert len(read) == 30 - 2 * room
    with pytest.raises(StopIteration):
        next(kept)


def test_a_batch_that_the_hosts_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match=r"batch_size 5 is not divisible by the 2 hosts"):
        train_batches(Scenes(size=4), canvases=[CANVAS], max_objects=32, seed=0, batch_size=5, processes=2)


@pytest.mark.parametrize("processes", [1, 2])
def test_evaluation_sees_each_image_once_and_all_hosts_run_as_long(processes: int) -> None:
    source = Scenes("validation", size=9, image_size=(64, 96))
    names: list[str] = []
    lengths: set[int] = set()
    for process in range(processes):
        batches = list(eval_batches(source, canvases=[CANVAS], batch_size=4, process=process, processes=processes))
        lengths.add(len(batches))
        for batch, examples in batches:
            assert batch.image.shape == (4 // processes, *CANVAS, 3)
            assert np.asarray(batch.index).tolist()[len(examples) :] == [-1] * (4 // processes - len(examples))
            names += [item.name for item in examples]
    assert len(lengths) == 1
    assert sorted(names) == [source[i].name for i in range(9)]


def test_one_number_is_a_square_canvas() -> None:
    assert canvas_of(64) == (64, 64)
    assert canvas_of((64, 96)) == (64, 96)
