"""Classification: what an image as a whole shows.

Shape shorthand: B images, K classes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ylosia_jax.ops import sources
from ylosia_jax.types import Batch, Categories, Label


@dataclasses.dataclass(frozen=True)
class Classify:
    """What a classifier's logits mean.

    Attributes:
      num_classes: K.
      label_smoothing: share of the truth that is spread evenly over all classes (arXiv:1512.00567, section 7).
      auxiliary: heads whose logits are of the same classes, for training alone.
      auxiliary_weight: of each of their losses (GoogLeNet, arXiv:1409.4842, section 5).
      rubbish: logit of one more class, which no image is of; None for none. LeNet-5's -j, which keeps the logits of
        wrong classes from being pushed down for ever (LeCun et al. 1998, equation 9).
      head: whose outputs these are: [B, K] logits.
    """

    num_classes: int
    label_smoothing: float = 0.0
    auxiliary: tuple[str, ...] = ()
    auxiliary_weight: float = 0.3
    rubbish: float | None = None
    head: str = "classification"

    @property
    def needs(self) -> frozenset[Label]:
        """The labels without which this cannot be learned."""
        return frozenset({"category"})

    def encode(self, outputs: Mapping[str, Any], batch: Batch, targets: Mapping[str, Any]) -> Int[Array, " B"]:
        """Each image's class, -1 where nobody said.

        Raises:
          ValueError: if the batch has no categories, or a head's logits are of another number of classes.
        """
        if batch.category is None:
            raise ValueError("the batch has no categories")
        for head in (self.head, *self.auxiliary):
            if (found := outputs[head].shape[-1]) != self.num_classes:
                raise ValueError(f"the task has {self.num_classes} classes, the logits of the head {head!r} {found}")
        return batch.category.astype(jnp.int32)

    def loss(
        self, outputs: Mapping[str, Any], targets: Mapping[str, Any], batch: Batch
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Cross entropy, the mean over the labelled images of the global batch, or of each set of a mixture."""
        truth: Array = targets[self.head]
        labelled = truth >= 0
        wanted = optax.smooth_labels(jax.nn.one_hot(truth, self.num_classes), self.label_smoothing)
        wanted = wanted if self.rubbish is None else jnp.pad(wanted, ((0, 0), (0, 1)))

        def mean(head: str) -> Array:
            cross = optax.softmax_cross_entropy(self._logits(outputs, head), wanted)
            return sources.mean_over_batch(jnp.where(labelled, cross, 0), labelled, batch.source)

        parts = {"cross_entropy": mean(self.head)}
        parts |= {head: self.auxiliary_weight * mean(head) for head in self.auxiliary}
        return sum(parts.values(), start=jnp.zeros(())), parts

    def decode(self, outputs: Mapping[str, Any], answers: Mapping[str, Any]) -> Categories:
        """Softmax scores, which add up to 1, or to less where rubbish takes its share."""
        scores = jax.nn.softmax(self._logits(outputs, self.head))
        return Categories(scores=scores[:, : self.num_classes])

    def _logits(self, outputs: Mapping[str, Any], head: str) -> Array:
        """[B, K] logits of a head, and after them the rubbish class's."""
        logits: Array = outputs[head]
        if self.rubbish is None:
            return logits
        return jnp.pad(logits, ((0, 0), (0, 1)), constant_values=self.rubbish)
