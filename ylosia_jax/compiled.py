"""An experiment's training step, bound to a mesh of devices: what a run runs, and what a plan compiles."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Generator
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ylosia_jax.data.augment import augment
from ylosia_jax.experiment import Experiment
from ylosia_jax.train.checkpoint import abstract
from ylosia_jax.train.questions import Trainable
from ylosia_jax.train.sharding import batch_sharding, state_shardings
from ylosia_jax.train.step import State, init_state, make_train_step
from ylosia_jax.types import Batch, Objects, Rois, UserError


@dataclasses.dataclass(frozen=True)
class Compiled:
    """An experiment's training step over a mesh, ready to be run or lowered.

    Attributes:
      step: jitted `(state, batch) -> (state, metrics)`; the state is donated.
      form: shapes and shardings of the state.
      batches: those of a global batch on each canvas.
      init: makes the first state in place, by a jitted function.
    """

    step: Any
    form: Any
    batches: tuple[Batch, ...]
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
    init = functools.partial(init_state, experiment.network, experiment.optim, steps, experiment.canvas)
    key = jax.random.key(experiment.seed)
    with _misfits():
        form = jax.eval_shape(init, key)
    shardings = state_shardings(mesh, form, experiment.train.sharding)
    step = make_train_step(
        experiment.network,
        # The others only put answers together.
        {name: task for name, task in experiment.tasks.items() if isinstance(task, Trainable)},
        experiment.optim,
        steps,
        transform=functools.partial(transform, experiment),
        precision=experiment.train.precision,
        seed=experiment.seed,
    )
    jitted = jax.jit(
        step, in_shardings=(shardings, batch_sharding(mesh)), out_shardings=(shardings, None), donate_argnums=0
    )
    form = abstract(form, shardings)
    batches = tuple(batch_form(experiment, mesh, canvas) for canvas in experiment.canvases)
    with _misfits():
        for batch in batches:
            jitted.trace(form, batch)  # kept: the first call does not trace again
    # Random bits of sixty shapes take XLA's CPU backend 20 s to optimise, and a moment to compute as they are.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}
    # With the key as an argument all seeds share one program.
    make = jax.jit(init, out_shardings=shardings, compiler_options=options)
    return Compiled(step=jitted, form=form, batches=batches, init=functools.partial(make, key))


def batch_form(experiment: Experiment, mesh: jax.sharding.Mesh, canvas: tuple[int, int]) -> Batch:
    """Shapes and shardings of a global training batch on a canvas."""
    batch, rows, needs = experiment.data.batch_size, experiment.data.max_objects, experiment.needs

    def form(*shape: int, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct((batch, *shape), dtype, sharding=batch_sharding(mesh))

    count = needs.regions.count if needs.regions else 0
    regions = Rois(
        boxes=form(count, 4),
        valid=form(count, dtype=jnp.bool_),
        index=form(count, dtype=jnp.int32),
        kind=form(count, dtype=jnp.int32),
        canvas=canvas,
    )
    return Batch(
        image=form(*canvas, 3, dtype=jnp.uint8),
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
        source=form(needs.sources, dtype=jnp.bool_) if needs.sources else None,
        instances=form(*canvas, dtype=jnp.uint8) if needs.masks else None,
        semantic=form(*canvas, dtype=jnp.uint8) if needs.semantic else None,
        category=form(dtype=jnp.int32) if needs.categories else None,
        regions=regions if needs.regions else None,
    )


@contextlib.contextmanager
def _misfits() -> Generator[None]:
    """What a head or a task refuses while it is traced is the config's fault."""
    try:
        yield
    except (KeyError, ValueError) as error:
        what = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"the config's network, tasks and data do not fit together: {what}") from error


def transform(experiment: Experiment, batch: Batch, progress: jax.Array | float) -> Batch:
    """A batch from the host as the step sees it: augmented on the device, images as floats in [0, 1].

    Args:
      progress: of the run, from 0 to 1.
    """
    skeleton = experiment.data.skeleton
    return augment(
        experiment.augment,
        batch,
        experiment.seed,
        progress,
        mirror=skeleton.mirror if skeleton else (),
        fill=experiment.data.fill,
    )
