import dataclasses
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ylosia_jax import config
from ylosia_jax.compiled import Compiled, batch_form, compile_step
from ylosia_jax.experiment import Experiment
from ylosia_jax.train.sharding import make_mesh, place_batch
from ylosia_jax.types import Batch, UserError

MESH = make_mesh(jax.devices()[:1])


def tiny(precision: str = "float32", max_objects: int = 100) -> Experiment:
    found = config.load(Path(__file__).parents[1] / "tiny.py")
    return config.override(found, ["--train.precision", precision, "--data.max_objects", str(max_objects)])


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return compile_step(tiny(), MESH, 10)


def batch_of(experiment: Experiment, count: int) -> Batch:
    """Random images with `count` random boxes each."""
    rng = np.random.default_rng(count)
    form = batch_form(experiment, MESH, experiment.canvas)
    batch = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), form)
    corners = rng.uniform(0, 40, (*form.objects.boxes.shape[:2], 2))
    boxes = np.concatenate([corners, corners + rng.uniform(3, 24, corners.shape)], axis=-1)
    valid = np.broadcast_to(np.arange(boxes.shape[1]) < count, boxes.shape[:2])
    objects = batch.objects.replace(
        boxes=(boxes * valid[..., None]).astype(np.float32),
        labels=rng.integers(0, 6, valid.shape).astype(np.int32) * valid,
        valid=valid,
    )
    side = float(experiment.canvas[0])
    return batch.replace(
        image=rng.integers(0, 255, form.image.shape).astype(np.uint8),
        extent=np.full(form.extent.shape, side, np.float32),
        size=np.full(form.size.shape, side, np.float32),
        index=np.arange(form.index.shape[0], dtype=np.int32),
        objects=objects,
    )


@pytest.mark.slow
def test_no_object_to_a_hundred_objects_compile_once_and_stay_finite(compiled: Compiled) -> None:
    state = compiled.init()
    for count in (0, 1, 17, 100, 0):
        state, metrics = compiled.step(state, place_batch(MESH, batch_of(tiny(), count)))
        assert all(np.isfinite(float(value)) for value in metrics.values()), (count, metrics)
    assert compiled.step._cache_size() == 1
    assert int(state.step) == 5
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating))


@pytest.mark.slow
def test_bf16_is_the_network_s_arithmetic_alone() -> None:
    experiment = tiny("bfloat16", max_objects=4)
    compiled = compile_step(experiment, MESH, 10)
    text = str(jax.make_jaxpr(compiled.step)(compiled.form, compiled.batches[0]))
    kinds = re.findall(r":(\w+)\[[\d,]*\] = (?:conv_general_dilated|dot_general)\b", text)
    assert kinds.count("bf16") > 50  # the network's convolutions and their gradients
    assert all(leaf.dtype != jnp.bfloat16 for leaf in jax.tree.leaves(compiled.form))
    state, metrics = jax.eval_shape(compiled.step, compiled.form, compiled.batches[0])
    assert all(leaf.dtype != jnp.bfloat16 for leaf in jax.tree.leaves((state, metrics)))


@pytest.mark.slow
def test_float32_has_no_half_precision_anywhere(compiled: Compiled) -> None:
    text = str(jax.make_jaxpr(compiled.step)(compiled.form, compiled.batches[0]))
    assert "bf16" not in text
    assert "f16" not in text


@pytest.mark.slow
def test_the_seed_decides_the_first_weights() -> None:
    def first(seed: int) -> list[np.ndarray]:
        state = compile_step(dataclasses.replace(tiny(), seed=seed), MESH, 10).init()
        return [np.asarray(x) for x in jax.tree.leaves(state.variables["params"])]

    one, again, other = first(1), first(1), first(2)
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_what_does_not_fit_together_is_refused_before_it_runs() -> None:
    experiment = tiny()
    tasks = {"box": dataclasses.replace(experiment.tasks["box"], head="boxes")}
    with pytest.raises(UserError, match="do not fit together: there is no 'boxes'"):
        compile_step(dataclasses.replace(experiment, tasks=tasks), MESH, 10)
