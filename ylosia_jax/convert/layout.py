"""From tensors by foreign names to a network's variables, strictly: nothing missing, nothing left over.

A layout says what the tensors of a network of this package are called in another framework. What an array's axes mean
is told by its own name here: kernels are [H, W, in, out] and matrices [in, out], PyTorch's are the other way round.
"""

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ylosia_jax.types import UserError

SHOWN = 10

# A leaf here -> what PyTorch calls it.
_LEAVES = {
    "kernel": "weight",
    "transposed_kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


@dataclasses.dataclass(frozen=True)
class Layout:
    """What the tensors of a kind of network are called elsewhere.

    Attributes:
      name: for messages.
      rules: (regex, replacement) pairs as `re.sub` takes them, matched against the whole path of a layer
        (`backbone/layer1_0/conv1/conv`) or of one leaf of it (`backbone/scale`); the first that matches gives the
        foreign name of the layer, or of the leaf.
      ignored: regex for foreign tensors that have no place here, such as counters of batches.
      mend: where files hold the tensors in another form than the framework's networks: makes theirs of a file's, given
        all foreign names that the network's variables have.
    """

    name: str
    rules: tuple[tuple[str, str], ...]
    ignored: str = r".*num_batches_tracked"
    mend: Callable[[Mapping[str, np.ndarray], Collection[str]], Mapping[str, np.ndarray]] | None = None

    def name_of(self, path: str) -> str | None:
        """The foreign name of a leaf `backbone/…/kernel`; None where no rule knows its layer."""
        layer, _, leaf = path.rpartition("/")
        for pattern, replacement in self.rules:
            if re.fullmatch(pattern, path):
                return re.sub(pattern, replacement, path)
            if re.fullmatch(pattern, layer):
                return f"{re.sub(pattern, replacement, layer)}.{_LEAVES[leaf]}"
        return None


def within(prefix: str, foreign: str, rules: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Rules of a part that stands under a prefix here, and under another there."""
    return tuple((f"{prefix}{pattern}", f"{foreign}{replacement}") for pattern, replacement in rules)


def to_variables(
    tensors: Mapping[str, np.ndarray],
    layout: Layout,
    form: Any,
    *,
    fresh: Any = None,
    renewed: frozenset[str] = frozenset(),
) -> Any:
    """A network's variables made of foreign tensors.

    Args:
      tensors: by their foreign names.
      form: the network's variables, or their shapes.
      fresh: variables from which the leaves in `renewed` are taken.
      renewed: paths (`params/heads_box/…/kernel`) of leaves that are not taken from the tensors, whose own are ignored.

    Raises:
      UserError: naming the tensors that are missing, misshapen or left over.
    """
    if layout.mend is not None:
        paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(form)]
        tensors = layout.mend(tensors, {name for path in paths if (name := layout.name_of(path.partition("/")[2]))})
    missing: list[str] = []
    misshapen: list[str] = []
    used: set[str] = set()

    def take(path: Any, leaf: Any, new: Any) -> Any:
        full = jax.tree_util.keystr(path, simple=True, separator="/")
        name = layout.name_of(full.partition("/")[2])
        if name is None:
            missing.append(f"{full}, which the layout {layout.name} knows no name of")
            return leaf
        used.add(name)
        if full in renewed:
            return new
        if name not in tensors:
            missing.append(f"{name}, for {full} {list(leaf.shape)}")
            return leaf
        value = from_torch(tensors[name], full.rpartition("/")[2])
        if value.shape != leaf.shape:
            misshapen.append(f"{name} is {list(value.shape)} in the order of {full}, which is {list(leaf.shape)}")
            return leaf
        return np.asarray(value, leaf.dtype)

    found = jax.tree_util.tree_map_with_path(take, form, form if fresh is None else fresh)
    extra = [name for name in tensors if name not in used and not re.fullmatch(layout.ignored, name)]
    problems = [
        f"{len(lines)} {what}: {'; '.join(lines[:SHOWN])}{'; …' if len(lines) > SHOWN else ''}"
        for what, lines in (("missing", missing), ("misshapen", misshapen), ("left over", extra))
        if lines
    ]
    if problems:
        raise UserError(f"the tensors are not those of this network ({layout.name}): {'. '.join(problems)}")
    return found


def from_torch(value: np.ndarray, leaf: str) -> np.ndarray:
    """PyTorch's order of axes turned into the one of a leaf of this name."""
    if leaf == "transposed_kernel":
        return value.transpose(2, 3, 0, 1)
    if leaf == "kernel":
        return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
    return value


def to_torch(value: np.ndarray, leaf: str) -> np.ndarray:
    """The inverse of `from_torch`."""
    if leaf == "transposed_kernel":
        return value.transpose(2, 3, 0, 1)
    if leaf == "kernel":
        return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
    return value
