"""The optimiser: Optax, put together from numbers."""

import dataclasses
import re
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array


@dataclasses.dataclass(frozen=True)
class Optim:
    """How parameters move.

    Attributes:
      optimizer: AdamW (arXiv:1711.05101), or SGD with Nesterov momentum or plain.
      lr: the peak, reached after the warm-up; not rescaled by the batch size.
      momentum: of SGD, or Adam's first.
      weight_decay: on kernels only; norms and biases are left alone. Decoupled in AdamW, L2 in SGD.
      warmup_steps: linear from 0 to `lr`.
      schedule: what follows: a cosine to `final_lr`; a tenth after each of `milestones`; (1 - progress)**0.9, DeepLab's
        (arXiv:1706.05587, section 4.1); or nothing.
      final_lr: where the cosine ends, as a share of `lr`.
      milestones: shares of the run after which the rate falls to a tenth, with the schedule "step".
      clip: largest norm of the whole gradient; 0 leaves it alone.
      ema_decay: of the moving average of weights that evaluation and prediction use.
      ema_warmup: steps over which the average's memory grows: its decay is ema_decay * (1 - exp(-step / ema_warmup)).
      frozen: regexes; parameters in whose paths (`backbone/stem/conv/kernel`) one is found stay as they are.
    """

    optimizer: Literal["adamw", "sgd", "plain_sgd"] = "adamw"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.05
    warmup_steps: int = 100
    schedule: Literal["cosine", "step", "poly", "constant"] = "cosine"
    final_lr: float = 0.01
    milestones: tuple[float, ...] = (0.67, 0.89)
    clip: float = 10.0
    ema_decay: float = 0.9998
    ema_warmup: int = 2000
    frozen: tuple[str, ...] = ()


def learning_rate(config: Optim, steps: int) -> optax.Schedule:
    """Linear warm-up, then the schedule to the last of `steps`."""
    warmup = min(config.warmup_steps, max(steps - 1, 1))
    last = max(steps, warmup + 1)
    match config.schedule:
        case "cosine":
            return optax.warmup_cosine_decay_schedule(0.0, config.lr, warmup, last, config.lr * config.final_lr)
        case "step":
            falls = {round(share * last) - warmup: 0.1 for share in config.milestones}
            after = optax.piecewise_constant_schedule(config.lr, falls)
        case "poly":
            after = optax.polynomial_schedule(config.lr, 0.0, 0.9, last - warmup)
        case "constant":
            after = optax.constant_schedule(config.lr)
    return optax.join_schedules([optax.linear_schedule(0.0, config.lr, warmup), after], [warmup])


def make_optimizer(config: Optim, steps: int) -> optax.GradientTransformation:
    """Clipping, then the optimiser with its schedule and decay.

    Clipping and moments see all parameters as one vector: a network has hundreds of them, and every step of the update
    would be a loop, or a kernel, for each. It takes a tenth off the time of a small network's training step on a CPU.
    """

    def kernels(params: Any) -> Any:
        return jax.tree.map(lambda p: p.ndim > 1, params)

    def frozen(params: Any) -> Any:
        def matches(path: Any, _: Any) -> bool:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            return any(re.search(pattern, name) for pattern in config.frozen)

        return jax.tree_util.tree_map_with_path(matches, params)

    schedule = learning_rate(config, steps)
    clip = optax.clip_by_global_norm(config.clip) if config.clip > 0 else optax.identity()
    decay = optax.add_decayed_weights(config.weight_decay, kernels)
    if config.optimizer == "adamw":
        moments = optax.flatten(optax.chain(clip, optax.scale_by_adam(b1=config.momentum)))
        optimizer = optax.chain(moments, decay, optax.scale_by_learning_rate(schedule))
    else:
        sgd = optax.sgd(schedule, momentum=config.momentum, nesterov=config.optimizer == "sgd")
        optimizer = optax.chain(optax.flatten(clip), decay, optax.flatten(sgd))
    if not config.frozen:
        return optimizer
    # Before too: what does not move shall not weigh in the norm that is clipped.
    still = optax.masked(optax.set_to_zero(), frozen)
    return optax.chain(still, optimizer, still)


def update_ema(config: Optim, average: Any, new: Any, step: Array) -> Any:
    """Moves the average towards `new` after update number `step`, the first being 1."""
    decay = config.ema_decay * (1 - jnp.exp(-step / config.ema_warmup))
    return jax.tree.map(lambda a, b: a * decay + b * (1 - decay), average, new)
