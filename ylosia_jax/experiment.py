"""The root of a config, and what can be done with one: train, restore, evaluate."""

import contextlib
import dataclasses
import functools
import json
import platform
import shutil
import subprocess
from collections.abc import Callable, Generator
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh

from ylosia_jax import config as configs
from ylosia_jax.data.augment import Augment, augment
from ylosia_jax.data.datasets import Dataset, Mixture, open_dataset, other_split
from ylosia_jax.data.pipeline import MOST_MASKS, Needs, canvas_of, train_batches
from ylosia_jax.evaluate import Decoder, Watch, compile_predict, evaluate, flat_scores
from ylosia_jax.files import write_atomically
from ylosia_jax.train.checkpoint import Checkpoints, abstract
from ylosia_jax.train.log import Log
from ylosia_jax.train.loop import Train, train_loop
from ylosia_jax.train.optim import Optim
from ylosia_jax.train.sharding import batch_sharding, make_mesh, place_batch, state_shardings
from ylosia_jax.train.step import State, Trainable, init_state, make_train_step
from ylosia_jax.train.stop import stop_requests
from ylosia_jax.types import Batch, Label, Objects, Skeleton, Source, UserError


@dataclasses.dataclass(frozen=True)
class Data:
    """What is trained on, and in which form.

    Attributes:
      train: the split that is learned.
      valid: the split that is scored.
      classes: names of the things in label order; the data must agree.
      stuff: names of the other semantic classes; the data must agree.
      skeleton: of the poses; the data must agree.
      image_size: side of the square canvas in pixels, or (height, width).
      batch_size: images a step, over all devices of all hosts.
      max_objects: rows of truth an image is padded to.
      label_stride: pixels of the canvas a cell of the masks and semantic maps that are learned.
      threads: that read and decode, a host.
      cache: gigabytes of memory for images that are kept as they were read, a host; the others are read every epoch.
    """

    train: Dataset
    valid: Dataset
    classes: tuple[str, ...]
    stuff: tuple[str, ...] = ()
    skeleton: Skeleton | None = None
    image_size: int | tuple[int, int] = 640
    batch_size: int = 16
    max_objects: int = 100
    label_stride: int = 4
    threads: int = 2
    cache: float = 0.0

    def __post_init__(self) -> None:
        for side in canvas_of(self.image_size):
            if side < 32 or side % 32:
                near = max(round(side / 32), 1) * 32
                raise ValueError(f"image_size is {self.image_size}: give multiples of 32, such as {near}")
        if any(self.label_stride < 1 or side % self.label_stride for side in canvas_of(self.image_size)):
            raise ValueError(f"label_stride is {self.label_stride}: give a divisor of image_size {self.image_size}")
        for name in ("batch_size", "max_objects", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give at least 1")
        if self.cache < 0:
            raise ValueError(f"cache is {self.cache}: give gigabytes, 0 for none")


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
        if self.augment.copy_paste and not self.needs.masks:
            raise ValueError("augment.copy_paste cuts objects out by their masks, but no task needs masks: set it to 0")
        scored = self.train.best_metric.partition("/")[0]
        answering = [name for name, task in self.tasks.items() if isinstance(task, Decoder)]
        if scored not in answering:
            raise ValueError(
                f"train.best_metric is {self.train.best_metric!r}, but the tasks that answer are "
                f"{', '.join(answering)}: name a score of one of them, such as box/AP, mask/AP, keypoint/AP, "
                "semantic/mIoU or panoptic/PQ"
            )
        if self.needs.masks and self.data.max_objects > MOST_MASKS:
            raise ValueError(
                f"data.max_objects is {self.data.max_objects}: give at most {MOST_MASKS}, the masks that a map of "
                "bytes tells apart"
            )

    @property
    def canvas(self) -> tuple[int, int]:
        """(height, width) of the network's input."""
        return canvas_of(self.data.image_size)

    @property
    def labels(self) -> frozenset[Label]:
        """What the tasks need to know of the images."""
        return frozenset().union(*(task.needs for task in self.tasks.values()))

    @property
    def needs(self) -> Needs:
        """The same as what batches have to hold."""
        points = len(self.data.skeleton.names) if self.data.skeleton else 0
        return Needs(
            masks="mask" in self.labels,
            points=points if "keypoint" in self.labels else 0,
            semantic="semantic" in self.labels,
            classes=len(self.data.classes) if isinstance(self.data.train, Mixture) else 0,
        )


def open_source(experiment: Experiment, dataset: Dataset) -> Source:
    """Opens a split and checks that it is what the config says.

    Raises:
      UserError: if the split is missing or empty, its classes are not the config's, or a task needs what it does not
        know.
    """
    source = open_dataset(dataset)
    data = experiment.data
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
    if len(source) == 0:
        raise UserError(f"{dataset} holds no image: import it again, or name another split")
    return source


@dataclasses.dataclass(frozen=True)
class Compiled:
    """An experiment's training step over a mesh, ready to be run or lowered.

    Attributes:
      step: jitted `(state, batch) -> (state, metrics)`; the state is donated.
      form: shapes and shardings of the state.
      batch: those of a global batch.
      init: jitted, makes the first state in place.
    """

    step: Any
    form: Any
    batch: Batch
    init: Callable[[], State]


def compile_step(experiment: Experiment, mesh: Mesh, steps: int) -> Compiled:
    """Binds an experiment's step to a mesh, and traces it. Nothing is computed or compiled yet.

    Raises:
      UserError: if the devices do not divide the batch, or network, tasks and data do not fit together.
    """
    batch_size = experiment.data.batch_size
    if batch_size % mesh.size:
        raise UserError(
            f"data.batch_size {batch_size} is not divisible by the {mesh.size} devices: "
            f"set it to {-(-batch_size // mesh.size) * mesh.size}"
        )
    init = functools.partial(
        init_state, experiment.network, experiment.optim, steps, experiment.canvas, jax.random.key(experiment.seed)
    )
    with _misfits():
        form = jax.eval_shape(init)
    shardings = state_shardings(mesh, form, experiment.train.sharding)
    step = make_train_step(
        experiment.network,
        # The others only put answers together.
        {name: task for name, task in experiment.tasks.items() if isinstance(task, Trainable)},
        experiment.optim,
        steps,
        transform=functools.partial(_transform, experiment),
        precision=experiment.train.precision,
    )
    jitted = jax.jit(
        step, in_shardings=(shardings, batch_sharding(mesh)), out_shardings=(shardings, None), donate_argnums=0
    )
    form, batch = abstract(form, shardings), batch_form(experiment, mesh)
    with _misfits():
        jitted.trace(form, batch)  # kept: the first call does not trace again
    # Random bits of sixty shapes take XLA's CPU backend 20 s to optimise, and a moment to compute as they are.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}
    make = jax.jit(init, out_shardings=shardings, compiler_options=options)
    return Compiled(step=jitted, form=form, batch=batch, init=make)


def batch_form(experiment: Experiment, mesh: jax.sharding.Mesh) -> Batch:
    """Shapes and shardings of a global training batch."""
    batch, rows, needs = experiment.data.batch_size, experiment.data.max_objects, experiment.needs

    def form(*shape: int, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct((batch, *shape), dtype, sharding=batch_sharding(mesh))

    return Batch(
        image=form(*experiment.canvas, 3, dtype=jnp.uint8),
        extent=form(2),
        size=form(2),
        index=form(dtype=jnp.int32),
        epoch=form(dtype=jnp.int32),
        objects=Objects(
            boxes=form(rows, 4),
            labels=form(rows, dtype=jnp.int32),
            valid=form(rows, dtype=jnp.bool_),
            crowd=form(rows, dtype=jnp.bool_),
            masked=form(rows, dtype=jnp.bool_) if needs.masks else None,
            keypoints=form(rows, needs.points, 3) if needs.points else None,
        ),
        known=form(needs.classes, dtype=jnp.bool_) if needs.classes else None,
        instances=form(*experiment.canvas, dtype=jnp.uint8) if needs.masks else None,
        semantic=form(*experiment.canvas, dtype=jnp.uint8) if needs.semantic else None,
    )


@contextlib.contextmanager
def _misfits() -> Generator[None]:
    """What a head or a task refuses while it is traced is the config's fault."""
    try:
        yield
    except (KeyError, ValueError) as error:
        what = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"the config's network, tasks and data do not fit together: {what}") from error


def _transform(experiment: Experiment, batch: Batch, progress: jax.Array) -> Batch:
    skeleton = experiment.data.skeleton
    return augment(
        experiment.augment,
        batch,
        experiment.seed,
        progress,
        label_stride=experiment.data.label_stride,
        mirror=skeleton.mirror if skeleton else (),
    )


def train(experiment: Experiment, watch: Watch | None = None) -> dict[str, Any]:
    """Trains to the end in `experiment.workdir`, or goes on where an earlier start of the same run stopped.

    Args:
      watch: is shown what every evaluation finds on this host, image by image.

    Returns:
      The final evaluation, which also stands in `metrics.json`.

    Raises:
      UserError: on anything the user can mend, the folder belonging to another config among it.
      Stopped: after SIGTERM, with a checkpoint of the step it had come to.
    """
    if not experiment.workdir:
        raise UserError("no folder to work in: give --workdir DIR")
    workdir = Path(experiment.workdir)
    settings = configs.to_json(experiment)
    train_source = open_source(experiment, experiment.data.train)
    valid_source = open_source(experiment, scored(experiment.data.valid))
    batch_size = experiment.data.batch_size
    steps = experiment.train.total_steps(len(train_source), batch_size)
    mesh = make_mesh()
    compiled = compile_step(experiment, mesh, steps)
    _claim(workdir, experiment)

    batches = train_batches(
        train_source,
        canvas=experiment.canvas,
        batch_size=batch_size,
        max_objects=experiment.data.max_objects,
        seed=experiment.seed,
        needs=experiment.needs,
        process=jax.process_index(),
        processes=jax.process_count(),
        threads=experiment.data.threads,
        steps=steps,
        cache=int(experiment.data.cache * 1e9),
    )
    predict = compile_predict(experiment.network, experiment.tasks, mesh, experiment.train.precision)
    result: dict[str, Any] = {}

    def score(state: State) -> dict[str, float]:
        options: dict[str, Any] = {"canvas": experiment.canvas, "batch_size": batch_size, "watch": watch}
        result.update(evaluate(predict, state.average, valid_source, mesh, **options))
        return flat_scores(result)

    with contextlib.closing(Checkpoints(workdir / "checkpoints", experiment.train.best_metric)) as checkpoints:
        last = checkpoints.last()
        if last is None:
            state = compiled.init()
        else:
            state = checkpoints.restore(last, compiled.form)
            checkpoints.restore_batches(last, batches)
        finished = workdir / "metrics.json"
        with Log(workdir, last or 0, steps, active=jax.process_index() == 0) as log:
            if last is not None and last >= steps and finished.exists():
                log.say(f"{workdir} is finished: {last} steps; nothing to do")
                return json.loads(finished.read_text())
            if last is not None:
                log.say(f"resuming {workdir} at step {last} of {steps}")
            with stop_requests() as asked_to_stop:
                state = train_loop(
                    experiment.train,
                    state,
                    compiled.step,
                    batches,
                    steps=steps,
                    batch_size=batch_size,
                    examples=len(train_source),
                    place=lambda batch: place_batch(mesh, batch),
                    compiles=compiled.step._cache_size,
                    evaluate=score,
                    checkpoints=checkpoints,
                    settings=settings,
                    log=log,
                    asked_to_stop=asked_to_stop,
                )
    if not result:
        score(state)
    if jax.process_index() == 0:
        write_atomically(finished, json.dumps(result, indent=2) + "\n")
    return result


def restore_average(experiment: Experiment, workdir: Path, mesh: Mesh, checkpoint: str = "best") -> Any:
    """The averaged variables of a run's checkpoint, replicated over a mesh.

    Args:
      checkpoint: `best`, `last`, or a step.

    Raises:
      UserError: if there is no such checkpoint.
    """
    folder = workdir / "checkpoints"
    if not folder.is_dir():
        raise UserError(f"{workdir} has no checkpoint: train it first (ylosia train … --workdir {workdir})")
    with contextlib.closing(Checkpoints(folder, experiment.train.best_metric)) as checkpoints:
        kept = checkpoints.steps()
        step = {"best": checkpoints.best, "last": checkpoints.last}.get(checkpoint, lambda: _number(checkpoint))()
        if step not in kept:
            there = "none" if not kept else ", ".join(map(str, kept))
            raise UserError(f"{workdir} has no checkpoint {checkpoint!r}: name best, last or one of the steps {there}")
        # The optimiser's form does not depend on the number of steps.
        init = functools.partial(init_state, experiment.network, experiment.optim, 1, experiment.canvas)
        form = jax.eval_shape(init, jax.random.key(0))
        return checkpoints.restore(step, abstract(form, state_shardings(mesh, form))).average


def evaluate_run(
    workdir: Path, *, checkpoint: str = "best", name: str | None = None, split: str | None = None
) -> dict[str, Any]:
    """Scores a run's checkpoint on a split; default the config's validation split.

    Args:
      checkpoint: `best`, `last`, or a step.
      name: another data set, as `other_split` takes it.
      split: another split.

    Raises:
      UserError: if the run, the checkpoint or the split is not there, or its classes are not the run's.
    """
    experiment = load_run(workdir)
    source = open_source(experiment, scored(other_split(experiment.data.valid, name, split)))
    mesh = make_mesh()
    variables = restore_average(experiment, workdir, mesh, checkpoint)
    batch_size = -(-experiment.data.batch_size // mesh.size) * mesh.size
    predict = compile_predict(experiment.network, experiment.tasks, mesh, experiment.train.precision)
    return evaluate(predict, variables, source, mesh, canvas=experiment.canvas, batch_size=batch_size)


def load_run(workdir: Path) -> Experiment:
    """The config that a run was trained with.

    Raises:
      UserError: if the folder is no run.
    """
    experiment = configs.load(workdir)
    if not isinstance(experiment, Experiment):
        raise UserError(f"{workdir} holds no experiment: name a folder that `ylosia train` made")
    return experiment


def scored(dataset: Dataset) -> Dataset:
    """The dataset, if it shows each image once.

    Raises:
      UserError: if it may show one twice.
    """
    if isinstance(dataset, Mixture) and dataset.weights:
        raise UserError("data.valid is a mixture with weights, which may show an image twice: leave its weights empty")
    return dataset


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _claim(workdir: Path, experiment: Experiment) -> None:
    """Writes the config into the run's folder, or checks that the folder belongs to the same config."""
    written = workdir / "config.json"
    if written.exists():
        differences = configs.diff(configs.load(workdir), dataclasses.replace(experiment, workdir=str(workdir)))
        # Which checkpoint is best changes nothing about the training.
        differences = [row for row in differences if row[0] not in ("workdir", "train.best_metric")]
        if differences:
            rows = "; ".join(
                f"{path}: {configs.show(a)} there, {configs.show(b)} here" for path, a, b in differences[:5]
            )
            raise UserError(f"{workdir} holds a run of another config ({rows}): give another --workdir")
        return
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"{workdir} is not a folder: give another --workdir")
    if jax.process_index() == 0:
        workdir.mkdir(parents=True, exist_ok=True)
        write_atomically(workdir / "config.txt", configs.to_text(experiment))
        write_atomically(workdir / "versions.json", json.dumps(versions(), indent=2) + "\n")
        # Last, since this file is what makes the folder a run.
        write_atomically(written, json.dumps(configs.to_json(experiment), indent=2) + "\n")


def versions() -> dict[str, str | None]:
    """What a result depends on beside its config: packages, Python, devices, commit."""
    packages = ("ylosia-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "hotcoco")
    found: dict[str, str | None] = {}
    for name in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    folder = Path(__file__).parent
    git = (
        subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            check=False,
        )
        if shutil.which("git")
        else None
    )
    found["commit"] = git.stdout.strip() if git is not None and git.returncode == 0 else None
    devices = jax.devices()
    return found | {"python": platform.python_version(), "devices": f"{len(devices)} x {devices[0].device_kind}"}
