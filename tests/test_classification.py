"""Categories through the whole library: imported, learned, scored, predicted, drawn."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from ylosia_jax.cli import _print_scores
from ylosia_jax.compiled import compile_step
from ylosia_jax.data import folders, store
from ylosia_jax.data.augment import Augment
from ylosia_jax.data.datasets import Imported
from ylosia_jax.data.pipeline import train_batches
from ylosia_jax.evaluate import compile_predict, evaluate, flat_scores, make_predict
from ylosia_jax.experiment import Data, Experiment, open_scored, open_source
from ylosia_jax.predict import Model, find_images, meaning_of, predict_files
from ylosia_jax.train.loop import Train
from ylosia_jax.train.optim import Optim
from ylosia_jax.train.sharding import make_mesh, place_batch
from ylosia_jax.types import Categories, UserError

COLOURS = {"blue": (40, 60, 220), "green": (40, 200, 60), "red": (220, 50, 40)}
STEPS = 40


class Mean(nn.Module):
    """Tells images by their mean colour."""

    @nn.compact
    def __call__(self, image, train: bool = False):
        return {"classification": nn.Dense(len(COLOURS))(nn.relu(nn.Dense(8)(image.mean(axis=(1, 2)) - 0.5)))}


@dataclasses.dataclass(frozen=True)
class Say:
    """Softmax."""

    num_classes: int = len(COLOURS)
    needs: frozenset = frozenset({"category"})

    def encode(self, outputs, batch, targets):
        return batch.category

    def loss(self, outputs, targets, batch):
        known = targets["classification"] >= 0
        loss = optax.softmax_cross_entropy_with_integer_labels(
            outputs["classification"], jnp.maximum(targets["classification"], 0)
        )
        return (loss * known).sum() / jnp.maximum(known.sum(), 1), {}

    def decode(self, outputs, answers):
        return Categories(scores=jax.nn.softmax(outputs["classification"]))


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures of three colours with noise in them, of several sizes, also imported."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for name, colour in COLOURS.items():
            for i in range(count):
                path = tmp_path / f"in/{split}/{name}/{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                noise = rng.integers(-30, 30, (20 + i, 30, 3))
                cv2.imwrite(str(path), (np.array(colour[::-1]) + noise).clip(0, 255).astype(np.uint8))
    store.write(folders.read(tmp_path / "in"), name="colours", root=tmp_path)
    monkeypatch.setenv("YLOSIA_DATA_DIR", str(tmp_path))
    return tmp_path / "in"


def experiment(**changed: Any) -> Experiment:
    fields: dict[str, Any] = {
        "network": Mean(),
        "tasks": {"classification": Say()},
        "data": Data(
            train=Imported("colours", "train"),
            valid=Imported("colours", "val"),
            classes=tuple(COLOURS),
            image_size=32,
            batch_size=8,
            max_objects=1,
        ),
        "augment": Augment(flip=0.5, scale=(0.8, 1.2)),
        "optim": Optim(lr=0.05, warmup_steps=0),
        "train": Train(steps=STEPS, best_metric="classification/top1"),
    }
    return Experiment(**{**fields, **changed})


@pytest.mark.parametrize("name", ["mosaic", "copy_paste"])
def test_pictures_of_a_category_are_not_mixed(name: str) -> None:
    masked = dataclasses.replace(Say(), needs=frozenset({"category", "mask"}))
    with pytest.raises(ValueError, match=f"augment.{name} mixes pictures, but a task needs the category"):
        experiment(tasks={"classification": masked}, augment=Augment(**{name: 0.5}))


def test_a_task_without_categories_to_learn_is_refused(pictures: Path) -> None:
    boxes = dataclasses.replace(Say(), needs=frozenset({"box"}))
    tried = experiment(tasks={"classification": boxes})
    with pytest.raises(UserError, match=r"needs box labels, but .* knows only category"):
        open_source(tried, tried.data.train)
    with pytest.raises(UserError, match="knows only category of its images, which no task of the run answers"):
        open_scored(tried, tried.data.valid)


@pytest.mark.slow
def test_categories_are_learned_scored_predicted_and_drawn(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, mesh = experiment(), make_mesh(jax.devices()[:1])
    train, valid = open_source(run, run.data.train), open_source(run, run.data.valid)
    compiled = compile_step(run, mesh, STEPS)
    batches = train_batches(train, canvases=run.canvases, batch_size=8, max_objects=1, seed=0, needs=run.needs)
    state = compiled.init()
    for _ in range(STEPS):
        state, _ = compiled.step(state, place_batch(mesh, next(batches)))
    assert compiled.step._cache_size() == 1

    predict = compile_predict(run.network, run.tasks, mesh)
    scores = evaluate(predict, state.variables, valid, mesh, canvases=run.canvases, batch_size=8)
    assert scores == {"classification": {"top1": 1.0, "top5": 1.0, "per_class": dict.fromkeys(COLOURS, 1.0)}}
    assert flat_scores(scores) == {"classification/top1": 1.0, "classification/top5": 1.0}
    _print_scores(scores)
    assert "classification: top1 1.000  top5 1.000\n  blue: top1 1.000" in capsys.readouterr().out

    model = Model(jax.jit(make_predict(run.network, run.tasks)), state.variables, meaning_of(run), run.canvases)
    result = model(pictures / "val/red/1.png")
    (name, score), *_ = result.top()
    assert name == "red"
    assert score == max(result.categories) > 0.5
    assert (len(result), len(result.top()), len(result.top(1))) == (0, 3, 1)
    assert (result.above(0.5).categories == result.categories).all()
    shown = find_images([str(pictures / "val/green")])
    assert predict_files(model, shown, tmp_path / "out") == []
    entries = json.loads((tmp_path / "out/categories.json").read_text())
    assert [(entry["image_id"], entry["category"]) for entry in entries] == [(f"{i}.png", "green") for i in range(4)]
    for entry in entries:
        assert entry["top"][0] == {"category": entry["category"], "score": entry["score"]}
        assert [one["score"] for one in entry["top"]] == sorted((one["score"] for one in entry["top"]), reverse=True)
    assert json.loads((tmp_path / "out/predictions.json").read_text()) == []
    drawn = cv2.imread(str(tmp_path / "out/0.png"))
    assert drawn.shape[0] > 300  # enlarged, so that the name can be read
