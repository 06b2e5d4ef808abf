"""Gradients and training, ours beside torch's.

In single precision rounding decides for one in a million units whether its ReLU is on, and for an anchor between two
objects which it learns, in each framework its own way. In a deep network that alone moves the gradients of some
parameters by more than a thousandth, torch's from torch's own in double precision, and twenty steps blow it up. So:

- gradients are compared in double precision on both sides, in which little is left to rounding. Anchors are constants
  in single precision, here and in torchvision;
- ours in single precision may be as far from torch's in double as 1e-3. A network of which a test says that rounding
  decides may be farther: every weight of torch's is moved by a rounding error, eight times, and ours may be three times
  as far as the farthest of torch's gradients in single precision, of which each shows a few of the units that may turn;
- small networks train in double precision; those in full size, whose steps in it take minutes, in single.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import optax
from optimised import LOOPS
from parity.record import record
from parity.reference import numpy, torch

from ylosia_jax.convert.layout import Layout, to_variables

Gradients = Mapping[str, np.ndarray]
# Of a model and the type of its numbers.
Loss = Callable[[Any, Any], Any]
STEPS = 20


def gradients_of(model: Any) -> dict[str, np.ndarray]:
    """By the parameters' names."""
    return {name: numpy(value.grad).copy() for name, value in model.named_parameters()}


def loss_and_gradients(model: Any, loss: Loss, kind: Any) -> tuple[float, dict[str, np.ndarray]]:
    """torch's, in numbers of a type; the model is afterwards what it was before."""
    with restored(model):
        value = loss(model.to(kind), kind)
        value.backward()
        return value.item(), gradients_of(model)


def distance(ours: Any, theirs: Gradients, layout: Layout, floor: float, vanishing: Collection[str] = ()) -> float:
    """The largest distance in norm of a parameter's gradient from theirs, relative to theirs; see `compare_gradients`.

    Args:
      ours: of `params`.
    """
    whole = np.sqrt(sum(float((value.astype(np.float64) ** 2).sum()) for value in theirs.values()))
    wanted, errors = _as_ours(theirs, ours, layout), []
    # As NumPy's: JAX would compile every shape's difference.
    for (path, found), value in zip(jax.tree.leaves_with_path(ours), jax.tree.leaves(wanted), strict=True):
        found, norm = np.asarray(found), np.linalg.norm(value)
        if layout.name_of(jax.tree_util.keystr(path, simple=True, separator="/")) in vanishing:
            assert max(np.linalg.norm(found), norm) < 1e-5
        else:
            errors.append(float(np.linalg.norm(found - value) / max(norm, floor * whole)))
    return max(errors)


def compare_gradients(
    name: str,
    ours: Any,
    model: Any,
    loss: Loss,
    layout: Layout,
    *,
    floor: float = 0.0,
    vanishing: Collection[str] = (),
    rounding: bool = False,
) -> None:
    """Records how far our gradient in single precision is from theirs in double.

    Args:
      ours: of `params`.
      loss: theirs.
      floor: share of the whole gradient's norm that no parameter's counts as smaller than. What norms leave nothing of,
        such as a bias before one, has a gradient of rounding errors alone.
      vanishing: names of theirs that have no gradient but rounding errors, below 1e-5.
      rounding: whether rounding decides, so that 1e-3 cannot be asked for.
    """
    theirs = loss_and_gradients(model, loss, torch.float64)[1]
    error, bound = distance(ours, theirs, layout, floor, vanishing), 1e-3
    if rounding and error > bound:
        own = 0.0
        for seed in range(8):
            with nudged(model, seed):
                single = loss_and_gradients(model, loss, torch.float32)[1]
            own = max(own, distance(_as_ours(single, ours, layout), theirs, layout, floor, vanishing))
        record(name, "gradient, torch's own in float32", own, math.inf)
        bound = max(bound, 3 * own)
    record(name, "gradient", error, bound)


def compare_steps(
    name: str,
    loss: Callable[[Any, Any, Any], tuple[Any, Any]],
    variables: Any,
    batch: Any,
    model: Any,
    their_loss: Loss,
    layout: Layout,
    *,
    lr: float,
    small: bool,
    floor: float = 0.0,
) -> None:
    """Records how far both are from each other over steps of SGD with momentum on one batch, and their first gradients.

    Args:
      loss: ours, of parameters, other variables and batch, and the other variables as they are after.
      variables: in single precision.
      model: in training mode.
      small: take all steps in double precision, instead of the first alone.
      floor: see `compare_gradients`.
    """
    train = functools.partial(_train, loss, variables, batch, model, their_loss, lr)
    ours, theirs, error = train(torch.float64, STEPS if small else 1, layout, floor)
    record(name, "gradient (float64)", error, 1e-5)
    if not small:
        ours, theirs, _ = train(torch.float32, STEPS, layout, floor)
    assert min(theirs) < 0.95 * theirs[0], theirs
    # Relative to where both began: one that falls to nothing has no other scale.
    error = max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / theirs[0]
    record(name, f"{STEPS} steps", error, 1e-5 if small else 1e-3)


def _train(
    loss: Callable[[Any, Any, Any], tuple[Any, Any]],
    variables: Any,
    batch: Any,
    model: Any,
    their_loss: Loss,
    lr: float,
    kind: Any,
    steps: int,
    layout: Layout,
    floor: float,
) -> tuple[list[float], list[float], float]:
    """The losses of both, and how far their first gradients are from each other; the model stays as it is."""
    optimizer, double = optax.sgd(lr, momentum=0.9), kind == torch.float64

    def cast(tree: Any) -> Any:
        arrays = jax.tree.map(np.asarray, tree)
        return jax.tree.map(lambda x: x.astype(np.float64) if double and x.dtype == np.float32 else x, arrays)

    @functools.partial(jax.jit, compiler_options=LOOPS)
    def step(params: Any, others: Any, state: Any, batch: Any) -> Any:
        (value, others), grads = jax.value_and_grad(loss, has_aux=True)(params, others, batch)
        updates, state = optimizer.update(grads, state)
        return value, grads, optax.apply_updates(params, updates), others, state

    ours, theirs, error = [], [], 0.0
    with restored(model), jax.enable_x64(double):
        reference = torch.optim.SGD(model.to(kind).parameters(), lr, momentum=0.9)
        params, batch = cast(variables["params"]), cast(batch)
        others = cast({name: value for name, value in variables.items() if name != "params"})
        state = optimizer.init(params)
        for i in range(steps):
            found, grads, params, others, state = step(params, others, state, batch)
            ours.append(float(found))
            reference.zero_grad()
            wanted = their_loss(model, kind)
            wanted.backward()
            theirs.append(wanted.item())
            if i == 0:
                error = distance(jax.device_get(grads), gradients_of(model), layout, floor)
            reference.step()
    return ours, theirs, error


def _as_ours(theirs: Gradients, ours: Any, layout: Layout) -> Any:
    form = jax.tree.map(lambda x: np.empty(x.shape, np.float64), ours)
    return to_variables(theirs, layout, {"params": form})["params"]


@contextlib.contextmanager
def restored(model: Any) -> Iterator[Any]:
    """A model in single precision, which afterwards is what it was before, and without gradients."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        yield model
    finally:
        model.float().load_state_dict(before)
        model.zero_grad()


@contextlib.contextmanager
def nudged(model: Any, seed: int) -> Iterator[None]:
    """The model with every weight a rounding error off."""
    generator = torch.Generator().manual_seed(seed)
    with restored(model):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter *= 1 + 6e-8 * torch.randn(parameter.shape, generator=generator)
        yield
