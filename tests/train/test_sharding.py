import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from ylosia_jax.train import sharding


def test_rules_pick_the_largest_divisible_axis_and_first_match_wins() -> None:
    mesh = AbstractMesh((4,), ("data",), axis_types=(AxisType.Auto,))
    form = {
        "backbone": {"kernel": jnp.zeros((3, 3, 8, 16)), "odd": jnp.zeros((3, 5))},
        "head": {"kernel": jnp.zeros((8, 4))},
        "neck": {"kernel": jnp.zeros((8, 4))},
    }
    rules = (("head", "replicate"), ("backbone|head", "fsdp"))
    specs = jax.tree.map(lambda s: s.spec, sharding.state_shardings(mesh, form, rules))  # type: ignore[arg-type]
    assert specs["backbone"]["kernel"] == PartitionSpec(None, None, None, "data")
    assert specs["backbone"]["odd"] == PartitionSpec()
    assert specs["head"]["kernel"] == PartitionSpec()
    assert specs["neck"]["kernel"] == PartitionSpec()


def test_a_batch_comes_back_as_it_went() -> None:
    rows = np.arange(24.0).reshape(8, 3)
    placed = sharding.place_batch(sharding.make_mesh(), {"x": rows})
    np.testing.assert_array_equal(sharding.local_rows(placed["x"]), rows)
