import dataclasses

import numpy as np
import pytest

from ylosia_jax import rle
from ylosia_jax.answers import ImageAnswer, true_segments
from ylosia_jax.data.datasets import Imported, Mixture, open_dataset, other_split
from ylosia_jax.data.mixture import Mapped, Mixed, join_skeletons, renamed
from ylosia_jax.data.order import shuffled
from ylosia_jax.data.pipeline import Needs, prepare, train_batches
from ylosia_jax.data.scenes import CLASSES, Scenes
from ylosia_jax.data.scenes_grounds import STUFF
from ylosia_jax.data.skeletons import COCO_PERSON
from ylosia_jax.evaluate import metrics, record_of
from ylosia_jax.experiment import scored
from ylosia_jax.metrics.instances import ImageDetections
from ylosia_jax.types import VOID, Example, Skeleton, UserError

MOUSE = Skeleton(("snout", "left", "right"), (0, 2, 1), ((0, 1),), (0.1, 0.1, 0.1), ("mouse",))


@dataclasses.dataclass(frozen=True)
class Mice:
    """Three images of a mouse and a ball each: boxes and poses, no masks, no map."""

    classes: tuple[str, ...] = ("mouse", "ball")
    stuff: tuple[str, ...] = ()
    skeleton: Skeleton | None = MOUSE
    labels: frozenset = frozenset({"box", "keypoint"})

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Example:
        keypoints = np.zeros((2, 3, 3), np.float32)
        keypoints[0] = [[5, 6, 2], [7, 8, 1], [9, 9, 0]]
        return Example(
            image=np.full((64, 64, 3), index, np.uint8),
            name=f"{index:06d}.png",
            boxes=np.array([[0, 0, 20, 20], [30, 30, 50, 60]], np.float32),
            labels=np.array([0, 1]),
            crowd=np.zeros(2, bool),
            area=np.array([400, 600], np.float32),
            keypoints=keypoints,
        )


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Two images of a semantic map each, and no boxes."""

    classes: tuple[str, ...]
    stuff: tuple[str, ...]
    skeleton: Skeleton | None = None
    labels: frozenset = frozenset({"semantic"})

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Example:
        page = np.zeros((64, 64), np.uint8)
        page[20:40] = 1
        nothing = Example(np.zeros((64, 64, 3), np.uint8), "a.png", *NO_OBJECTS)
        return dataclasses.replace(nothing, semantic=page)


@dataclasses.dataclass(frozen=True)
class Named:
    """As many images as classes, of one category each, and no boxes."""

    classes: tuple[str, ...]
    stuff: tuple[str, ...] = ()
    skeleton: Skeleton | None = None
    labels: frozenset = frozenset({"category"})

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, index: int) -> Example:
        return Example(np.zeros((64, 64, 3), np.uint8), f"{index}.png", *NO_OBJECTS, category=index)


NO_OBJECTS = np.zeros((0, 4), np.float32), np.zeros(0, int), np.zeros(0, bool), np.zeros(0, np.float32)


@pytest.fixture(scope="module")
def mixed() -> Mixed:
    return Mixed((Scenes("train", size=8, image_size=(64, 64)), Mice()), (2.0, 1.0))


def test_classes_of_one_name_are_one(mixed: Mixed) -> None:
    assert mixed.classes == (*CLASSES, "mouse")
    assert mixed.labels == {"box", "mask", "keypoint", "semantic"}
    example = mixed[8]
    assert [mixed.classes[label] for label in example.labels] == ["mouse", "ball"]
    scene = Scenes("train", size=8, image_size=(64, 64))[3]
    np.testing.assert_array_equal(mixed[3].labels, scene.labels)


def test_weights_decide_the_shares(mixed: Mixed) -> None:
    # Eight scenes at weight 2 are 4 at weight 1, so the three mice come four times in all.
    assert mixed.counts == (8, 4)
    assert [mixed[i].image[0, 0, 0] for i in range(8, 12)] == [0, 1, 2, 0]
    assert Mixed(mixed.sources, (1.0, 3.0)).counts == (8, 24)
    assert len({mixed[i].name for i in range(11)}) == 11
    with pytest.raises(IndexError):
        mixed[12]
    with pytest.raises(UserError, match="above 0"):
        Mixed(mixed.sources, (1.0, 0.0))


def test_an_image_knows_what_its_source_labels(mixed: Mixed) -> None:
    np.testing.assert_array_equal(mixed[0].known, [True] * 6 + [False])
    np.testing.assert_array_equal(mixed[0].drawn, [True] * 6 + [False] + [True] * len(STUFF))
    names = (*mixed.classes, *mixed.stuff)
    np.testing.assert_array_equal(mixed[8].known, [name in ("ball", "mouse") for name in mixed.classes])
    np.testing.assert_array_equal(mixed[8].drawn, [name in ("ball", "mouse") for name in names])
    needs = Needs(masks=True, points=20, semantic=True, classes=7, sources=2)
    batch = prepare(mixed[8], 8, 0, (64, 64), 4, needs)
    assert not np.asarray(batch.objects.masked).any()
    assert (np.asarray(batch.semantic) == VOID).all()
    np.testing.assert_array_equal(batch.known, mixed[8].known)
    np.testing.assert_array_equal(batch.source, [False, True])
    assert (np.asarray(prepare(mixed[0], 0, 0, (64, 64), 32, needs).semantic) != VOID).all()


def test_every_batch_has_its_share_of_each_set(mixed: Mixed) -> None:
    """Of every three images two are scenes and one shows a mouse, and a pass shows each once."""
    batches = train_batches(mixed, canvases=[(64, 64)], batch_size=6, max_objects=32, seed=0, needs=Needs(sources=2))
    seen = [next(batches) for _ in range(4)]
    for batch in seen:
        np.testing.assert_array_equal(np.sum(batch.source, axis=0), [4, 2])
    for epoch in range(2):
        both = np.concatenate([batch.index[batch.epoch == epoch] for batch in seen])
        np.testing.assert_array_equal(np.sort(both), np.arange(12))


def test_sets_of_unequal_size_take_turns() -> None:
    order = shuffled((7, 2, 21), seed=5)
    epochs = np.array([order(i) for i in range(90)]).reshape(3, 30)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(30), (3, 1)))
    assert (epochs[0] != epochs[1]).any()
    numbers = np.searchsorted([7, 9, 30], epochs, side="right")
    assert (numbers == numbers[0]).all()
    for number, count in enumerate((7, 2, 21)):
        # In any ten in a row, a third of the set's, to one.
        windows = [(numbers[0][start : start + 10] == number).sum() for start in range(21)]
        assert max(abs(found - count / 3) for found in windows) <= 1


def test_poses_of_different_skeletons_stand_behind_one_another(mixed: Mixed) -> None:
    skeleton = mixed.skeleton
    assert skeleton is not None
    assert skeleton.names == COCO_PERSON.names + MOUSE.names
    assert skeleton.mirror[17:] == (17, 19, 18)
    assert skeleton.edges[-1] == (17, 18)
    assert skeleton.classes == ("person", "mouse")
    keypoints = mixed[8].keypoints
    assert keypoints is not None
    np.testing.assert_array_equal(keypoints[0, 17:], [[5, 6, 2], [7, 8, 1], [9, 9, 0]])
    assert not keypoints[:, :17].any()
    person = mixed[0].keypoints
    assert person is not None
    assert not person[:, 17:].any()
    assert join_skeletons([MOUSE, MOUSE]) == MOUSE
    with pytest.raises(UserError, match="which classes have its poses"):
        join_skeletons([MOUSE, dataclasses.replace(COCO_PERSON, classes=())])


def test_detections_of_unknown_classes_are_not_scored(mixed: Mixed) -> None:
    example = mixed[8]
    star = mixed.classes.index("star")
    found = ImageDetections(
        np.concatenate([example.boxes, [[0, 0, 9, 9]]]).astype(np.float32),
        np.array([0.9, 0.8, 0.99], np.float32),
        np.append(example.labels, star),
    )
    record = record_of(example, ImageAnswer(found), 7, 14)
    assert record.found is not None
    assert star not in record.found.labels
    np.testing.assert_allclose(metrics([record], mixed)["box"]["AP"], 1)


def test_maps_are_not_held_to_classes_that_their_set_does_not_know(mixed: Mixed) -> None:
    """A perfect answer but for some pixels of a mouse, in a set that has no mice: no class of mice is scored."""
    example, mouse = mixed[0], mixed.classes.index("mouse")
    truth = true_segments(example, 7)
    assert truth is not None
    assert example.semantic is not None
    page, labels = np.zeros((64, 64), np.int32), {}
    for number, (counts, label) in enumerate(zip(truth.masks, truth.labels.tolist(), strict=True), start=1):
        page[rle.decode(counts, (64, 64))], labels[number] = number, label
    largest = int(np.bincount(page.ravel())[1:].argmax()) + 1
    row, column = np.argwhere(page == largest)[0]
    semantic = example.semantic.copy()
    semantic[row, column], page[row, column], labels[99] = mouse, 99, mouse
    answer = ImageAnswer(None, semantic=semantic, segments=page, segment_labels=labels)
    scores = metrics([record_of(example, answer, 7, len(mixed.classes) + len(mixed.stuff))], mixed)
    assert scores["semantic"]["per_class"]["mouse"] is None
    assert scores["panoptic"]["per_class"]["mouse"] is None
    assert scores["panoptic"]["RQ"] == 1
    assert 0.99 < scores["panoptic"]["PQ"] < 1
    # The pixel is wrong all the same.
    assert scores["semantic"]["accuracy"] == pytest.approx(1 - 1 / 64**2)
    assert 0.99 < scores["semantic"]["mIoU"] < 1


def test_one_set_in_the_space_of_a_mixture(mixed: Mixed) -> None:
    """What a run on a mixture is scored with on one of its sets: the same examples, by the same numbers."""
    for number, (source, first) in enumerate(zip(mixed.sources, (0, 8), strict=True)):
        mapped = Mapped(source, mixed.classes, mixed.stuff, mixed.skeleton)
        assert len(mapped) == len(source)
        assert mapped.labels == source.labels
        here, there = mapped[1], mixed[first + 1]
        for name in ("boxes", "labels", "keypoints", "semantic", "known"):
            np.testing.assert_array_equal(getattr(here, name), getattr(there, name))
        assert there.name == f"{number}/{here.name}"
    narrow = Mapped(mixed.sources[0], CLASSES, STUFF[:2], None)[0]
    scene = mixed.sources[0][0]
    assert narrow.keypoints is None
    assert scene.semantic is not None
    # Stuff that the narrower space has not is void.
    np.testing.assert_array_equal(narrow.semantic, np.where(scene.semantic < len(CLASSES) + 2, scene.semantic, VOID))
    with pytest.raises(UserError, match="the class 'ball' is not among"):
        _ = Mapped(Mice(), ("mouse",), (), MOUSE)[0]


def test_a_mixture_that_is_scored_shows_each_image_once():
    parts = Scenes("validation", size=3, image_size=(64, 64)), Scenes("train", size=2, image_size=(64, 64))
    whole = open_dataset(Mixture(parts))
    assert len({whole[i].name for i in range(len(whole))}) == len(whole) == 5
    assert other_split(Mixture(parts, (1.0, 1.0)), None, None) == Mixture(parts, (1.0, 1.0))
    with pytest.raises(UserError, match="may show an image twice"):
        scored(Mixture(parts, (1.0, 1.0)))
    few = Imported("any", "train", first=3)
    assert scored(few) is other_split(few, None, None) is few
    assert other_split(few, None, "val") == Imported("any", "val", first=3)
    assert other_split(few, "scenes", "test") == Scenes("test", size=128)
    assert other_split(Mixture(parts), "any", None) == Imported("any", "val")
    assert other_split(Mixture((few,)), "any", None) == Imported("any", "train")
    assert other_split(Mixture(parts), "scenes", None) == parts[0]
    with pytest.raises(UserError, match="name one of its data sets beside --split"):
        other_split(Mixture(parts), None, "val")


def test_no_images_are_no_set():
    with pytest.raises(ValueError, match="first is 0: give at least 1"):
        Imported("any", "train", first=0)


def test_a_class_whose_pixels_alone_are_drawn_is_not_known_to_be_absent() -> None:
    """A semantic map of people says nothing of how many there are: its images are no place without people's boxes."""
    drawn = Drawn(classes=(), stuff=("sky", "ball"))
    mixed = Mixed((Mice(), drawn), (1.0, 1.0))
    example = mixed[len(mixed) - 1]
    assert (mixed.classes, mixed.stuff) == (("mouse", "ball"), ("sky",))
    np.testing.assert_array_equal(example.known, [False, False])
    np.testing.assert_array_equal(example.drawn, [False, True, True])
    assert example.semantic is not None
    np.testing.assert_array_equal(np.unique(example.semantic), [1, 2])
    found = ImageDetections(np.array([[1, 1, 9, 9]], np.float32), np.array([0.9], np.float32), np.array([1]))
    record = record_of(example, ImageAnswer(found, semantic=example.semantic), len(mixed.classes), 3)
    assert record.found is not None
    assert len(record.found.labels) == 0
    assert record.confusion is not None
    assert np.trace(record.confusion[:3, :3]) == example.semantic.size


