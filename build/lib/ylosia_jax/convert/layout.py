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

SHOWN = 5

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
class PerClass:
    """Foreign tensors with rows of every class along their first axis, once, or once for each anchor.

    Attributes:
      pattern: regex for their names.
      rows: of a class, which lie together: four for a box.
      background: whether it is the first class.
    """

    pattern: str
    rows: int = 1
    background: bool = True


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
      per_class: tensors that depend on the number of classes, see `convert.coco`.
    """

    name: str
    rules: tuple[tuple[str, str], ...]
    ignored: str = r".*num_batches_tracked"
    mend: Callable[[Mapping[str, np.ndarray], Collection[str]], Mapping[str, np.ndarray]] | None = None
    per_class: tuple[PerClass, ...] = ()

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
    partial: bool = False,
) -> Any:
    """A network's variables made of foreign tensors.

    Args:
      tensors: by their foreign names.
      form: the network's variables, or their shapes.
      fresh: variables from which the leaves in `renewed` are taken.
      renewed: paths (`params/heads_box/…/kernel`) of leaves that are not taken from the tensors, whose own are ignored.
      partial: whether the tensors may be those of a larger network, see `beside`.

    Raises:
      UserError: naming the tensors that are missing, misshapen, not floats where floats are wanted, negative
        variances, or left over.
    """
    if layout.mend is not None:
        paths = [path_of(path).partition("/")[2] for path, _ in jax.tree.leaves_with_path(form)]
        tensors = layout.mend(tensors, {name for path in paths if (name := layout.name_of(path))})
    missing: list[str] = []
    misshapen: list[str] = []
    mistyped: list[str] = []
    negative: list[str] = []
    known: set[str] = set()
    taken: set[str] = set()

    def take(path: Any, leaf: Any, new: Any) -> Any:
        full = path_of(path)
        name = layout.name_of(full.partition("/")[2])
        if name is not None:
            known.add(name)
        if full in renewed:
            return new
        if name is None:
            missing.append(f"{full}, which the layout {layout.name} knows no name of")
            return leaf
        if name not in tensors:
            missing.append(f"{name}, for {full} {list(leaf.shape)}")
            return leaf
        taken.add(name)
        kind = full.rpartition("/")[2]
        value = tensors[name]
        wanted = to_torch(np.empty(leaf.shape, np.bool_), kind).shape
        if value.shape != wanted:
            misshapen.append(f"{name} is {list(value.shape)}, {list(wanted)} is wanted for {full}")
            return leaf
        if np.issubdtype(leaf.dtype, np.floating) and not np.issubdtype(value.dtype, np.floating):
            mistyped.append(f"{name} is of {value.dtype}, floats are wanted for {full}")
            return leaf
        if kind == "var" and (value < 0).any():
            negative.append(f"{name} has {value.min():g}, for {full}")
        return np.asarray(from_torch(value, kind), leaf.dtype)

    found = jax.tree_util.tree_map_with_path(take, form, form if fresh is None else fresh)
    extra = [name for name in tensors if name not in known and not re.fullmatch(layout.ignored, name)]
    if partial:
        outside = beside(taken)
        extra = [name for name in extra if not outside(name)]
    problems = [
        f"{len(lines)} {what}: {'; '.join(lines[:SHOWN])}{'; …' if len(lines) > SHOWN else ''}"
        for what, lines in (
            ("missing", missing),
            ("misshapen", misshapen),
            ("of another type", mistyped),
            ("with variances below 0", negative),
            ("left over", extra),
        )
        if lines
    ]
    if problems:
        raise UserError(f"the tensors are not those of this network ({layout.name}): {'. '.join(problems)}")
    return found


def to_tensors(variables: Any, layout: Layout) -> dict[str, np.ndarray]:
    """The inverse of `to_variables`: variables, or gradients, by their foreign names and in foreign order.

    Raises:
      KeyError: for a leaf that the layout does not know.
    """
    found: dict[str, np.ndarray] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        full = path_of(path)
        name = layout.name_of(full.partition("/")[2])
        if name is None:
            raise KeyError(full)
        # In memory as in order: safetensors writes an array's bytes as they lie.
        found[name] = np.asarray(to_torch(np.asarray(leaf), full.rpartition("/")[2]), order="C")
    return found


def beside(taken: Collection[str]) -> Callable[[str], bool]:
    """Whether a tensor belongs to another part of its network than those that were taken from it.

    Parts are told apart at the first word in which the names of the taken ones differ: where `layer1.0.conv1.weight`
    and `layer4.1.conv2.weight` were taken, `fc.weight` is of another part, and `layer3.6.conv1.weight` is not: it
    belongs to a deeper network of the same kind.
    """
    words = [name.split(".") for name in taken]
    depth = next((i for i, column in enumerate(zip(*words, strict=False)) if len(set(column)) > 1), 0)
    parts = {tuple(name[: depth + 1]) for name in words}
    return lambda name: tuple(name.split(".")[: depth + 1]) not in parts


def path_of(path: Any) -> str:
    """A key path of `jax.tree_util` as `params/backbone/…/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


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
