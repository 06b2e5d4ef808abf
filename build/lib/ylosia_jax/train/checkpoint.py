"""Orbax checkpoints: the state, the input iterator, the config. The best and the last are kept.

A checkpoint is written under a temporary name and renamed when it is whole, so a run that dies while saving (killed,
disk full) leaves the one before it intact.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from ylosia_jax.train.step import State
from ylosia_jax.types import UserError


class Checkpoints:
    """The `checkpoints/` folder of a run.

    Args:
      folder: made if it is missing.
      best_metric: name among the scores of an evaluation by which the best checkpoint is chosen, higher is better.
    """

    def __init__(self, folder: Path, best_metric: str) -> None:
        def score(scores: Mapping[str, float]) -> float:
            return scores[best_metric]

        self.folder = folder
        self.best_metric = best_metric
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(
                    [
                        policies.LatestN(1),
                        policies.BestN(get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False),
                    ]
                ),
                best_fn=score,
                step_prefix=None,
                cleanup_tmp_directories=True,
                # The loop waits for a save anyway before it goes on being able to lose less than it saved.
                enable_async_checkpointing=False,
            ),
        )

    def save(
        self,
        step: int,
        state: State,
        batches: grain.DatasetIterator | None,
        config: Mapping[str, Any],
        scores: Mapping[str, float] | None = None,
    ) -> None:
        """Writes a checkpoint; returns when it is whole.

        Args:
          batches: None before the first step, when nothing was read.

        Raises:
          UserError: if it could not be written, or the scores lack the one that chooses; those before it are intact.
        """
        if scores is not None and self.best_metric not in scores:
            self.save(step, state, batches, config)
            raise UserError(
                f"train.best_metric is {self.best_metric!r}, but the validation split has the scores "
                f"{', '.join(scores)}: set it to one of them, and start the same command again"
            )
        args = ocp.args.Composite(
            state=ocp.args.PyTreeSave(state),
            config=ocp.args.JsonSave(dict(config)),
            **({} if batches is None else {"batches": grain.checkpoint.CheckpointSave(batches)}),
        )
        try:
            self._manager.save(step, args=args, metrics=None if scores is None else dict(scores), force=True)
            self._manager.wait_until_finished()
        except Exception as error:
            last = self.last()
            intact = "there is no earlier one" if last is None else f"the one of step {last} is intact"
            raise UserError(
                f"the checkpoint of step {step} could not be written to {self.folder} ({_first_line(error)}); {intact}"
                ": free some space and start the same command again"
            ) from error

    def last(self) -> int | None:
        """Step of the newest whole checkpoint."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """Step of the best-scored one; the last if none was scored."""
        best = self._manager.best_step()
        return self.last() if best is None else best

    def steps(self) -> list[int]:
        """Steps of all that are kept."""
        return sorted(self._manager.all_steps())

    def restore(self, step: int, state: State) -> State:
        """Reads a state.

        Args:
          state: its form with shardings (`jax.ShapeDtypeStruct` leaves); arrays land as it says, whatever mesh wrote
            them.

        Raises:
          UserError: if it cannot be read: damaged, or replaced by its run in the meantime.
        """
        return self._restore(step, state)

    def restore_average(self, step: int, average: Any) -> Any:
        """Reads the average of a state alone, whatever optimiser it was trained with.

        Args:
          average: its form with shardings.

        Raises:
          UserError: as `restore` does.
        """
        return self._restore(step, {"average": average}, partial=True)["average"]

    def _restore(self, step: int, form: Any, *, partial: bool = False) -> Any:
        places = ocp.checkpoint_utils.construct_restore_args(form)
        args = ocp.args.PyTreeRestore(form, restore_args=places, partial_restore=partial)
        try:
            found = self._manager.restore(step, args=ocp.args.Composite(state=args))["state"]
            # A partial restore leaves forms where the checkpoint has nothing.
            if not all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(found)):
                raise ValueError("it lacks some of the parameters")
            return found
        except Exception as error:  # Orbax and TensorStore have no common one
            raise UserError(
                f"the checkpoint of step {step} in {self.folder} cannot be read: it is damaged, was replaced "
                f"meanwhile, or is of another network ({_first_line(error)}); name another of the steps {self.steps()}"
            ) from error

    def restore_batches(self, step: int, batches: grain.DatasetIterator) -> None:
        """Moves an input iterator to where it stood."""
        args = ocp.args.Composite(batches=grain.checkpoint.CheckpointRestore(batches))
        self._manager.restore(step, args=args)

    def close(self) -> None:
        """Frees the manager's threads."""
        self._manager.close()


def abstract(state: Any, shardings: Any) -> Any:
    """The form of a state with the shardings it shall have."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200] or type(error).__name__
