import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ylosia_jax.tasks.classify import Classify
from ylosia_jax.types import Batch, Objects

K = 4
CATEGORY = (2, -1, 0, 3)


def batch_of(category=CATEGORY, source=None):
    count = len(CATEGORY)
    size = jnp.full((count, 2), 8.0)
    rows = jnp.zeros((count, 0), jnp.int32)
    objects = Objects(jnp.zeros((count, 0, 4)), rows, rows > 0, rows > 0)
    index = jnp.arange(count)
    image = jnp.zeros((count, 8, 8, 3))
    category = None if category is None else jnp.array(category)
    return Batch(image, size, size, index, index, objects, category=category, source=source)


def random_logits(seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(len(CATEGORY), K)), jnp.float32)


def loss_of(task, outputs, batch):
    return task.loss(outputs, {task.head: task.encode(outputs, batch, {})}, batch)


def twin(logits, category, smoothing=0.0, rubbish=None):
    """Image by image, of those that are labelled."""
    losses = []
    for row, label in zip(np.asarray(logits, np.float64), category, strict=True):
        if label < 0:
            continue
        row = row if rubbish is None else np.append(row, rubbish)
        log_scores = row - np.log(np.exp(row).sum())
        wanted = np.full(K, smoothing / K)
        wanted[label] += 1 - smoothing
        losses.append(-(wanted * log_scores[:K]).sum())
    return np.mean(losses)


@pytest.mark.parametrize(("smoothing", "rubbish"), [(0.0, None), (0.1, None), (0.0, -0.1)])
def test_the_loss_is_its_twins(smoothing, rubbish):
    task = Classify(K, label_smoothing=smoothing, rubbish=rubbish)
    logits = random_logits()
    loss, parts = jax.jit(lambda x: loss_of(task, {"classification": x}, batch_of()))(logits)
    np.testing.assert_allclose(loss, twin(logits, CATEGORY, smoothing, rubbish), rtol=1e-6)
    assert set(parts) == {"cross_entropy"}


def test_the_loss_of_the_original_lenet_by_hand():
    """Equation 9: the distance of the right class, and log(exp(-j) + the sum of exp(-distance))."""
    distances = np.array([[3.0, 0.5, 9.0, 2.0]] * 4)
    batch = batch_of((1, 1, 1, 1))
    loss, _ = loss_of(Classify(K, rubbish=-0.1), {"classification": jnp.asarray(-distances, jnp.float32)}, batch)
    np.testing.assert_allclose(loss, 0.5 + np.log(np.exp(-0.1) + np.exp(-distances[0]).sum()), rtol=1e-6)


def test_perfect_logits_cost_nothing_and_decode_to_the_truth():
    task = Classify(K)
    outputs = {"classification": 50.0 * jax.nn.one_hot(jnp.array(CATEGORY), K)}
    assert loss_of(task, outputs, batch_of())[0] < 1e-6
    scores = task.decode(outputs, {}).scores
    labelled = np.array(CATEGORY) >= 0
    np.testing.assert_array_equal(np.argmax(scores, axis=1)[labelled], np.array(CATEGORY)[labelled])
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-6)
    # The rubbish class takes its share.
    doubtful = Classify(K, rubbish=0.0).decode({"classification": jnp.zeros((1, K))}, {}).scores
    np.testing.assert_allclose(doubtful, np.full((1, K), 1 / (K + 1)), rtol=1e-6)


def test_an_image_without_a_label_teaches_nothing():
    task = Classify(K, label_smoothing=0.1)
    logits = random_logits()
    changed = logits.at[1].add(jnp.array([5.0, -3.0, 8.0, 0.0]))
    batch = batch_of()
    gradient = jax.grad(lambda x: loss_of(task, {"classification": x}, batch)[0])
    np.testing.assert_array_equal(gradient(logits)[1], 0)
    np.testing.assert_array_equal(gradient(logits), gradient(changed))
    # Where none has one, the loss is 0 and so is its gradient.
    nothing = batch_of((-1, -1, -1, -1))
    value, slope = jax.value_and_grad(lambda x: loss_of(task, {"classification": x}, nothing)[0])(logits)
    assert value == 0
    np.testing.assert_array_equal(slope, 0)


def test_auxiliary_heads_are_weighted():
    task = Classify(K, auxiliary=("aux1", "aux2"))
    outputs = {name: random_logits(i) for i, name in enumerate(("classification", "aux1", "aux2"))}
    loss, parts = loss_of(task, outputs, batch_of())
    each = [twin(outputs[name], CATEGORY) for name in ("classification", "aux1", "aux2")]
    np.testing.assert_allclose(loss, each[0] + 0.3 * (each[1] + each[2]), rtol=1e-6)
    np.testing.assert_allclose(parts["aux2"], 0.3 * each[2], rtol=1e-6)
    # In prediction they have no part.
    alone = task.decode({"classification": outputs["classification"]}, {}).scores
    np.testing.assert_array_equal(task.decode(outputs, {}).scores, alone)


def test_the_sets_of_a_mixture_are_weighted_by_their_images():
    source = jnp.array([[True, False], [True, False], [True, False], [False, True]])
    logits = random_logits()
    loss, _ = loss_of(Classify(K), {"classification": logits}, batch_of(source=source))
    first, second = twin(logits[:3], CATEGORY[:3]), twin(logits[3:], CATEGORY[3:])
    np.testing.assert_allclose(loss, 0.75 * first + 0.25 * second, rtol=1e-6)


def test_errors():
    outputs = {"classification": random_logits()}
    with pytest.raises(ValueError, match="no categories"):
        Classify(K).encode(outputs, batch_of(None), {})
    with pytest.raises(ValueError, match="the task has 5 classes, the logits of the head 'classification' 4"):
        Classify(5).encode(outputs, batch_of(), {})
