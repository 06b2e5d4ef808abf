import numpy as np
import pytest

from ylosia_jax.tasks import machines
from ylosia_jax.tasks.machines import Machines, ridge


def images(count=30, rows=60, width=8, seed=0):
    """Features of regions, of which the first two of an image are objects of classes 0 and 1."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        features = rng.normal(size=(rows, width)).astype(np.float32)
        features[0, 0] += 6
        features[1, 1] += 6
        truth = np.full(rows, -1)
        truth[:2] = 0, 1
        negative = np.ones((rows, 3), bool)
        negative[0, 0] = negative[1, 1] = False
        yield features, truth, negative


def fitted(c=1e-3):
    found = Machines(3, c=c, norm=20.0)
    for features, truth, negative in images():
        found.add(features, truth, negative)
    found.refit()
    for features, _, negative in images():
        found.mine(features, negative)
    found.refit()
    return found


def test_objects_of_a_class_stand_above_the_rest():
    kernel, bias = fitted().weights()
    tops = [(features @ kernel + bias)[:, :2].argmax(axis=0).tolist() == [0, 1] for features, _, _ in images(seed=2)]
    assert np.mean(tops) > 0.9


def test_a_class_without_positives_is_never_found():
    kernel, bias = fitted().weights()
    assert (kernel[:, 2] == 0).all()
    assert bias[2] == -100


def test_mining_comes_near_to_what_all_negatives_together_give(monkeypatch):
    mined, _ = fitted().weights()
    monkeypatch.setattr(machines, "FIRST", 10_000)
    whole, _ = fitted().weights()
    for k in (0, 1):
        cosine = mined[:, k] @ whole[:, k] / np.linalg.norm(mined[:, k]) / np.linalg.norm(whole[:, k])
        assert cosine > 0.97


def test_easy_negatives_are_forgotten():
    found = fitted()
    kept = sum(len(rows) for rows in found._negatives[0])
    assert kept < 0.5 * 30 * 59


def test_the_length_of_features_does_not_matter():
    once, twice = Machines(3, c=1e-3, norm=20.0), Machines(3, c=1e-3, norm=20.0)
    for features, truth, negative in images(10):
        once.add(features, truth, negative)
        twice.add(1000 * features, truth, negative)
    once.refit()
    twice.refit()
    np.testing.assert_allclose(once.weights()[0], 1000 * twice.weights()[0], rtol=1e-3, atol=1e-4)


def test_ridge_is_the_closed_form():
    rng = np.random.default_rng(0)
    features, wanted = rng.normal(size=(50, 6)).astype(np.float32), rng.normal(size=(50, 4)).astype(np.float32)
    labels = np.repeat([0, 2], 25)
    norm = float(np.linalg.norm(features, axis=1).mean())
    kernel, bias = ridge(features, wanted, labels, 3, weight=10.0, norm=norm)
    own = labels == 2
    centred = features[own] - features[own].mean(axis=0)
    target = wanted[own] - wanted[own].mean(axis=0)
    slope = np.linalg.solve(centred.T @ centred + 10.0 * np.eye(6), centred.T @ target)
    np.testing.assert_allclose(kernel.reshape(6, 3, 4)[:, 2], slope, atol=1e-4)
    np.testing.assert_allclose(
        bias.reshape(3, 4)[2], wanted[own].mean(axis=0) - features[own].mean(axis=0) @ slope, atol=1e-4
    )
    assert (kernel.reshape(6, 3, 4)[:, 1] == 0).all()
    assert (bias.reshape(3, 4)[1] == 0).all()


@pytest.mark.parametrize("classes", [1, 3])
def test_nothing_to_learn_from_is_no_error(classes):
    kernel, bias = ridge(
        np.zeros((0, 5), np.float32), np.zeros((0, 4), np.float32), np.zeros(0, int), classes, weight=1.0, norm=20.0
    )
    assert kernel.shape == (5, 4 * classes)
    assert (bias == 0).all()
    found = Machines(classes, c=1e-3, norm=20.0)
    found.add(np.zeros((0, 5), np.float32), np.zeros(0, int), np.zeros((0, classes), bool))
    found.refit()
    assert (found.weights()[1] == -100).all()
