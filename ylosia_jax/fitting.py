"""What a network's task fits to its features when the last step is done, without gradients."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from ylosia_jax.data.order import buckets_of
from ylosia_jax.data.pipeline import prepare, stack
from ylosia_jax.experiment import Experiment
from ylosia_jax.ops.image import to_float
from ylosia_jax.train.questions import selection
from ylosia_jax.train.step import State
from ylosia_jax.types import Batch, Objects, Rois, Source


@runtime_checkable
class Fitting(Protocol):
    """What is asked of a task that is not learned by gradients alone."""

    head: str

    def fit(
        self, look: Callable[[Batch], Mapping[str, Any]], batches: Callable[[], Iterable[Batch]], /
    ) -> Mapping[str, np.ndarray]:
        """The collection `fitted` of the task's head.

        Args:
          look: the averaged network's outputs for a batch, with the objects' own boxes among its regions, the last.
          batches: one pass over the training images, as they are; an image that fills a batch has no valid region.
        """
        ...


def fit_tasks(experiment: Experiment, state: State, source: Source) -> State:
    """A state in which every task is fitted that has something to fit; others are as they were.

    Every host does all of it, on its first device, and finds the same.

    Args:
      source: the training split.
    """
    for name, task in experiment.tasks.items():
        if isinstance(task, Fitting):
            state = _fit(experiment, state, source, name, task)
    return state


def _fit(experiment: Experiment, state: State, source: Source, name: str, task: Fitting) -> State:
    average = jax.device_get(state.average)

    @jax.jit
    def outputs(variables: Any, image: Any, regions: Rois) -> Any:
        select = selection(experiment.tasks, {}, None, None, regions)
        return experiment.network.apply(variables, to_float(image), train=False, **select)

    def look(batch: Batch) -> Mapping[str, Any]:
        assert batch.regions is not None, "data.regions is not set"
        found: Any = outputs(average, batch.image, _with_objects(batch.regions, batch.objects))
        return jax.device_get(found)

    head = f"heads_{task.head}"
    fitted = task.fit(look, lambda: _batches(experiment, source))

    def replaced(variables: Mapping[str, Any]) -> dict[str, Any]:
        old = variables["fitted"][head]
        new = {key: jax.device_put(value, old[key].sharding) for key, value in fitted.items()}
        return {**variables, "fitted": {**variables["fitted"], head: new}}

    return state.replace(  # type: ignore[attr-defined]
        variables=replaced(state.variables), average=replaced(state.average)
    )


def _batches(experiment: Experiment, source: Source) -> Iterator[Batch]:
    data, needs, rows = experiment.data, experiment.needs, experiment.data.batch_size
    for canvas, places in zip(experiment.canvases, buckets_of(source, experiment.canvases), strict=True):
        for first in range(0, len(places), rows):
            shown = places[first : first + rows]
            items = [prepare(source[i], i, 0, canvas, data.max_objects, needs, data.style) for i in shown]
            blank = jax.tree.map(np.zeros_like, items[0])
            yield stack(items + [blank] * (rows - len(items)))


def _with_objects(regions: Rois, objects: Objects) -> Rois:
    """The regions, then the boxes of the single objects."""
    valid = objects.valid & ~objects.crowd
    none = jnp.zeros(valid.shape, jnp.int32)
    return dataclasses.replace(
        regions,
        boxes=jnp.concatenate([regions.boxes, objects.boxes], axis=1),
        valid=jnp.concatenate([regions.valid, valid], axis=1),
        index=jnp.concatenate([regions.index, none], axis=1),
        kind=jnp.concatenate([regions.kind, none], axis=1),
    )
