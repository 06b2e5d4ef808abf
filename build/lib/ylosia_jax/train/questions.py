"""What training and prediction ask of tasks, and in which order."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ylosia_jax.types import Batch, Detections, Rois

Metrics = dict[str, Float[Array, ""]]


@runtime_checkable
class Trainable(Protocol):
    """What the step asks of a task. All of them see all outputs; each sees the targets of those before it."""

    def encode(self, outputs: Mapping[str, Any], batch: Batch, targets: Mapping[str, Any], /) -> Any:
        """What the outputs are asked for; no gradient flows through it."""
        ...

    def loss(
        self, outputs: Mapping[str, Any], targets: Mapping[str, Any], batch: Batch, /
    ) -> tuple[Float[Array, ""], Metrics]:
        """The loss over the global batch, and its parts by name."""
        ...


@runtime_checkable
class Decoder(Protocol):
    """What prediction asks of a task. All of them see all outputs; each sees the answers of those before it."""

    def decode(self, outputs: Mapping[str, Any], answers: Mapping[str, Any], /) -> Any:
        """The answer on the canvas, in arrays with a batch axis."""
        ...


@runtime_checkable
class Selecting(Protocol):
    """What a network of two stages asks of the task of a head that proposes regions, or looks into some."""

    def select(self, outputs: Mapping[str, Any], answers: Mapping[str, Any], batch: Batch | None, /) -> Rois:
        """The regions that the task's head proposes or looks into; no gradient flows through them.

        Args:
          outputs: what the network answered so far.
          answers: in prediction what the tasks before this one decoded; empty in training.
          batch: the truth, in training; None in prediction.
        """
        ...


def cast_floats(tree: Any, dtype: jnp.dtype) -> Any:
    """Casts floating-point leaves."""
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def task_losses(
    tasks: Mapping[str, Trainable], outputs: Mapping[str, Any], batch: Batch
) -> dict[str, tuple[Float[Array, ""], Metrics]]:
    """Each task's loss over the global batch, and its parts. Through the targets flows no gradient.

    Args:
      tasks: by name, each after those whose targets it builds on.
      outputs: of the network, by head.
    """
    targets: dict[str, Any] = {}
    for name, task in tasks.items():
        targets[name] = jax.lax.stop_gradient(task.encode(outputs, batch, targets))
    return {name: task.loss(outputs, targets, batch) for name, task in tasks.items()}


def decode_tasks(
    tasks: Mapping[str, Any],
    outputs: Mapping[str, Any],
    answers: dict[str, Any],
    *,
    known: Bool[Array, "B K"] | None = None,
    until: str | None = None,
) -> None:
    """Adds to `answers` what each task decodes, in their order; what is there already stays.

    Tasks that are no `Decoder` have no part in it.

    Args:
      outputs: float32, by head.
      known: the classes that are asked for; None for all. Detections of others are made invalid, for the tasks that
        come after too.
      until: only the tasks before this one.
    """
    for name, task in tasks.items():
        if name == until:
            return
        if name not in answers and isinstance(task, Decoder):
            answer = task.decode(outputs, answers)
            if known is not None and isinstance(answer, Detections):
                asked = jnp.take_along_axis(known, answer.labels, axis=1)
                answer = answer.replace(valid=answer.valid & asked)  # type: ignore[attr-defined]
            answers[name] = answer


def selection(
    tasks: Mapping[str, Any],
    answers: dict[str, Any],
    batch: Batch | None,
    known: Bool[Array, "B K"] | None = None,
    regions: Rois | None = None,
) -> dict[str, Any]:
    """The argument `select` of a network of two stages (`models.two_stage`); nothing for tasks of any other.

    Args:
      tasks: by name, which is that of their head.
      answers: in prediction, what the tasks before the one that is asked decode is added here.
      batch: the truth, in training; None in prediction.
      known: as in `decode_tasks`.
      regions: found outside of the network, for one that proposes none; in training the batch's own.
    """
    if not any(isinstance(task, Selecting) for task in tasks.values()):
        return {}

    given = regions if batch is None else batch.regions

    def select(name: str, outputs: Mapping[str, Any]) -> Rois:
        outputs = cast_floats(dict(outputs), jnp.dtype("float32"))
        if given is not None:
            outputs = {"proposals": given, **outputs}
        if batch is None:
            decode_tasks(tasks, outputs, answers, known=known, until=name)
        return jax.lax.stop_gradient(tasks[name].select(outputs, answers, batch))

    return {"select": select}
