import hashlib
import itertools

import numpy as np
import pytest

from ylosia_jax.data import scenes
from ylosia_jax.data.scenes import CLASSES, Scenes, draw
from ylosia_jax.data.scenes_grounds import STUFF
from ylosia_jax.types import Example, UserError


@pytest.fixture(scope="module")
def drawn() -> list[scenes.Scene]:
    return [draw(0, "train", index, (160, 160)) for index in range(200)]


@pytest.fixture(scope="module")
def examples(drawn) -> list[Example]:
    return [scenes.truth(scene, "") for scene in drawn]


def digest(example: Example) -> str:
    numbers = (example.boxes, example.labels[:, None], example.area[:, None])
    return hashlib.sha256(np.concatenate(numbers, axis=1).astype("<i4").tobytes()).hexdigest()


def assert_same(a: Example, b: Example) -> None:
    assert a.name == b.name
    for field in ("image", "boxes", "labels", "crowd", "area"):
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


def test_scene_depends_on_nothing_but_its_index():
    forwards = [Scenes(size=6)[index] for index in range(6)]
    source = Scenes(size=9)
    for index in (5, 0, 3, 3):
        assert_same(source[index], forwards[index])
        assert_same(source[np.int64(index)], forwards[index])


def test_truth_is_the_same_on_every_machine():
    truths = [digest(Scenes(split, 12)[index]) for split in ("train", "validation", "test") for index in range(12)]
    assert (
        hashlib.sha256("".join(truths).encode()).hexdigest()
        == "818803154229cf0c3dcf860ea9ed8f594d9f21db62c146ca784b90e21f0f2536"
    )


def test_splits_and_seeds_share_no_scene():
    sets = [
        {digest(source[index]) for index in range(20)}
        for source in (Scenes("train", 20), Scenes("validation", 20), Scenes("test", 20), Scenes(size=20, seed=1))
    ]
    assert [len(digests) for digests in sets] == [20] * 4
    assert not any(a & b for a, b in itertools.combinations(sets, 2))


def test_example_has_the_types_of_a_source():
    example = Scenes(size=8)[7]
    n = len(example.labels)
    assert Scenes().classes == ("person", "ball", "crate", "star", "ring", "leaf")
    assert (example.image.shape, example.image.dtype) == ((160, 160, 3), np.uint8)
    assert (example.boxes.shape, example.boxes.dtype) == ((n, 4), np.float32)
    assert (example.area.shape, example.area.dtype) == ((n,), np.float32)
    assert np.issubdtype(example.labels.dtype, np.integer)
    assert example.image.flags.c_contiguous
    assert not example.crowd.any()
    assert len({Scenes(size=8)[index].name for index in range(8)}) == 8


def test_box_and_area_are_those_of_the_visible_mask(drawn, examples):
    for scene, example in zip(drawn, examples, strict=True):
        assert set(np.unique(scene.instances)) - {0} == set(range(1, 1 + len(scene.things)))
        for number, (box, area) in enumerate(zip(example.boxes, example.area, strict=True), 1):
            y, x = np.nonzero(scene.instances == number)
            assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
            assert area == len(x)


def test_nearer_things_hide_farther_ones_but_never_most_of_them(drawn):
    hidden = 0
    for scene in drawn:
        padded = np.pad(scene.instances, 200)
        for number, thing in enumerate(scene.things, 1):
            (x, y), (h, w) = thing.origin, thing.mask.shape
            inside = np.pad(np.ones((160, 160), bool), 200)[y + 200 : y + 200 + h, x + 200 : x + 200 + w]
            seen = padded[y + 200 : y + 200 + h, x + 200 : x + 200 + w]
            on_it = seen[thing.mask & inside]
            assert ((on_it > 0) & (on_it <= number)).all()
            assert (seen[~thing.mask] != number).all()
            assert np.count_nonzero(seen == number) >= 0.5 * np.count_nonzero(thing.mask)
            hidden += (on_it < number).any()
    assert hidden > 200


def test_pixels_show_what_the_mask_says(drawn):
    for thing in [scene.things[0] for scene in drawn[:50]]:
        image = np.full((3, 160, 160), 1e6, np.float32)
        scenes._paint(image, thing)
        (x, y), cover = thing.origin, thing.layer[..., 3]
        expected = np.zeros((160, 160), bool)
        for row, column in np.argwhere(cover == 240):
            if 0 <= y + row < 160 and 0 <= x + column < 160:
                expected[y + row, x + column] = True
        np.testing.assert_array_equal(image.max(axis=0) < 1000, expected)


def test_things_are_painted_from_the_farthest_to_the_nearest(monkeypatch):
    painted = []
    monkeypatch.setattr(scenes, "_paint", lambda image, thing: painted.append(thing))
    things = draw(0, "train", 0, (160, 160)).things
    assert len(things) > 1
    assert [id(thing) for thing in reversed(painted)] == [id(thing) for thing in things]


