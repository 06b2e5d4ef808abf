"""The root of a config, and the data that it names."""

import dataclasses
from typing import Any

from flax import linen as nn

from ylosia_jax.data.augment import FILL, Augment
from ylosia_jax.data.datasets import Dataset, Mixture, open_dataset
from ylosia_jax.data.mixture import Mapped, place_of
from ylosia_jax.data.pipeline import MOST_MASKS, Needs, Resize, Style, canvas_of
from ylosia_jax.data.regions import SelectiveSearch
from ylosia_jax.train.loop import Train
from ylosia_jax.train.optim import Optim
from ylosia_jax.train.questions import Decoder
from ylosia_jax.types import Label, Skeleton, Source, UserError


@dataclasses.dataclass(frozen=True)
class Data:
    """What is trained on, and in which form.

    Attributes:
      train: the split that is learned.
      valid: the split that is scored.
      classes: names of the things, or of the images' categories, in label order; the data must agree.
      stuff: names of the other semantic classes; the data must agree.
      skeleton: of the poses; the data must agree.
      image_size: side of the square canvas in pixels, or (height, width).
      aspect_grouping: whether there is a second canvas, of swapped sides: an upright picture is small on one that lies.
        Each image goes where it is largest, a batch is of one canvas, and each canvas is compiled once. Where a canvas
        has not a batch of images, training shows them on the other.
      resize: how a picture gets its size on the canvas, see `pipeline.Resize`.
      stretch: whether pictures fill their canvas, as in the papers of SSD and the first YOLO, or keep their shape.
      fill: value, from 0 to 255, of the grey where no picture is, on the canvas as it is and as augmentation moves it.
      batch_size: images a step, over all devices of all hosts.
      max_objects: rows of truth an image is padded to.
      threads: that read and decode, a host.
      regions: how regions are found for a network that does not propose its own; None for one that does, or needs none.
      cache: gigabytes of memory for images that are kept as they were read, a host; the others are read every epoch.
    """

    train: Dataset
    valid: Dataset
    classes: tuple[str, ...]
    stuff: tuple[str, ...] = ()
    skeleton: Skeleton | None = None
    image_size: int | tuple[int, int] = 640
    aspect_grouping: bool = False
    resize: Resize = "area"
    stretch: bool = False
    fill: int = FILL
    batch_size: int = 16
    max_objects: int = 100
    threads: int = 2
    cache: float = 0.0
    regions: SelectiveSearch | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_objects", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give at least 1")
        if self.cache < 0:
            raise ValueError(f"cache is {self.cache}: give gigabytes, 0 for none")
        if not 0 <= self.fill <= 255:
            raise ValueError(f"fill is {self.fill}: give a grey from 0 to 255")

    @property
    def style(self) -> Style:
        """How pictures are drawn on the canvas."""
        return Style(self.resize, self.fill, self.stretch)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that decides a run.

    Attributes:
      network: unbound module, called as `(image, train)`.
      tasks: by name, what the network's outputs mean and how they are learned; each after those that it builds on.
      seed: of initial weights, order and augmentation.
      workdir: the run's folder.
    """

    network: nn.Module
    tasks: dict[str, Any]
    data: Data
    augment: Augment = dataclasses.field(default_factory=Augment)
    optim: Optim = dataclasses.field(default_factory=Optim)
    train: Train = dataclasses.field(default_factory=Train)
    seed: int = 0
    workdir: str = ""

    def __post_init__(self) -> None:
        # Levels that are enlarged and added must fit each other; a network that does nothing of that sort says so.
        divisor: int = getattr(self.network, "divisor", 32)
        for side in self.canvas:
            if side < 32 or side % divisor:
                near = max(round(side / divisor), -(-32 // divisor)) * divisor
                raise ValueError(
                    f"data.image_size is {self.data.image_size}: give multiples of {divisor}, such as {near}"
                )
        if self.augment.copy_paste and not self.needs.masks:
            raise ValueError("augment.copy_paste cuts objects out by their masks, but no task needs masks: set it to 0")
        for name in ("mosaic", "copy_paste"):
            if self.needs.categories and getattr(self.augment, name):
                raise ValueError(
                    f"augment.{name} mixes pictures, but a task needs the category of the whole image: set it to 0"
                )
        scored = self.train.best_metric.partition("/")[0]
        answering = [name for name, task in self.tasks.items() if isinstance(task, Decoder)]
        if scored not in answering:
            raise ValueError(
                f"train.best_metric is {self.train.best_metric!r}, but the tasks that answer are "
                f"{', '.join(answering)}: name a score of one of them, such as box/AP, mask/AP, keypoint/AP, "
                "semantic/mIoU, panoptic/PQ or classification/top1"
            )
        if self.data.regions is not None and self.augment.mosaic:
            raise ValueError("augment.mosaic shows several pictures, and data.regions are of the first: set it to 0")
        if self.needs.masks and self.data.max_objects > MOST_MASKS:
            raise ValueError(
                f"data.max_objects is {self.data.max_objects}: give at most {MOST_MASKS}, the masks that a map of "
                "bytes tells apart"
            )

    @property
    def canvas(self) -> tuple[int, int]:
        """(height, width) of the network's input, as it is named; see `canvases`."""
        return canvas_of(self.data.image_size)

    @property
    def canvases(self) -> tuple[tuple[int, int], ...]:
        """All that there are; of a square there is no second."""
        height, width = self.canvas
        if not self.data.aspect_grouping or height == width:
            return (self.canvas,)
        return (height, width), (width, height)

    @property
    def labels(self) -> frozenset[Label]:
        """What the tasks need to know of the images."""
        return frozenset().union(*(task.needs for task in self.tasks.values()))

    @property
    def needs(self) -> Needs:
        """The same as what batches have to hold."""
        points = len(self.data.skeleton.names) if self.data.skeleton else 0
        sets = len(self.data.train.parts) if isinstance(self.data.train, Mixture) else 0
        return Needs(
            masks="mask" in self.labels,
            points=points if "keypoint" in self.labels else 0,
            semantic="semantic" in self.labels,
            categories="category" in self.labels,
            classes=len(self.data.classes) if sets else 0,
            sources=sets if sets > 1 else 0,
            regions=self.data.regions,
        )


