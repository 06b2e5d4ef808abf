"""Whether the tasks pull in different directions: `python experiments/joint_vs_single/gradients.py RUNS`.

RUNS is the folder with `joint-0`, which run.py trained. Of each task's loss alone, the gradient by the parameters of
backbone and neck is taken at the run's last weights, without limits, over batches of its own training scenes. Writes
gradients.csv: the cosine of the angle between each two tasks' gradients in a batch, their lengths, and how far a task's
gradients of two batches agree.
"""

import argparse
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ylosia_jax.compiled import transform
from ylosia_jax.data.pipeline import prepare, stack
from ylosia_jax.experiment import Experiment, open_source
from ylosia_jax.files import write_atomically
from ylosia_jax.runs import load_run, restore_average
from ylosia_jax.train.questions import Trainable, task_losses
from ylosia_jax.train.sharding import make_mesh
from ylosia_jax.types import Batch

HERE = Path(__file__).parent


def gradients_of(experiment: Experiment, tasks: Mapping[str, Trainable]) -> Any:
    """Compiles (variables, batch) -> a row a task, its loss's gradient by all that the heads share."""
    network = experiment.network.clone(gradient_limits={})

    def gradients(variables: Any, batch: Batch) -> jax.Array:
        batch = transform(experiment, batch, 0.0)
        params = variables["params"]
        shared = {name: tree for name, tree in params.items() if not name.startswith("heads_")}

        def losses(shared: Any) -> jax.Array:
            outputs, _ = network.apply(
                {**variables, "params": params | shared}, batch.image, train=True, mutable=["batch_stats"]
            )
            return jnp.stack([loss for loss, _ in task_losses(tasks, outputs, batch).values()])

        back = jax.vjp(losses, shared)[1]
        return jax.lax.map(lambda one: ravel_pytree(back(one)[0])[0], jnp.eye(len(tasks)))

    return jax.jit(gradients)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--batches", type=int, default=32)
    options = parser.parse_args()
    run = options.runs / "joint-0"
    experiment = load_run(run)
    data = experiment.data
    variables = restore_average(experiment, run, make_mesh(), "last")
    tasks = {name: task for name, task in experiment.tasks.items() if isinstance(task, Trainable)}
    names = list(tasks)
    gradients, source, rows = gradients_of(experiment, tasks), open_source(experiment, data.train), []
    for number in range(options.batches):
        places = range(number * data.batch_size, (number + 1) * data.batch_size)
        shown = experiment.canvas, data.max_objects, experiment.needs, data.style
        items = [prepare(source[i], i, 0, *shown) for i in places]
        rows.append(np.asarray(gradients(variables, stack(items)), np.float64))
    found = np.stack(rows)  # [batches, tasks, parameters]
    lengths = np.linalg.norm(found, axis=2)
    # A batch without a figure has no gradient for poses, and no direction.
    unit = found / np.where(lengths > 0, lengths, np.nan)[..., None]
    lines = ["first,second,cosine,length_of_first,batches"]
    for i, first in enumerate(names):
        pairs = itertools.combinations(unit[:, i], 2)
        lines.append(f"{first},{first} of another batch,{np.nanmean([a @ b for a, b in pairs]):.3f},,{options.batches}")
        for j, second in enumerate(names):
            if i != j:
                cosine = np.nanmean(np.sum(unit[:, i] * unit[:, j], axis=1))
                lines.append(f"{first},{second},{cosine:.3f},{np.median(lengths[:, i]):.2f},{options.batches}")
    write_atomically(HERE / "gradients.csv", "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