def test_a_map_of_names_joins_and_leaves_out_classes() -> None:
    scenes, first = Scenes("train", size=8, image_size=(64, 64)), CLASSES[0]
    drop, join = CLASSES[1], CLASSES[2]
    others = renamed(scenes, ((join, first), (drop, ""), (STUFF[0], "ground")))
    assert others.classes == tuple(name for name in CLASSES if name not in (drop, join))
    assert others.stuff == ("ground", *STUFF[1:])
    dropped = joined = 0
    for i in range(8):
        before, after = scenes[i], others[i]
        names = [CLASSES[label] for label in before.labels]
        expected = [first if name == join else name for name in names if name != drop]
        assert [others.classes[label] for label in after.labels] == expected
        keep = [name != drop for name in names]
        np.testing.assert_array_equal(after.boxes, before.boxes[keep])
        assert before.masks is not None
        assert after.masks == tuple(mask for mask, kept in zip(before.masks, keep, strict=True) if kept)
        assert before.semantic is not None
        assert after.semantic is not None
        np.testing.assert_array_equal(after.semantic == VOID, before.semantic == 1)
        np.testing.assert_array_equal(after.semantic == len(others.classes), before.semantic == len(CLASSES))
        dropped, joined = dropped + keep.count(False), joined + names.count(join)
    assert dropped
    assert joined
    mice = renamed(Mice(), (("mouse", "rodent"),))
    assert mice.classes == ("rodent", "ball")
    assert mice.skeleton is not None
    assert mice.skeleton.classes == ("rodent",)
    assert mice.labels == Mice().labels
    with pytest.raises(UserError, match="names has 'zebu', which is no class of the set; it has person, "):
        renamed(scenes, (("zebu", "dog"),))
    with pytest.raises(UserError, match="no class of the set; the nearest is 'person'"):
        renamed(scenes, (("preson", "dog"),))