def open_source(experiment: Experiment, dataset: Dataset) -> Source:
    """Opens a split and checks that it is what the config says.

    Raises:
      UserError: if the split is missing or empty, its classes are not the config's, a task has another number of
        classes, or needs what the split does not know.
    """
    source, data = _open(dataset), experiment.data
    if tuple(source.classes) != data.classes:
        raise UserError(
            f"the data has the classes {list(source.classes)}, the config {list(data.classes)}: "
            "set data.classes, and the network's num_classes, to the data's"
        )
    for name, task in experiment.tasks.items():
        if missing := sorted(task.needs - source.labels):
            known = " and ".join(sorted(source.labels)) or "nothing"
            raise UserError(
                f"the task {name!r} needs {' and '.join(missing)} labels, but {dataset} knows only {known} of its "
                "images: leave the task and its head out, or train it on other data"
            )
    if "semantic" in experiment.labels and tuple(source.stuff) != data.stuff:
        raise UserError(f"the data has the stuff {list(source.stuff)}, the config {list(data.stuff)}: set data.stuff")
    if "keypoint" in experiment.labels and source.skeleton != data.skeleton:
        raise UserError(
            f"the data's poses are of {source.skeleton}, the config's of {data.skeleton}: "
            "set data.skeleton to the data's"
        )
    _check_counts(experiment)
    return source


def open_scored(experiment: Experiment, dataset: Dataset) -> Source:
    """Opens a split to score a run on: any whose labels are among the run's, such as one set of a mixture.

    What the split knows nothing of is not scored, see `mixture.Mapped`.

    Raises:
      UserError: if the split is missing or empty, has classes or poses that the run has not, or knows nothing that a
        task answers.
    """
    source, data = _open(dataset), experiment.data
    names = (*data.classes, *data.stuff)
    of_maps = source.stuff if "semantic" in experiment.labels else ()
    foreign = [name for name in source.classes if name not in data.classes]
    foreign += [name for name in of_maps if name not in names]
    if foreign:
        raise UserError(f"{dataset} has the classes {foreign}, of which the run knows nothing: it has {list(names)}")
    if not any(task.needs and task.needs <= source.labels for task in experiment.tasks.values()):
        known = " and ".join(sorted(source.labels)) or "nothing"
        raise UserError(f"{dataset} knows only {known} of its images, which no task of the run answers")
    poses = source.skeleton if "keypoint" in experiment.labels else None
    if poses and (data.skeleton is None or place_of(poses, data.skeleton) is None):
        raise UserError(f"the poses of {dataset} are of {poses}, the run's of {data.skeleton}")
    if (source.classes, source.stuff) == (data.classes, data.stuff) and source.skeleton == data.skeleton:
        return source
    return Mapped(source, data.classes, data.stuff, data.skeleton)


def _open(dataset: Dataset) -> Source:
    source = open_dataset(dataset)
    if len(source) == 0:
        raise UserError(f"{dataset} holds no image: import it again, or name another split")
    return source


def _check_counts(experiment: Experiment) -> None:
    """Compares the tasks' numbers of classes with the data's lists: a label past the end is learned as nonsense.

    Raises:
      UserError: if one differs.
    """
    things = len(experiment.data.classes)
    wanted = {"num_classes": things, "things": things, "classes": things + len(experiment.data.stuff)}
    for name, task in experiment.tasks.items():
        for field, count in wanted.items():
            if (found := getattr(task, field, count)) != count:
                lists = "data.classes and data.stuff have" if field == "classes" else "data.classes has"
                raise UserError(f"tasks.{name}.{field} is {found}, but {lists} {count} names: make them agree")


def scored(dataset: Dataset) -> Dataset:
    """The dataset, if it shows each image once.

    Raises:
      UserError: if it may show one twice.
    """
    if isinstance(dataset, Mixture) and dataset.weights:
        raise UserError("data.valid is a mixture with weights, which may show an image twice: leave its weights empty")
    return dataset