def test_masks_lie_where_the_geometry_says(drawn):
    offsets = []
    for thing in [thing for scene in drawn for thing in scene.things if CLASSES[thing.label] == "ball"]:
        y, x = np.nonzero(thing.mask)
        offsets.append(np.array([x.mean(), y.mean()]) + 0.5 + thing.origin - thing.centre)
        # One pixel of outline, two round the large, and the quarter of a subpixel that OpenCV adds.
        assert 0.9 < np.sqrt(len(x) / np.pi) - thing.radius < 2.5
    # Pixel edges are whole numbers: taking them for pixel centres would shift a mask by an eighth of a pixel or more.
    assert np.abs(np.mean(offsets, axis=0)).max() < 0.05


@pytest.mark.parametrize("side", [64, 160])
def test_joints_lie_on_their_person_or_behind_a_nearer_thing(side):
    visible, occluded, outside = 0, 0, 0
    for index in range(100):
        scene = draw(0, "train", index, (side, side))
        for number, thing in enumerate(scene.things, 1):
            assert (thing.joints is not None) == (CLASSES[thing.label] == "person")
            if thing.joints is None:
                continue
            assert thing.joints.shape == (17, 2)
            for x, y in np.floor(thing.joints).astype(int):
                if 0 <= x < side and 0 <= y < side:
                    assert 0 < scene.instances[y, x] <= number
                    visible += scene.instances[y, x] == number
                    occluded += scene.instances[y, x] < number
                else:
                    outside += 1
    assert min(visible, occluded, outside) > 50


def test_joints_are_in_the_order_of_coco():
    rng = np.random.default_rng(0)
    for _ in range(50):
        figure = scenes.FIGURES[0](rng)
        assert figure.joints is not None
        left, right = figure.joints[1::2], figure.joints[2::2]
        # Facing us, a person has the left eye, ear, shoulder, …, ankle on the picture's right; arms may not cross.
        assert (left[[0, 1, 2, 5]] > right[[0, 1, 2, 5]])[:, 0].all()
        assert right[0, 0] < figure.joints[0, 0] < left[0, 0]
        lengths = np.linalg.norm(np.diff(figure.joints[[5, 7, 9]], axis=0), axis=1).tolist()
        assert lengths == pytest.approx([0.3, 0.3])
        shoulders, hips, knees, ankles = figure.joints[[5, 11, 13, 15], 1]
        assert shoulders < hips < knees < ankles


def test_scenes_are_diverse(drawn, examples):
    labels = np.concatenate([example.labels for example in examples])
    counts = [len(example.labels) for example in examples]
    side = np.sqrt(np.concatenate([example.area for example in examples]))
    assert (np.bincount(labels, minlength=len(CLASSES)) > 0.12 * len(labels)).all()
    assert min(counts) == 1
    assert max(counts) >= 10
    assert 4 < np.mean(counts) < 6
    # Across, a twentieth of the objects are less than an eighth of the picture, a twentieth more than 0.45 of it.
    assert np.percentile(side, 5) < 20
    assert np.percentile(side, 95) > 72
    overlapping = 0
    for example in examples:
        low = np.maximum(example.boxes[:, None, :2], example.boxes[None, :, :2])
        high = np.minimum(example.boxes[:, None, 2:], example.boxes[None, :, 2:])
        pairs = (high > low).all(axis=-1) & ~np.eye(len(low), dtype=bool)
        overlapping += pairs.any(axis=1).sum()
    assert overlapping > 0.5 * len(labels)
    assert {int(index) for scene in drawn for index in np.unique(scene.stuff)} == set(range(len(STUFF)))


@pytest.mark.parametrize("image_size", [(64, 64), (97, 131), (240, 128), (96, 320)])
def test_any_image_size(image_size):
    height, width = image_size
    for index in range(10):
        example = Scenes(size=10, image_size=image_size)[index]
        assert example.image.shape == (height, width, 3)
        assert len(example.boxes) > 0
        assert (example.boxes[:, :2] >= 0).all()
        assert (example.boxes[:, 2:] <= [width, height]).all()
        assert (example.boxes[:, 2:] > example.boxes[:, :2]).all()


def test_length_ends_iteration():
    assert len(Scenes(size=3)) == 3
    assert len(list(Scenes(size=3))) == 3
    for index in (-1, 3):
        with pytest.raises(IndexError, match=f"no scene {index}"):
            Scenes(size=3)[index]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"split": "val"}, "no split 'val'; take one of train, validation, test"),
        ({"size": 0}, "size 0 hold no image; set size to 1 or more"),
        ({"image_size": (160, 32)}, r"image_size \(160, 32\); set height and width between 64 and 4096"),
        ({"image_size": (8000, 160)}, r"image_size \(8000, 160\)"),
        ({"seed": -1}, "no seed -1; set it between 0 and 4294967295"),
        ({"seed": 2**32}, "no seed 4294967296"),
    ],
)
def test_value_out_of_range(fields, message):
    with pytest.raises(UserError, match=message):
        Scenes(**fields)