def test_without_the_class_that_has_them_poses_go() -> None:
    balls = renamed(Mice(), (("mouse", ""),))
    assert (balls.classes, balls.skeleton, balls[0].keypoints) == (("ball",), None, None)
    assert balls.labels == Mice().labels - {"keypoint"}


def test_of_classes_that_became_one_all_have_to_be_known() -> None:
    """A set that knows of one half only where the other is not, cannot say where the whole is not."""
    mixed = Mixed((Mice(), Drawn(classes=(), stuff=("sky", "ball"))), (1.0, 1.0))
    example = renamed(mixed, (("ball", "mouse"), ("sky", "")))[0]
    np.testing.assert_array_equal(mixed[0].drawn, [True, True, False])
    np.testing.assert_array_equal(example.known, [True])
    np.testing.assert_array_equal(example.drawn, [True])
    np.testing.assert_array_equal(renamed(mixed, (("sky", "ball"),))[0].drawn, [True, False])


def test_stuff_of_a_things_name_is_no_thing() -> None:
    with pytest.raises(UserError, match="the class 'ball' is not among"):
        _ = Mapped(Mice(), ("mouse",), ("ball",), MOUSE)[0]


def test_categories_find_their_numbers_in_the_joint_space() -> None:
    """A set of categories alone has classes, of which no object has a box: nothing says that none is there."""
    mixed = Mixed((Mice(), Named(("cat", "ball"))), (3.0, 2.0))
    assert (mixed.classes, mixed.labels) == (("mouse", "ball", "cat"), {"box", "keypoint", "category"})
    assert [mixed[i].category for i in range(5)] == [None, None, None, 2, 1]
    np.testing.assert_array_equal(mixed[0].known, [True, True, False])
    np.testing.assert_array_equal(mixed[3].known, [False, False, False])
    needs = Needs(categories=True, classes=3, sources=2)
    made = [prepare(mixed[i], i, 0, (64, 64), 4, needs) for i in range(5)]
    assert [int(np.asarray(batch.category)) for batch in made] == [-1, -1, -1, 2, 1]


def test_categories_are_renamed_and_left_out() -> None:
    source = renamed(Named(("cat", "dog", "puppy", "noise")), (("puppy", "dog"), ("noise", "")))
    assert source.classes == ("cat", "dog")
    assert [source[i].category for i in range(4)] == [0, 1, 1, None]
    # What is not known is not scored.
    scores = np.array([0.4, 0.6])
    found = [record_of(source[i], ImageAnswer(categories=scores), 2, 2) for i in range(4)]
    assert metrics(found, source)["classification"] == {"top1": 2 / 3, "top5": 1, "per_class": {"cat": 0, "dog": 1}}
