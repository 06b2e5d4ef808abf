"""Foreign weights as a run before its first step: to be evaluated, to predict with, to train on from."""

import contextlib
import dataclasses
import os
import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ylosia_jax import config as configs
from ylosia_jax.convert.coco import OUTPUTS, cut_to_categories
from ylosia_jax.convert.files import read
from ylosia_jax.convert.layout import path_of, to_variables
from ylosia_jax.convert.layouts import choose
from ylosia_jax.data.coco_classes import THINGS
from ylosia_jax.experiment import Experiment
from ylosia_jax.runs import claim
from ylosia_jax.train.checkpoint import Checkpoints
from ylosia_jax.train.optim import make_optimizer
from ylosia_jax.train.step import State
from ylosia_jax.types import UserError

# A class more shows most layers that depend on their number, a thousand more those whose width stops growing with it.
_MORE = (1, 1000)


@dataclasses.dataclass(frozen=True)
class Taken:
    """What was imported.

    Attributes:
      layout: the name of the one that was chosen.
      taken: leaves that came from the file.
      fresh: paths of those that did not.
      notes: what was done to the file's names.
    """

    layout: str
    taken: int
    fresh: tuple[str, ...]
    notes: tuple[str, ...]


def import_weights(
    file: Path,
    experiment: Experiment,
    workdir: Path,
    *,
    num_classes: int | None = None,
    only: str | None = None,
    layout: str | None = None,
) -> Taken:
    """Makes a run of a file of foreign weights: its checkpoint of step 0 has them as variables and as their average.

    Every leaf of the network must be in the file and fit, and every tensor of the file must be asked for. For a network
    of COCO's 80 things, answers for COCO's 91 numbers are cut to these, see `convert.coco`. Leaves that are not taken
    from it are what training from `experiment.seed` would begin with.

    Args:
      file: see `convert.files.read`.
      experiment: of which the folder will be a run: `runs.train` goes on from it with the same one alone.
      workdir: not there yet, or empty; it becomes a run at once, when all is done.
      num_classes: the number of classes of `experiment`, for a file with another: the layers that depend on it are not
        taken from the file, see `class_leaves`.
      only: regex for the beginning of paths (`backbone/…/kernel`): only these leaves are taken. The file may then be
        that of a network with other parts, see `convert.layout.beside`.
      layout: what the file's tensors are called, by the layout's name in `convert.layouts.LAYOUTS`; None for the one
        that fits.

    Raises:
      UserError: on anything the user can mend: the folder, the file, tensors that are missing, left over or misfit.
    """
    # What costs little is checked first, and everything before anything is written.
    _refuse_used(workdir)
    if num_classes is not None:
        _check_number(experiment, num_classes)
    tensors = read(file)
    form = _form(experiment)
    leaves = [path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(form)]
    renewed: set[str] = set()
    if only is not None:
        renewed |= set(leaves) - _matching(leaves, only)
    # With its layers for other classes: by them a detector's file is told from its backbone's.
    held = [path.partition("/")[2] for path in leaves if path not in renewed]
    if num_classes is not None:
        renewed |= class_leaves(experiment)
    if renewed >= set(leaves):
        raise UserError("nothing is left to import: leave out --num-classes, or let --only name more")
    try:
        chosen = choose(tensors.arrays, held, layout, whole=[path.partition("/")[2] for path in leaves])
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    arrays, notes = tensors.arrays, tensors.notes
    if num_classes is None and experiment.data.classes == THINGS:
        cut = cut_to_categories(arrays, chosen.per_class)
        if cut is not None:
            notes = (*notes, f"answers for {OUTPUTS} numbers were cut to those for COCO's {len(THINGS)} categories")
            arrays = cut
    convert = dict[str, Any](renewed=frozenset(renewed), partial=only is not None)
    try:
        variables = to_variables(arrays, chosen, form, **convert)
    except UserError as error:
        hint = ""
        if num_classes is None:
            others = dict[str, Any](convert, renewed=renewed | class_leaves(experiment))
            with contextlib.suppress(UserError):  # unless something else is wrong, too
                to_variables(arrays, chosen, form, **others)
                count = len(experiment.data.classes) or len(experiment.data.stuff)
                hint = f". It knows other classes: --num-classes {count} starts the layers that depend on them anew"
        raise UserError(f"{file}: {error}{hint}") from error
    if renewed:
        variables = to_variables(arrays, chosen, form, fresh=_fresh(experiment), **convert)
    _write(workdir, experiment, jax.tree.map(jnp.asarray, variables))
    return Taken(chosen.name, len(leaves) - len(renewed), tuple(sorted(renewed)), notes)


