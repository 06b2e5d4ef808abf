from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ylosia_jax.data.augment import Augment, augment
from ylosia_jax.data.pipeline import Needs, eval_batches, prepare, stack
from ylosia_jax.data.regions import SelectiveSearch
from ylosia_jax.data.scenes import Scenes
from ylosia_jax.ops import boxes as box_ops

SEARCH = SelectiveSearch(side=160, count=300, min_side=4)
SCENES = Scenes("train", size=4, image_size=(96, 128))


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("YLOSIA_DATA_DIR", str(tmp_path))
    return tmp_path


def test_the_same_image_has_the_same_regions_and_is_searched_once(root: Path, monkeypatch) -> None:
    image = SCENES[0].image
    found = SEARCH(image)
    (kept,) = root.rglob("*.npy")
    kept.unlink()
    np.testing.assert_array_equal(SEARCH(image), found)
    monkeypatch.setattr(SelectiveSearch, "_search", lambda *_: pytest.fail("searched again"))
    np.testing.assert_array_equal(SEARCH(image), found)


def test_a_damaged_memory_is_searched_again(root: Path) -> None:
    found = SEARCH(SCENES[0].image)
    (kept,) = root.rglob("*.npy")
    kept.write_bytes(kept.read_bytes()[:-7])
    np.testing.assert_array_equal(SEARCH(SCENES[0].image), found)


def test_a_memory_that_cannot_be_written_costs_time_only(root: Path) -> None:
    (root / ".regions").write_text("in the way")
    assert len(SEARCH(SCENES[0].image))


def test_regions_lie_in_the_image_and_find_most_objects() -> None:
    recalled, objects = 0, 0
    for example in SCENES:
        found = SEARCH(example.image)
        height, width = example.image.shape[:2]
        assert found.shape[1] == 4
        assert found.dtype == np.float32
        assert len(found) <= SEARCH.count
        assert (found >= 0).all()
        assert (found <= [width, height, width, height]).all()
        assert ((found[:, 2:] - found[:, :2]) >= SEARCH.min_side).all()
        recalled += int((np.asarray(box_ops.pairwise_iou(example.boxes, found)).max(axis=1) >= 0.5).sum())
        objects += len(example.boxes)
    assert recalled >= 0.6 * objects


def test_quality_finds_more_than_fast() -> None:
    image = SCENES[1].image
    fast, quality = (SelectiveSearch(mode, side=128, count=5000)(image) for mode in ("fast", "quality"))
    assert len(quality) > len(fast)


def test_an_even_image_has_few_regions_or_none() -> None:
    assert len(SEARCH(np.full((64, 64, 3), 128, np.uint8))) <= 1


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="count is 0: give at least 1"):
        SelectiveSearch(count=0)


def test_a_batch_has_them_in_pixels_of_its_canvas() -> None:
    example = SCENES[0]
    batch = stack([prepare(example, 0, 0, (64, 64), 16, Needs(regions=SEARCH))])
    found = SEARCH(example.image)
    assert batch.regions is not None
    assert batch.regions.boxes.shape == (1, 300, 4)
    assert batch.regions.valid.sum() == len(found)
    np.testing.assert_allclose(batch.regions.boxes[0, : len(found)], found * 0.5, atol=1e-4)
    assert (batch.regions.boxes[0, len(found) :] == 0).all()
    for shown, _ in eval_batches(SCENES, canvases=[(64, 64)], batch_size=3, regions=SEARCH):
        assert shown.regions.valid.shape == (3, 300)


def test_they_move_with_the_objects() -> None:
    examples = [prepare(example, i, 0, (96, 128), 16, Needs(regions=SEARCH)) for i, example in enumerate(SCENES)]
    batch = stack(examples)
    # Regions that are the objects themselves go where the objects go.
    regions = batch.regions
    boxes, valid = np.zeros_like(regions.boxes), np.zeros_like(regions.valid)
    boxes[:, :16], valid[:, :16] = batch.objects.boxes, batch.objects.valid
    batch = batch.replace(regions=regions.replace(boxes=boxes, valid=valid))
    config = Augment(flip=0.5, flip_vertical=0.5, scale=(0.6, 1.6), translate=0.2)
    moved = jax.jit(lambda batch: augment(config, batch, 3, 0.0))(jax.tree.map(jnp.asarray, batch))
    np.testing.assert_array_equal(moved.regions.boxes[:, :16], moved.objects.boxes)
    np.testing.assert_array_equal(moved.regions.valid[:, :16], moved.objects.valid)
    assert not moved.regions.valid[:, 16:].any()
