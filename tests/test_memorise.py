"""The whole chain at once: a network that cannot learn eight images by heart has an error somewhere."""

import numpy as np
import pytest
from optimised import OPTIMISED

from ylosia_jax.compiled import compile_step
from ylosia_jax.data.augment import Augment
from ylosia_jax.data.pipeline import prepare, stack
from ylosia_jax.data.scenes import CLASSES, Scenes
from ylosia_jax.evaluate import compile_predict, evaluate
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.systems.ylosia import ylosia
from ylosia_jax.train.optim import Optim
from ylosia_jax.train.sharding import make_mesh, place_batch

STEPS = 300


@pytest.mark.slow
def test_eight_images_are_learned_by_heart() -> None:
    source = Scenes("train", size=8, image_size=(128, 128))
    network, tasks = ylosia("n", num_classes=len(CLASSES))
    experiment = Experiment(
        network=network,
        tasks=tasks,
        data=Data(train=source, valid=source, classes=CLASSES, image_size=128, batch_size=8, max_objects=32),
        augment=Augment(),
        optim=Optim(lr=4e-3, warmup_steps=20, weight_decay=0.0, ema_decay=0.9, ema_warmup=10),
    )
    mesh = make_mesh()
    compiled = compile_step(experiment, mesh, STEPS)
    examples = [prepare(source[i], i, 0, experiment.canvas, experiment.data.max_objects) for i in range(8)]
    batch = place_batch(mesh, stack(examples))
    # Hundreds of steps are worth LLVM's optimisations.
    run = compiled.step.lower(compiled.form, compiled.batches[0]).compile(compiler_options=OPTIMISED)
    state = compiled.init()
    losses = np.zeros(STEPS)
    for step in range(STEPS):
        state, metrics = run(state, batch)
        losses[step] = metrics["loss"]
    assert losses[-1] < losses[0] / 60
    predict = compile_predict(network, tasks, mesh)
    scores = evaluate(predict, state.average, source, mesh, canvases=experiment.canvases, batch_size=8)
    assert scores["box"]["AP50"] >= 0.99
