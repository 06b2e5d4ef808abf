"""A task that teaches, but answers nothing."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxtyping import Array, Float

from ylosia_jax.types import Batch, Label


@dataclasses.dataclass(frozen=True)
class Auxiliary:
    """Another task without its decode: in prediction its head's outputs are not used, and the compiler leaves it out.

    Attributes:
      task: what is learned.
    """

    task: Any

    @property
    def needs(self) -> frozenset[Label]:
        """The labels without which this cannot be learned."""
        return self.task.needs

    def encode(self, outputs: Mapping[str, Any], batch: Batch, targets: Mapping[str, Any]) -> Any:
        """The task's targets."""
        return self.task.encode(outputs, batch, targets)

    def loss(
        self, outputs: Mapping[str, Any], targets: Mapping[str, Any], batch: Batch
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The task's loss."""
        return self.task.loss(outputs, targets, batch)
