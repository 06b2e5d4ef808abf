"""What a task that is fitted after the last step is shown."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from ylosia_jax import config
from ylosia_jax.data.scenes import Scenes
from ylosia_jax.fitting import fit_tasks
from ylosia_jax.train.step import State
from ylosia_jax.types import Batch

TINY = Path(__file__).parent / "tiny.py"


class Seen:
    """A task that keeps what it is shown."""

    head = "box"
    needs: frozenset[str] = frozenset()
    batches: list[Batch]

    def fit(
        self, look: Callable[[Batch], Mapping[str, Any]], batches: Callable[[], Iterable[Batch]], /
    ) -> Mapping[str, np.ndarray]:
        self.batches = list(batches())
        return {"weight": np.ones(2)}


def test_pictures_are_drawn_as_in_training_and_all_of_them_once() -> None:
    task, base = Seen(), config.load(TINY)
    data = dataclasses.replace(base.data, batch_size=4, fill=7)
    experiment = dataclasses.replace(base, data=data, tasks={**base.tasks, "seen": task})
    variables = {"params": {}, "fitted": {"heads_box": {"weight": jnp.zeros(2)}}}
    state = State(step=jnp.zeros((), int), variables=variables, average=variables, optimizer=())
    fitted = fit_tasks(experiment, state, Scenes("train", size=6, image_size=(64, 128)))
    assert [batch.image.shape for batch in task.batches] == [(4, 64, 64, 3)] * 2
    images = np.concatenate([batch.image for batch in task.batches])
    assert (images[:6, 32:] == 7).all()
    assert [int(i) for batch in task.batches for i in batch.index][:6] == list(range(6))
    for found in (fitted.variables, fitted.average):
        np.testing.assert_array_equal(found["fitted"]["heads_box"]["weight"], 1)
