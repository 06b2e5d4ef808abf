import dataclasses

import numpy as np
import pytest

from ylosia_jax.answers import ImageAnswer
from ylosia_jax.data.datasets import Imported, Mixture, open_dataset, other_split
from ylosia_jax.data.mixture import Mixed, join_skeletons
from ylosia_jax.data.pipeline import Needs, prepare
from ylosia_jax.data.scenes import CLASSES, Scenes
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
    np.testing.assert_array_equal(mixed[8].known, [name in ("ball", "mouse") for name in mixed.classes])
    needs = Needs(masks=True, points=20, semantic=True, classes=7)
    batch = prepare(mixed[8], 8, 0, (64, 64), 4, needs)
    assert not np.asarray(batch.objects.masked).any()
    assert (np.asarray(batch.semantic) == VOID).all()
    np.testing.assert_array_equal(batch.known, mixed[8].known)
    assert (np.asarray(prepare(mixed[0], 0, 0, (64, 64), 32, needs).semantic) != VOID).all()


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
    with pytest.raises(UserError, match="name one of its data sets beside --split"):
        other_split(Mixture(parts), None, "val")


def test_no_images_are_no_set():
    with pytest.raises(ValueError, match="first is 0: give at least 1"):
        Imported("any", "train", first=0)
