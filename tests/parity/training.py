"""Gradients and training, ours beside torch's.

In single precision rounding decides for one in a million units whether its ReLU is on, and for an anchor between two
objects which it learns, in each framework its own way. In a deep network that alone moves the gradients of some
parameters by more than a thousandth, torch's from torch's own in double precision, and twenty steps blow it up. So:

- a gradient in single precision is compared with torch's in double. It may be as far from it as 1e-3. Where it is
  farther, every weight of torch's is moved by a rounding error, eight times: ours may be three times as far as the
  farthest of torch's gradients in single precision, of which each shows a few of the units that may turn;
- small networks train in double precision on both sides, in which little is left to rounding. Anchors are constants in
  single precision, here and in torchvision;
- networks in full size, whose steps in double precision take minutes, train in single.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import optax
from parity.record import record
from parity.reference import numpy, torch

from ylosia_jax.convert.layout import Layout, to_variables

Gradients = Mapping[str, np.ndarray]


def gradients_of(model: Any) -> dict[str, np.ndarray]:
    """By the parameters' names."""
    return {name: numpy(value.grad).copy() for name, value in model.named_parameters()}


def distance(ours: Any, theirs: Gradients, layout: Layout, floor: float) -> float:
    """The largest distance in norm of a parameter's gradient from theirs, relative to theirs."""
    whole = np.sqrt(sum(float((value.astype(np.float64) ** 2).sum()) for value in theirs.values()))
    form = jax.tree.map(lambda x: np.empty(x.shape, np.float64), ours)
    wanted = to_variables(theirs, layout, {"params": form})["params"]
    # As NumPy's: JAX would compile every shape's difference.
    pairs = zip(*(map(np.asarray, jax.tree.leaves(tree)) for tree in (ours, wanted)), strict=True)
    return max(float(np.linalg.norm(g - w) / max(np.linalg.norm(w), floor * whole)) for g, w in pairs)


def compare_gradients(
    name: str,
    ours: Any,
    theirs: Gradients,
    model: Any,
    single: Callable[[], Gradients],
    layout: Layout,
    floor: float = 0.0,
) -> None:
    """Records how far our gradient in single precision is from theirs in double.

    Args:
      ours: of `params`.
      single: the model's in single precision, asked for only where ours misses 1e-3.
      floor: share of the whole gradient's norm that no parameter's counts as smaller than. What norms leave nothing of,
        such as a bias before one, has a gradient of rounding errors alone.
    """
    error, bound = distance(ours, theirs, layout, floor), 1e-3
    if error > bound:
        form = jax.tree.map(lambda x: np.empty(x.shape, np.float64), ours)
        own = 0.0
        for seed in range(8):
            with nudged(model, seed):
                found = to_variables(single(), layout, {"params": form})["params"]
            own = max(own, distance(found, theirs, layout, floor))
        record(name, "gradient, torch's own in float32", own, own)
        bound = max(bound, 3 * own)
    record(name, "gradient", error, bound)


def compare_steps(
    name: str,
    loss: Callable[[Any, Any, Any], tuple[Any, Any]],
    variables: Any,
    batch: Any,
    model: Any,
    their_loss: Callable[[Any, torch.dtype], Any],
    layout: Layout,
    *,
    lr: float,
    double: bool,
    steps: int = 20,
    floor: float = 0.0,
) -> None:
    """Records how far the losses of both are from each other over steps of SGD with momentum on one batch.

    Args:
      loss: ours, of parameters, other variables and batch, and the other variables as they are after.
      variables: in single precision.
      model: in training mode; it is trained.
      their_loss: of a model, and the type of its numbers.
      double: train in double precision, and record the first gradient too.
    """
    optimizer = optax.sgd(lr, momentum=0.9)
    kind = torch.float64 if double else torch.float32
    model = model.to(kind)
    reference = torch.optim.SGD(model.parameters(), lr, momentum=0.9)

    def cast(tree: Any) -> Any:
        arrays = jax.tree.map(np.asarray, tree)
        return jax.tree.map(lambda x: x.astype(np.float64) if double and x.dtype == np.float32 else x, arrays)

    # XLA's CPU backend has no library for convolutions in double precision: its own loops are to be optimised.
    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 3})
    def step(params: Any, others: Any, state: Any, batch: Any) -> Any:
        (value, others), grads = jax.value_and_grad(loss, has_aux=True)(params, others, batch)
        updates, state = optimizer.update(grads, state)
        return value, grads, optax.apply_updates(params, updates), others, state

    ours, theirs = [], []
    with jax.enable_x64(double) if double else contextlib.nullcontext():
        variables, batch = cast(variables), cast(batch)
        params = variables["params"]
        others = {name: value for name, value in variables.items() if name != "params"}
        state = optimizer.init(params)
        for i in range(steps):
            found, grads, params, others, state = step(params, others, state, batch)
            ours.append(float(found))
            reference.zero_grad()
            wanted = their_loss(model, kind)
            wanted.backward()
            theirs.append(wanted.item())
            if double and i == 0:
                error = distance(jax.device_get(grads), gradients_of(model), layout, floor)
                record(name, "gradient (float64)", error, 1e-5)
            reference.step()
    assert min(theirs) < 0.95 * theirs[0], theirs
    # Relative to where both began: one that falls to nothing has no other scale.
    error = max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / theirs[0]
    record(name, "20 steps", error, 1e-5 if double else 1e-3)


@contextlib.contextmanager
def restored(model: Any) -> Iterator[Any]:
    """The model in double precision, which afterwards is what it was before, and without gradients."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        yield model.double()
    finally:
        model.float().load_state_dict(before)
        model.zero_grad()


@contextlib.contextmanager
def nudged(model: Any, seed: int) -> Iterator[None]:
    """The model with every weight a rounding error off."""
    generator = torch.Generator().manual_seed(seed)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 1 + 6e-8 * torch.randn(parameter.shape, generator=generator)
    try:
        yield
    finally:
        model.load_state_dict(before)
