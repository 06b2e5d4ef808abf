"""Every config: its golden text, and the form of its whole training step.

After a change that is meant, write the texts anew: python tests/test_configs.py
"""

from pathlib import Path

import jax
import pytest

from ylosia_jax import config
from ylosia_jax.compiled import compile_step
from ylosia_jax.experiment import Experiment
from ylosia_jax.train.sharding import make_mesh

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
GOLDEN = Path(__file__).parent / "golden"


def text(path: Path) -> str:
    return config.to_text(config.load(path))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_golden_text(path: Path) -> None:
    assert text(path) == (GOLDEN / f"{path.stem}.txt").read_text()


def test_every_golden_text_has_its_config() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == {path.stem for path in CONFIGS}


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_full_step_has_the_form_of_its_state(path: Path) -> None:
    experiment = config.load(path)
    assert isinstance(experiment, Experiment)
    mesh = make_mesh(jax.devices()[:1])
    compiled = compile_step(experiment, mesh, 100)
    state, metrics = jax.eval_shape(compiled.step, compiled.form, compiled.batches[0])
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(
        lambda x: (x.shape, x.dtype), compiled.form
    )
    assert {
        "loss",
        "lr",
        "grad_norm",
        *(f"loss/{name}" for name, task in experiment.tasks.items() if task.needs),
    } <= metrics.keys()
    assert all(value.shape == () for value in metrics.values())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_docstring_says_what_to_expect_and_how(path: Path) -> None:
    source = path.read_text()
    assert "ylosia train configs/" in source
    assert "Expected:" in source or "Not trained yet:" in source


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for path in CONFIGS:
        (GOLDEN / f"{path.stem}.txt").write_text(text(path))
