"""R-CNN and Fast R-CNN: sizes as published, and small ones trained from start to end."""

import dataclasses
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ylosia_jax.data.augment import Augment
from ylosia_jax.data.regions import SelectiveSearch
from ylosia_jax.data.scenes import CLASSES, Scenes
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.models.backbones.vgg import VGG
from ylosia_jax.predict import load
from ylosia_jax.runs import evaluate_run, train
from ylosia_jax.systems.fast_rcnn import fast_rcnn, rcnn
from ylosia_jax.train.loop import Train
from ylosia_jax.train.optim import Optim
from ylosia_jax.types import Rois

SMALL = VGG(depths=(1, 1, 1, 1, 1), widths=(8, 16, 16, 32, 32), batch_norm=True)


def form(network):
    return jax.eval_shape(
        lambda image: network.init(jax.random.key(0), image, train=False), jax.ShapeDtypeStruct((1, 224, 224, 3), float)
    )


def count(tree):
    return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


def test_parameters_of_fast_rcnn():
    network, _ = fast_rcnn(num_classes=20)
    # VGG-16's convolutions and its two dense layers, then 21 classes and 84 numbers of boxes.
    convolutions, dense = 14_714_688, 25_088 * 4096 + 4096 + 4096 * 4096 + 4096
    assert count(form(network)["params"]) == convolutions + dense + 4097 * (21 + 84)


def test_parameters_of_rcnn():
    network, tasks = rcnn(num_classes=20)
    found = form(network)
    # AlexNet's, with 21 classes in place of 1000.
    assert count(found["params"]) == 61_100_840 - 4097 * 1000 + 4097 * 21
    assert found["fitted"]["heads_box"]["svm_kernel"].shape == (4096, 20)
    assert found["fitted"]["heads_box"]["ridge_kernel"].shape == (256 * 6 * 6, 80)
    assert tasks["box"].num_classes == 20


def test_norms_of_crops_do_not_see_what_stands_in_padding():
    network, _ = rcnn(num_classes=3, backbone=SMALL, size=32, context=4, dense=(16,), dropout=0.0)
    head = network.heads["box"]
    image = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 64, 64, 3)), jnp.float32)
    valid = np.array([[True, True, False], [False, True, False]])
    nothing = jnp.zeros((2, 3), jnp.int32)
    boxes = np.tile(np.array([[8, 8, 40, 40], [4, 20, 30, 60], [0, 0, 0, 0]], np.float32), (2, 1, 1))

    def learn(boxes):
        rois = Rois(boxes=jnp.asarray(boxes), valid=jnp.asarray(valid), index=nothing, kind=nothing, canvas=(64, 64))
        variables = head.init(jax.random.key(0), {"c0": image}, rois, train=False)
        found, updated = head.apply(variables, {"c0": image}, rois, train=True, mutable=["batch_stats"])
        return found.logits[valid], updated

    one, other = learn(boxes), learn(np.where(valid[..., None], boxes, [1, 2, 60, 50]).astype(np.float32))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_crops_in_chunks_are_the_same_crops():
    network, _ = rcnn(num_classes=3, backbone=SMALL, size=32, context=4, dense=(16,))
    head = network.heads["box"]
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.uniform(size=(2, 64, 64, 3)), jnp.float32)
    corner = rng.uniform(0, 40, (2, 13, 2))
    nothing = jnp.zeros((2, 13), jnp.int32)
    rois = Rois(
        boxes=jnp.asarray(np.concatenate([corner, corner + 20], -1), jnp.float32),
        valid=nothing == 0,
        index=nothing,
        kind=nothing,
        canvas=(64, 64),
    )
    variables = head.init(jax.random.key(0), {"c0": image}, rois, train=False)
    whole = head.apply(variables, {"c0": image}, rois, train=False)
    chunks = dataclasses.replace(head, chunk=4).apply(variables, {"c0": image}, rois, train=False)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(chunks), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def experiment(system, steps: int, workdir: Path) -> Experiment:
    network, tasks = system
    return Experiment(
        network=network,
        tasks=tasks,
        data=Data(
            train=Scenes("train", size=24, image_size=(96, 96)),
            valid=Scenes("train", size=6, image_size=(96, 96)),
            classes=CLASSES,
            image_size=96,
            batch_size=4,
            max_objects=16,
            regions=SelectiveSearch(side=96, count=128, min_side=6),
        ),
        augment=Augment(flip=0.5),
        optim=Optim(lr=2e-3, warmup_steps=10, ema_decay=0.9, ema_warmup=10, frozen=("backbone/conv1_",)),
        train=Train(steps=steps, log_every=10, evaluate_every=1000, checkpoint_every=1000),
        workdir=str(workdir),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fast_rcnn", "rcnn"])
def test_trains_from_start_to_end(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("YLOSIA_DATA_DIR", str(tmp_path / "data"))
    if name == "fast_rcnn":
        backbone = dataclasses.replace(SMALL, last_pool=False)
        system = fast_rcnn(num_classes=len(CLASSES), backbone=backbone, level="c4", dense=(64,), dropout=0.1)
    else:
        system = rcnn(
            num_classes=len(CLASSES), backbone=SMALL, size=32, context=4, dense=(64,), dropout=0.1, samples=32
        )
    run = experiment(system, 40, tmp_path / "run")
    metrics = train(run)
    # Of a run that no weights were imported into.
    assert "optim.frozen keeps random weights as they are" in "".join(capsys.readouterr())
    assert metrics["box"]["AP50"] > 0.02
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == metrics
    # Scored again from the checkpoint: what was fitted is in it.
    assert evaluate_run(tmp_path / "run", checkpoint="last") == metrics
    model = load(tmp_path / "run", "last")
    result = model(run.data.valid[0].image)
    assert len(result)
    assert (result.boxes[:, 2:] <= 96).all()
    if name == "rcnn":
        assert model.variables["fitted"]["heads_box"]["done"] == 1


def test_the_last_layers_of_fast_rcnn_begin_small():
    network, _ = fast_rcnn(num_classes=20, backbone=SMALL, dense=(256,))
    variables = jax.jit(lambda key: network.init(key, jnp.zeros((1, 64, 64, 3)), train=False))(jax.random.key(0))
    head = variables["params"]["heads_box"]
    for name, std in (("logits", 0.01), ("deltas", 0.001)):
        np.testing.assert_allclose(head[name]["kernel"].std(), std, rtol=0.05)
