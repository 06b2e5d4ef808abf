"""The one loop: every system trains here, with its own step."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import grain
import jax

from ylosia_jax.train.checkpoint import Checkpoints
from ylosia_jax.train.log import Log
from ylosia_jax.train.sharding import Rules
from ylosia_jax.train.step import State
from ylosia_jax.types import Batch, Stopped, UserError


@dataclasses.dataclass(frozen=True)
class Train:
    """How long, how precise, how often.

    Attributes:
      epochs: passes over the training split; batches run across epochs' seams, so it need not be whole.
      steps: updates; where it is set it decides, and `epochs` is ignored.
      precision: of the network's arithmetic; boxes, losses, statistics and parameters are float32 in any case.
      log_every: steps between rows of metrics.csv.
      evaluate_every: epochs between evaluations; one follows the last step in any case.
      checkpoint_every: steps between checkpoints; every evaluation is followed by one too.
      best_metric: which score chooses the best checkpoint.
      sharding: (regex, rule) pairs for parameters; empty replicates all.
    """

    epochs: float = 1.0
    steps: int | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    log_every: int = 10
    evaluate_every: float = 10.0
    checkpoint_every: int = 500
    best_metric: str = "box/AP"
    sharding: Rules = ()

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps is {self.steps}: give at least 1")
        if self.epochs <= 0:
            raise ValueError(f"epochs is {self.epochs}: give more than 0")
        for name in ("log_every", "checkpoint_every", "evaluate_every"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: give more than 0")

    def total_steps(self, examples: int, batch_size: int) -> int:
        """Updates of the whole run."""
        return self.steps or math.ceil(self.epochs * examples / batch_size)


def train_loop(
    config: Train,
    state: State,
    step: Callable[[State, Batch], tuple[State, Mapping[str, jax.Array]]],
    batches: grain.DatasetIterator,
    *,
    steps: int,
    batch_size: int,
    examples: int,
    place: Callable[[Batch], Batch],
    compiles: Callable[[], int],
    evaluate: Callable[[State], Mapping[str, float]],
    checkpoints: Checkpoints,
    settings: Mapping[str, Any],
    log: Log,
    asked_to_stop: Callable[[int], bool] = lambda step: False,
    finish: Callable[[State], State] = lambda state: state,
) -> State:
    """Runs from the state's step to `steps`.

    Args:
      step: compiled.
      batches: this host's rows; already where the state's step left it.
      examples: in the training split, to count epochs.
      place: host rows -> global arrays.
      compiles: how often `step` was compiled so far.
      evaluate: scores by name (`box/AP`).
      settings: the config, saved in each checkpoint.
      asked_to_stop: whether to save and leave after this step.
      finish: what is done to the state of the last step before it is evaluated and saved.

    Raises:
      UserError: when a loss is not finite (names the step and the last good checkpoint).
      Stopped: when asked to stop; the checkpoint of that step is written.
    """
    every = max(round(config.evaluate_every * examples / batch_size), 1)
    start = int(state.step)
    pending: list[Mapping[str, jax.Array]] = []
    waited, since = 0.0, time.perf_counter()

    for count in range(start + 1, steps + 1):
        before = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - before
        state, metrics = step(state, place(batch))
        pending.append(metrics)

        # The last step is evaluated in any case, and makes one shortly before it needless.
        evaluates = count == steps or (count % every == 0 and steps - count >= every / 2)
        stops = asked_to_stop(count) and count < steps
        saves = evaluates or stops or count % config.checkpoint_every == 0
        if count % config.log_every == 0 or saves:
            # Reading the numbers waits for the device; between log steps the host runs ahead of it.
            rows = jax.device_get(pending)
            _refuse_nan(rows, count - len(rows), checkpoints)
            took = time.perf_counter() - since
            row = {name: sum(float(r[name]) for r in rows) / len(rows) for name in rows[0]}
            row |= {
                "lr": float(rows[-1]["lr"]),
                "epoch": count * batch_size / examples,
                "images_per_second": len(rows) * batch_size / took,
                "host_wait": waited / took,
                "compiles": compiles(),
            }
            log.write(count, row)
            pending = []
        if count == steps:
            state = finish(state)
        if saves:
            scores = evaluate(state) if evaluates else None
            if scores is not None:
                log.scores(count, dict(scores))
            checkpoints.save(count, state, batches, settings, scores)
        if stops:
            raise Stopped(f"stopped at step {count} of {steps}, which is saved: the same command goes on from there")
        if not pending:
            waited, since = 0.0, time.perf_counter()
    return state


def _refuse_nan(rows: list[Mapping[str, Any]], before: int, checkpoints: Checkpoints) -> None:
    for i, row in enumerate(rows, start=before + 1):
        bad = [name for name, value in row.items() if not math.isfinite(float(value))]
        if bad:
            good = checkpoints.last()
            kept = "no checkpoint was saved yet" if good is None else f"the last good checkpoint is step {good}"
            raise UserError(
                f"step {i}: {bad[0]} is {float(row[bad[0]])}; {kept} (in {checkpoints.folder}). "
                "A lower optim.lr, a longer optim.warmup_steps or train.precision float32 are the usual remedies"
            )
