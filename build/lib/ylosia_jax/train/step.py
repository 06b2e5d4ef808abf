"""One training step: (state, batch) -> (state, metrics)."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray

from ylosia_jax.train.optim import Optim, learning_rate, make_optimizer, update_ema
from ylosia_jax.train.questions import Metrics, Trainable, cast_floats, selection, task_losses
from ylosia_jax.types import Batch

Step = Callable[["State", Batch], tuple["State", Metrics]]


@struct.dataclass
class State:
    """All that a run is: what a checkpoint holds beside the input iterator.

    Attributes:
      step: updates made.
      variables: `params` and the other collections (`batch_stats`) of the network.
      optimizer: Optax's state.
      average: moving average of `variables`; evaluation and prediction use it.
    """

    step: Array
    variables: dict[str, Any]
    optimizer: optax.OptState
    average: dict[str, Any]


def init_state(network: nn.Module, optim: Optim, steps: int, canvas: tuple[int, int], key: PRNGKeyArray) -> State:
    """A fresh state. Pure, so `jax.eval_shape` gives its form without computing it."""
    variables: Any = network.init(key, jnp.zeros((1, *canvas, 3)), train=False)
    optimizer = make_optimizer(optim, steps).init(variables["params"])
    # A copy: two leaves that share a buffer could not both be donated to the step.
    average = jax.tree.map(jnp.copy, variables)
    return State(step=jnp.zeros((), jnp.int32), variables=variables, optimizer=optimizer, average=average)


def make_train_step(
    network: nn.Module,
    tasks: Mapping[str, Trainable],
    optim: Optim,
    steps: int,
    *,
    transform: Callable[[Batch, Array], Batch],
    precision: Literal["float32", "bfloat16"] = "float32",
    seed: int = 0,
) -> Step:
    """Builds the step; the caller compiles it.

    The loss is written for the global batch; under `jit` over a mesh the partitioner adds the collectives, batch-norm
    statistics included.

    Args:
      tasks: by name, each after those whose targets it builds on.
      steps: of the whole run.
      transform: the augmentation, `(batch, progress) -> batch` with float images.
      precision: of the network's arithmetic. Parameters, statistics, boxes and losses stay float32.
      seed: of what a network draws for itself, such as dropout; with the step's number it decides.
    """
    optimizer = make_optimizer(optim, steps)
    schedule = learning_rate(optim, steps)

    def loss_fn(params: Any, others: Any, batch: Batch, key: PRNGKeyArray) -> tuple[Array, tuple[Any, Metrics]]:
        dtype = jnp.dtype(precision)
        outputs, updated = network.apply(
            {"params": cast_floats(params, dtype), **others},
            batch.image.astype(dtype),
            train=True,
            mutable=list(others),
            rngs={"dropout": key},
            **selection(tasks, {}, batch),
        )
        outputs = cast_floats(outputs, jnp.dtype("float32"))
        metrics: Metrics = {}
        total = jnp.zeros(())
        for name, (loss, parts) in task_losses(tasks, outputs, batch).items():
            metrics |= {f"loss/{name}": loss} | {f"loss/{name}/{part}": value for part, value in parts.items()}
            total += loss
        return total, (updated, {"loss": total, **metrics})

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        batch = transform(batch, state.step / steps)
        others = {name: value for name, value in state.variables.items() if name != "params"}
        params = state.variables["params"]
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        grads, (updated, metrics) = jax.grad(loss_fn, has_aux=True)(params, others, batch, key)
        updates, opt_state = optimizer.update(grads, state.optimizer, params)
        variables = {"params": optax.apply_updates(params, updates), **updated}
        count = state.step + 1
        average = update_ema(optim, state.average, variables, count)
        # As one vector, which the optimiser makes of the gradients too.
        metrics |= {"lr": jnp.asarray(schedule(state.step)), "grad_norm": jnp.linalg.norm(ravel_pytree(grads)[0])}
        return State(step=count, variables=variables, optimizer=opt_state, average=average), metrics

    return step