def class_leaves(experiment: Experiment) -> frozenset[str]:
    """Paths of the leaves whose shapes depend on the number of classes, found by asking for other numbers."""
    shapes = [_shapes(_form(experiment))]
    fields = [path for path in configs.flatten(experiment.network) if path.rpartition(".")[2] == "num_classes"]
    now = configs.flatten(experiment.network)
    for more in _MORE:
        words = [word for path in fields for word in (f"--{path}", str(now[path] + more))]
        shapes.append(_shapes(_form(experiment, configs.override(experiment.network, words))))
    return frozenset(path for path, shape in shapes[0].items() if any(other[path] != shape for other in shapes[1:]))


def _form(experiment: Experiment, network: nn.Module | None = None) -> Any:
    """Shapes of the variables of the experiment's network, or of another."""
    image = jax.ShapeDtypeStruct((1, *experiment.canvas, 3), jnp.float32)
    init = (network or experiment.network).init
    try:
        return jax.eval_shape(lambda key, image: init(key, image, train=False), jax.random.key(0), image)
    except (KeyError, ValueError) as error:
        raise UserError(f"the config's network does not fit together: {error}") from error


def _shapes(form: Any) -> dict[str, tuple[int, ...]]:
    return {path_of(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(form)}


def _fresh(experiment: Experiment) -> Any:
    """The variables that training would begin with."""

    def init() -> Any:
        image = jnp.zeros((1, *experiment.canvas, 3))
        return experiment.network.init(jax.random.key(experiment.seed), image, train=False)

    # As `compiled` does: quick to compile on a CPU, and the same numbers.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}
    return jax.jit(init, compiler_options=options)()


def _matching(leaves: Collection[str], only: str) -> set[str]:
    try:
        found = {path for path in leaves if re.match(only, path.partition("/")[2])}
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(f"--only {only}: it is no regular expression ({error})") from error
    if not found:
        parts = sorted({path.split("/")[1] for path in leaves})
        near = configs.nearest(only, parts)
        raise UserError(f"--only {only} is no beginning of a path: did you mean {near}? There are {', '.join(parts)}")
    return found


def _check_number(experiment: Experiment, num_classes: int) -> None:
    things, stuff = len(experiment.data.classes), len(experiment.data.stuff)
    if num_classes not in (things, things + stuff):
        raise UserError(
            f"--num-classes is {num_classes}, but data.classes of the config has {things} names"
            f"{f' and data.stuff {stuff}' if stuff else ''}: give the config's number, or change the config"
        )


def _refuse_used(workdir: Path) -> None:
    try:
        there = workdir.resolve()
    except (OSError, RuntimeError) as error:  # what Python 3.11 says of links in a circle
        raise UserError(f"{workdir} is a link that leads nowhere ({error}): give another --workdir") from error
    if there == Path.cwd() or there.is_mount():
        # It is put there whole, in the place of what is there.
        raise UserError(f"{workdir} cannot be replaced, it is in use: give a folder inside it as --workdir")
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"{workdir} is not a folder: give another --workdir")
    if workdir.is_dir() and any(workdir.iterdir()):
        what = "has a checkpoint" if (workdir / "checkpoints").exists() else "is not empty"
        raise UserError(f"{workdir} {what}: weights are imported into a new run, give another --workdir")


def _write(workdir: Path, experiment: Experiment, variables: Any) -> None:
    """Makes the run beside its folder's place, and moves it there whole."""
    workdir = workdir.resolve()
    experiment = dataclasses.replace(experiment, workdir=str(workdir))
    optimizer = make_optimizer(experiment.optim, 1)  # its form does not depend on the number of steps
    state = State(
        step=jnp.zeros((), jnp.int32),
        variables=variables,
        optimizer=optimizer.init(variables["params"]),
        average=variables,
    )
    temporary = workdir.with_name(f".{workdir.name}.tmp{os.getpid()}")
    try:
        claim(temporary, experiment)
        with contextlib.closing(Checkpoints(temporary / "checkpoints", experiment.train.best_metric)) as checkpoints:
            checkpoints.save(0, state, None, configs.to_json(experiment))
        temporary.replace(workdir)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
