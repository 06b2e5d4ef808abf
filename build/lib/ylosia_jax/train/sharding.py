"""Where arrays live: a mesh with one axis, `data`, over all devices of all hosts."""

import re
from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

Rule = Literal["replicate", "fsdp"]
Rules = tuple[tuple[str, Rule], ...]


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """One axis over all devices."""
    devices = jax.devices() if devices is None else devices
    # Stated, because explicit axes make the gradient of an ordinary linen convolution raise.
    return Mesh(np.asarray(devices).reshape(-1), ("data",), axis_types=(AxisType.Auto,))


def state_shardings(mesh: Mesh, state: Any, rules: Rules = ()) -> Any:
    """A sharding for each leaf of a state, from its shapes alone.

    Args:
      state: arrays or `jax.eval_shape`'s result.
      rules: (regex, rule) pairs; the first whose regex is found in a leaf's path decides. An optimiser's moments and
        the average carry the parameter's path, so one rule covers all three. `fsdp` splits the largest axis that the
        devices divide; without such an axis, and without a rule, a leaf is replicated.
    """

    def of(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        rule = next((rule for pattern, rule in rules if re.search(pattern, name)), "replicate")
        divisible = [axis for axis, size in enumerate(leaf.shape) if size and size % mesh.size == 0]
        if rule == "replicate" or not divisible:
            return NamedSharding(mesh, PartitionSpec())
        axis = max(divisible, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))

    return jax.tree_util.tree_map_with_path(of, state)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def place_batch(mesh: Mesh, batch: Any) -> Any:
    """This host's rows as a piece of the global batch, on its devices."""
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(batch_sharding(mesh), x), batch)


def local_rows(array: jax.Array) -> np.ndarray:
    """This host's rows of a batch-sharded array, in order."""
    pieces = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(piece.data) for piece in pieces])
