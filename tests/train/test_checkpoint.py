import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ylosia_jax.train.checkpoint import Checkpoints
from ylosia_jax.train.sharding import make_mesh
from ylosia_jax.train.step import State
from ylosia_jax.types import UserError


def batches() -> grain.DatasetIterator:
    return iter(grain.MapDataset.range(100).to_iter_dataset())


def state(value: float) -> State:
    weights = {"params": {"kernel": jnp.full((4, 2), value)}, "batch_stats": {"mean": jnp.arange(3.0) + value}}
    return State(step=jnp.int32(value), variables=weights, optimizer=(jnp.full(2, value),), average=weights)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Iterator[Checkpoints]:
    with contextlib.closing(Checkpoints(tmp_path / "checkpoints", "box/AP")) as made:
        yield made


def form(value: State) -> State:
    everywhere = NamedSharding(make_mesh(), PartitionSpec())
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), value)


def test_state_iterator_and_config_come_back(checkpoints: Checkpoints) -> None:
    stream = batches()
    seen = [next(stream) for _ in range(5)]
    checkpoints.save(5, state(5), stream, {"seed": 3})
    restored = checkpoints.restore(5, form(state(0)))
    jax.tree.map(np.testing.assert_array_equal, restored, state(5))
    fresh = batches()
    checkpoints.restore_batches(5, fresh)
    assert next(fresh) == seen[-1] + 1


def test_an_average_comes_back_whatever_the_optimiser(checkpoints: Checkpoints) -> None:
    other = state(5).replace(optimizer={"momentum": (jnp.zeros(3),), "count": jnp.zeros((), jnp.int32)})
    checkpoints.save(5, other, batches(), {})
    average = checkpoints.restore_average(5, form(state(0)).average)
    jax.tree.map(np.testing.assert_array_equal, average, state(5).average)


def test_an_average_of_another_network_is_refused(checkpoints: Checkpoints) -> None:
    checkpoints.save(5, state(5), batches(), {})
    wanted = form(state(0)).average
    wanted["params"]["weight"] = wanted["params"].pop("kernel")
    with pytest.raises(UserError, match=r"checkpoint of step 5 .* is of another network \(it lacks some"):
        checkpoints.restore_average(5, wanted)


def test_best_and_last_are_kept(checkpoints: Checkpoints) -> None:
    for step, score in ((1, 0.1), (2, 0.9), (3, 0.3), (4, None), (5, 0.2)):
        scores = None if score is None else {"box/AP": score}
        checkpoints.save(step, state(step), batches(), {}, scores)
    assert checkpoints.steps() == [2, 5]
    assert (checkpoints.best(), checkpoints.last()) == (2, 5)


def test_a_score_that_does_not_exist_is_named(checkpoints: Checkpoints) -> None:
    with pytest.raises(UserError, match="best_metric is 'box/AP', but the validation split has the scores mask/AP"):
        checkpoints.save(1, state(1), batches(), {}, {"mask/AP": 0.5})
    # Nothing is lost.
    assert checkpoints.last() == 1


def test_without_scores_the_last_is_the_best(checkpoints: Checkpoints) -> None:
    assert checkpoints.last() is None
    checkpoints.save(1, state(1), batches(), {})
    checkpoints.save(2, state(2), batches(), {})
    assert checkpoints.steps() == [2]
    assert checkpoints.best() == 2


FULL_DISK = """
import contextlib, resource, sys
from pathlib import Path
import grain, jax, jax.numpy as jnp
from ylosia_jax.train.checkpoint import Checkpoints
from ylosia_jax.train.step import State
from ylosia_jax.types import UserError

def state(size):
    # Random, since checkpoints are compressed.
    weights = {"params": {"kernel": jax.random.normal(jax.random.key(0), size)}}
    return State(step=jnp.int32(1), variables=weights, optimizer=(), average=weights)

batches = iter(grain.MapDataset.range(9).to_iter_dataset())
checkpoints = Checkpoints(Path(sys.argv[1]), "box/AP")
checkpoints.save(1, state((1000,)), batches, {})
# No file may grow past this: what a full disk looks like to whoever writes.
resource.setrlimit(resource.RLIMIT_FSIZE, (30000, resource.RLIM_INFINITY))
try:
    checkpoints.save(2, state((1_000_000,)), batches, {})
except UserError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print("kept", checkpoints.steps())
"""


@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoint_before_it_intact(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=False, timeout=120
    )
    assert "the checkpoint of step 2 could not be written" in done.stdout, done.stderr
    assert "step 1 is intact" in done.stdout
    assert "kept [1]" in done.stdout
    with contextlib.closing(Checkpoints(tmp_path, "box/AP")) as again:
        assert again.steps() == [1]
        weights = {"params": {"kernel": jax.random.normal(jax.random.key(0), 1000)}}
        whole = State(step=jnp.int32(1), variables=weights, optimizer=(), average=weights)
        jax.tree.map(np.testing.assert_array_equal, again.restore(1, form(whole)), whole)


def test_an_unwritable_folder_is_one_clear_line(tmp_path: Path, checkpoints: Checkpoints, monkeypatch) -> None:
    checkpoints.save(1, state(1), batches(), {})
    monkeypatch.setattr(
        "orbax.checkpoint.CheckpointManager.save", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left"))
    )
    with pytest.raises(UserError, match=r"step 2 .*No space left.*step 1 is intact"):
        checkpoints.save(2, state(2), batches(), {})


def test_a_damaged_checkpoint_is_one_clear_line(checkpoints: Checkpoints) -> None:
    checkpoints.save(5, state(5), batches(), {})
    checkpoints.save(6, state(6), batches(), {})
    for path in (checkpoints.folder / "6" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"checkpoint of step 6 .* cannot be read: it is damaged"):
        checkpoints.restore(6, form(state(0)))
    with pytest.raises(UserError, match=r"checkpoint of step 6 .* cannot be read: it is damaged"):
        checkpoints.restore_average(6, form(state(0)).average)
