"""What can be done with an experiment in its folder: train, resume, restore, evaluate."""

import contextlib
import dataclasses
import functools
import json
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from ylosia_jax import config as configs
from ylosia_jax.compiled import compile_step
from ylosia_jax.data.datasets import other_split
from ylosia_jax.data.pipeline import train_batches
from ylosia_jax.evaluate import Watch, compile_predict, evaluate, flat_scores
from ylosia_jax.experiment import Experiment, open_scored, open_source, scored
from ylosia_jax.files import write_atomically
from ylosia_jax.fitting import fit_tasks
from ylosia_jax.train.checkpoint import Checkpoints, abstract
from ylosia_jax.train.log import Log
from ylosia_jax.train.loop import train_loop
from ylosia_jax.train.sharding import make_mesh, place_batch, state_shardings
from ylosia_jax.train.step import State, init_state
from ylosia_jax.train.stop import stop_requests
from ylosia_jax.types import UserError


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
    claim(workdir, experiment)

    batches = train_batches(
        train_source,
        canvases=experiment.canvases,
        batch_size=batch_size,
        max_objects=experiment.data.max_objects,
        seed=experiment.seed,
        needs=experiment.needs,
        style=experiment.data.style,
        process=jax.process_index(),
        processes=jax.process_count(),
        threads=experiment.data.threads,
        steps=steps,
        cache=int(experiment.data.cache * 1e9),
    )
    predict = compile_predict(experiment.network, experiment.tasks, mesh, experiment.train.precision)
    result: dict[str, Any] = {}

    def score(state: State) -> dict[str, float]:
        options: dict[str, Any] = {"canvases": experiment.canvases, "batch_size": batch_size, "watch": watch}
        options |= {"style": experiment.data.style, "regions": experiment.data.regions}
        result.update(evaluate(predict, state.average, valid_source, mesh, **options))
        return flat_scores(result)

    with contextlib.closing(Checkpoints(workdir / "checkpoints", experiment.train.best_metric)) as checkpoints:
        last = checkpoints.last()
        if last is None:
            state = compiled.init()
        else:
            state = checkpoints.restore(last, compiled.form)
            if last:  # before the first step, as in a run of imported weights, nothing was read
                checkpoints.restore_batches(last, batches)
        finished = workdir / "metrics.json"
        with Log(workdir, last or 0, steps, active=jax.process_index() == 0) as log:
            if last is not None and last >= steps and finished.exists():
                log.say(f"{workdir} is finished: {last} steps; nothing to do")
                return json.loads(finished.read_text())
            if last is not None:
                log.say(f"resuming {workdir} at step {last} of {steps}")
            elif experiment.optim.frozen:
                log.say("optim.frozen keeps random weights as they are: ylosia weights import brings trained ones")
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
                    finish=lambda state: fit_tasks(experiment, state, train_source),
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
        # The average's form does not depend on the number of steps.
        init = functools.partial(init_state, experiment.network, experiment.optim, 1, experiment.canvas)
        form = jax.eval_shape(init, jax.random.key(0))
        return checkpoints.restore_average(step, abstract(form, state_shardings(mesh, form)).average)


def evaluate_run(
    workdir: Path, *, checkpoint: str = "best", name: str | None = None, split: str | None = None
) -> dict[str, Any]:
    """Scores a run's checkpoint on a split; default the config's validation split.

    Args:
      checkpoint: `best`, `last`, or a step.
      name: another data set, as `other_split` takes it.
      split: another split.

    Raises:
      UserError: if the run, the checkpoint or the split is not there, or the split cannot be scored, see
        `open_scored`.
    """
    experiment = load_run(workdir)
    source = open_scored(experiment, scored(other_split(experiment.data.valid, name, split)))
    mesh = make_mesh()
    variables = restore_average(experiment, workdir, mesh, checkpoint)
    batch_size = -(-experiment.data.batch_size // mesh.size) * mesh.size
    predict = compile_predict(experiment.network, experiment.tasks, mesh, experiment.train.precision)
    options: dict[str, Any] = {"canvases": experiment.canvases, "batch_size": batch_size}
    options |= {"style": experiment.data.style, "regions": experiment.data.regions}
    return evaluate(predict, variables, source, mesh, **options)


def load_run(workdir: Path) -> Experiment:
    """The config that a run was trained with.

    Raises:
      UserError: if the folder is no run.
    """
    experiment = configs.load(workdir)
    if not isinstance(experiment, Experiment):
        raise UserError(f"{workdir} holds no experiment: name a folder that `ylosia train` made")
    return experiment


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def claim(workdir: Path, experiment: Experiment) -> None:
    """Writes the config into the run's folder, or checks that the folder belongs to the same config.

    Raises:
      UserError: if it belongs to another, or is no folder.
    """
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
