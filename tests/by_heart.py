"""A small experiment's whole chain on one batch that it sees again and again."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from optimised import OPTIMISED

from ylosia_jax.compiled import compile_step
from ylosia_jax.data.pipeline import prepare, stack
from ylosia_jax.evaluate import compile_predict, evaluate
from ylosia_jax.experiment import Experiment
from ylosia_jax.train.sharding import make_mesh, place_batch


def learn_by_heart(experiment: Experiment, steps: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Trains on the first batch of its source, as it is; returns the loss of every step, and the scores on the source.

    Steps are epochs: what chance chooses in a step is chosen anew in each.
    """
    data, mesh = experiment.data, make_mesh()
    source: Any = data.train
    compiled = compile_step(experiment, mesh, steps)
    examples = [
        prepare(source[i], i, 0, experiment.canvas, data.max_objects, experiment.needs) for i in range(data.batch_size)
    ]
    batch = place_batch(mesh, stack(examples))
    # Hundreds of steps are worth LLVM's optimisations.
    run = compiled.step.lower(compiled.form, compiled.batches[0]).compile(compiler_options=OPTIMISED)
    state, losses = compiled.init(), np.zeros(steps)
    for step in range(steps):
        state, metrics = run(state, batch.replace(epoch=jnp.full_like(batch.epoch, step)))
        losses[step] = metrics["loss"]
    predict = compile_predict(experiment.network, experiment.tasks, mesh)
    scores = evaluate(predict, state.average, source, mesh, canvases=experiment.canvases, batch_size=data.batch_size)
    return losses, scores
