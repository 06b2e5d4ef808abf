import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from ylosia_jax.train.log import Log, read_rows
from ylosia_jax.train.loop import Train, train_loop
from ylosia_jax.types import Stopped, UserError


class Counter(Iterator[int]):
    """An input iterator that Grain's checkpoint handler can save: it counts."""

    def __init__(self) -> None:
        self.count = 0

    def __next__(self) -> int:
        self.count += 1
        return self.count


@dataclasses.dataclass
class Numbers:
    step: Any


Saved = list[tuple[int, dict[str, float] | None]]


def run(
    folder: Path,
    losses: list[float],
    config: Train,
    saved: Saved | None = None,
    asked_to_stop: Callable[[int], bool] = lambda step: False,
) -> Saved:
    """Runs the loop over given losses, with a recorder in place of checkpoints."""
    saved = [] if saved is None else saved

    class Recorder:
        def __init__(self) -> None:
            self.folder = folder

        def save(self, step: int, state: Any, batches: Any, settings: Any, scores: Any) -> None:
            saved.append((step, scores))

        def last(self) -> int | None:
            return saved[-1][0] if saved else None

    def step(state: Any, batch: int) -> tuple[Any, dict[str, Any]]:
        return Numbers(state.step + 1), {"loss": jnp.float32(losses[batch - 1]), "lr": jnp.float32(0.1)}

    with Log(folder, 0, len(losses)) as log:
        train_loop(
            config,
            Numbers(0),  # type: ignore[arg-type]
            step,
            Counter(),  # type: ignore[arg-type]
            steps=len(losses),
            batch_size=2,
            examples=8,
            place=lambda batch: batch,
            compiles=lambda: 1,
            evaluate=lambda state: {"box/AP": float(state.step)},
            checkpoints=Recorder(),  # type: ignore[arg-type]
            settings={},
            log=log,
            asked_to_stop=asked_to_stop,
        )
    return saved


def test_it_logs_evaluates_and_saves_when_the_config_says(tmp_path: Path) -> None:
    config = Train(log_every=4, evaluate_every=1.5, checkpoint_every=5)
    saved = run(tmp_path, [float(i) for i in range(1, 15)], config)
    # Six steps are an epoch and a half; the last step is evaluated in any case, and step 12 is too near to it.
    assert [step for step, _ in saved] == [5, 6, 10, 14]
    assert [step for step, scores in saved if scores] == [6, 14]
    rows = read_rows(tmp_path / "metrics.csv")
    assert [int(row["step"]) for row in rows] == [4, 5, 6, 8, 10, 12, 14]
    np.testing.assert_allclose([float(row["loss"]) for row in rows], [2.5, 5, 6, 7.5, 9.5, 11.5, 13.5])
    np.testing.assert_allclose(float(rows[-1]["epoch"]), 14 * 2 / 8)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_and_names_step_and_checkpoint(tmp_path: Path, value: float) -> None:
    losses = [1.0] * 20
    losses[12] = value
    with pytest.raises(UserError, match=r"step 13: loss is (nan|inf); the last good checkpoint is step 10"):
        run(tmp_path, losses, Train(log_every=5, evaluate_every=100, checkpoint_every=5))


def test_asked_to_stop_it_saves_and_leaves(tmp_path: Path) -> None:
    saved: Saved = []
    with pytest.raises(Stopped, match="step 7 of 20"):
        run(tmp_path, [1.0] * 20, Train(evaluate_every=100), saved, lambda step: step >= 7)
    assert saved == [(7, None)]
    assert [row["step"] for row in read_rows(tmp_path / "metrics.csv")] == ["7"]


def test_asked_to_stop_at_the_last_step_it_ends_as_ever(tmp_path: Path) -> None:
    saved = run(tmp_path, [1.0] * 5, Train(evaluate_every=100), asked_to_stop=lambda step: step >= 5)
    assert saved == [(5, {"box/AP": 5.0})]


def test_steps_decide_over_epochs() -> None:
    assert Train(epochs=2.5).total_steps(10, 4) == 7
    assert Train(epochs=2.5, steps=3).total_steps(10, 4) == 3


@pytest.mark.parametrize("field", ["steps", "epochs", "log_every", "evaluate_every", "checkpoint_every"])
def test_lengths_below_their_least_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=rf"{field} is 0"):
        Train(**{field: 0})
