"""What the classifiers' parts compute, against twins in NumPy, and the shapes of their levels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ylosia_jax.models.backbones.alexnet import AlexNet
from ylosia_jax.models.backbones.densenet import DenseNet
from ylosia_jax.models.backbones.googlenet import GoogLeNet
from ylosia_jax.models.backbones.lenet import CONNECTIONS, OriginalLeNet5
from ylosia_jax.models.backbones.mobilenet import MobileNetV2, rounded
from ylosia_jax.models.backbones.resnet import CifarResNet
from ylosia_jax.models.backbones.vgg import VGG
from ylosia_jax.models.heads.classify import DenseClassifyHead
from ylosia_jax.models.heads.rbf import CODES, RbfHead
from ylosia_jax.nn.resample import adaptive_average_pool
from ylosia_jax.systems.lenet import lenet5


def levels(backbone, height, width):
    image = jnp.zeros((1, height, width, 3))
    found, _ = jax.eval_shape(lambda: backbone.init_with_output(jax.random.key(0), image, train=False))
    return {name: x.shape[1:] for name, x in found.items()}


@pytest.mark.slow
def test_levels():
    assert levels(VGG(), 64, 96) == {
        "c1": (32, 48, 64),
        "c2": (16, 24, 128),
        "c3": (8, 12, 256),
        "c4": (4, 6, 512),
        "c5": (2, 3, 512),
    }
    assert levels(VGG(last_pool=False), 64, 96)["c5"] == (4, 6, 512)
    assert levels(AlexNet(), 224, 224) == {"c3": (27, 27, 64), "c4": (13, 13, 192), "c5": (6, 6, 256)}
    assert levels(GoogLeNet(), 224, 224) == {
        "c2": (56, 56, 192),
        "c3": (28, 28, 480),
        "c4a": (14, 14, 512),
        "c4d": (14, 14, 528),
        "c4": (14, 14, 832),
        "c5": (7, 7, 1024),
    }
    assert levels(DenseNet(), 64, 64) == {
        "c2": (16, 16, 256),
        "c3": (8, 8, 512),
        "c4": (4, 4, 1024),
        "c5": (2, 2, 1024),
    }
    assert levels(MobileNetV2(), 64, 64) == {
        "c1": (32, 32, 16),
        "c2": (16, 16, 24),
        "c3": (8, 8, 32),
        "c4": (4, 4, 96),
        "c5": (2, 2, 1280),
    }
    assert levels(CifarResNet(), 32, 32) == {"c0": (32, 32, 16), "c1": (16, 16, 32), "c2": (8, 8, 64)}
    assert levels(OriginalLeNet5(), 32, 32) == {"c1": (14, 14, 6), "c2": (5, 5, 16)}


def test_too_small_an_image_is_refused():
    with pytest.raises(ValueError, match=r"AlexNet's pools leave nothing of \(64, 32\)"):
        levels(AlexNet(), 64, 32)
    with pytest.raises(ValueError, match=r"C5 reads 5x5 cells, it is given \(3, 3\)"):
        RbfHead().init(jax.random.key(0), {"c2": jnp.zeros((1, 3, 3, 16))}, train=False)


@pytest.mark.parametrize(("size", "cells"), [((7, 7), 7), ((12, 9), 4), ((1, 2), 6), ((5, 11), 3), ((14, 14), 4)])
def test_adaptive_average_pool(size, cells):
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    found = jax.jit(lambda x: adaptive_average_pool(x, cells, cells))(x)
    for i in range(cells):
        for j in range(cells):
            low = i * size[0] // cells, j * size[1] // cells
            high = -(-(i + 1) * size[0] // cells), -(-(j + 1) * size[1] // cells)
            window = x[:, low[0] : high[0], low[1] : high[1]]
            np.testing.assert_allclose(found[:, i, j], window.mean(axis=(1, 2)), rtol=1e-5, atol=1e-6)


def test_dropout_has_a_rate_for_each_matrix():
    head = DenseClassifyHead(10, hidden=(8,))
    with pytest.raises(ValueError, match="give 2 numbers, one a matrix"):
        head.init(jax.random.key(0), {"c5": jnp.zeros((1, 7, 7, 4))}, train=False)


def test_dropout_is_drawn_in_training_alone():
    head = DenseClassifyHead(3, pool=2, hidden=(64, 64))
    features = {"c5": jnp.ones((1, 2, 2, 8))}
    variables = head.init(jax.random.key(0), features, train=False)
    once, again = (head.apply(variables, features, True, rngs={"dropout": jax.random.key(i)}) for i in (1, 2))
    assert not np.allclose(once, again)
    np.testing.assert_array_equal(head.apply(variables, features, False), head.apply(variables, features, False))


def test_rounded_channels():
    assert [rounded(x) for x in (32, 11.2, 16 * 0.35, 24 * 0.35, 1280 * 1.4)] == [32, 16, 8, 8, 1792]
    # 12 * 0.9 is 10.8: 8 would be more than a tenth less.
    assert rounded(10.8) == 16


def test_the_pictures_of_the_digits():
    assert CODES.shape == (10, 84)
    assert set(np.unique(CODES)) == {-1, 1}
    # Seven rows of bars; and no two digits alike.
    assert "".join("#" if x > 0 else "." for x in CODES[7].reshape(12, 7)[0]) == "#######"
    apart = ((CODES[:, None] - CODES) ** 2).sum(axis=-1) / 4
    assert apart[~np.eye(10, dtype=bool)].min() >= 9


def squash(x):
    return 1.7159 * np.tanh(2 / 3 * x)


def convolve(x, kernel, bias):
    """[H, W, C] with [k, k, C, O], no padding."""
    k = len(kernel)
    height, width = x.shape[0] - k + 1, x.shape[1] - k + 1
    out = np.zeros((height, width, kernel.shape[-1]))
    for i in range(height):
        for j in range(width):
            out[i, j] = np.tensordot(x[i : i + k, j : j + k], kernel, 3)
    return out + bias


def sub_sample(x, part):
    total = x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]
    return squash(total * part["coefficient"] + part["bias"])


def test_the_original_lenet_is_its_twin():
    network, _ = lenet5(original=True)
    rng = np.random.default_rng(0)
    image = np.repeat(rng.uniform(size=(1, 32, 32, 1)), 3, axis=-1).astype(np.float32)
    variables = network.init(jax.random.key(1), jnp.asarray(image), train=False)
    # Larger weights than it starts from, and biases, so that tanh bends.
    params = jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), variables["params"])
    found = jax.jit(lambda p: network.apply({"params": p}, image, train=False)["classification"])(params)

    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    body, head = params["backbone"], params["heads_classification"]
    x = image[0, :, :, :1].astype(np.float64) * 1.275 - 0.1
    x = sub_sample(squash(convolve(x, body["c1"]["kernel"], body["c1"]["bias"])), body["s2"])
    maps, patch = [], 0
    for o, read in enumerate(CONNECTIONS):
        total = np.zeros((10, 10, 1))
        for i in read:
            total += convolve(x[..., i : i + 1], body["c3"]["kernel"][:, :, None, patch : patch + 1], 0.0)
            patch += 1
        maps.append(total + body["c3"]["bias"][o])
    x = sub_sample(squash(np.concatenate(maps, axis=-1)), body["s4"])
    x = squash(convolve(x, head["c5"]["kernel"], head["c5"]["bias"]))[0, 0]
    x = squash(x @ head["f6"]["kernel"] + head["f6"]["bias"])
    wanted = [-((x - code) ** 2).sum() for code in CODES]
    np.testing.assert_allclose(found[0], wanted, rtol=1e-5)
    assert np.ptp(wanted) > 1


def test_the_original_lenets_connections():
    """The paper's table 1: every map of S2 is read by ten maps of C3; 60 connections, 1,516 parameters."""
    assert [sum(i in read for read in CONNECTIONS) for i in range(6)] == [10] * 6
    assert len(set(CONNECTIONS)) == 16
    variables = OriginalLeNet5().init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)["params"]
    sizes = {name: sum(x.size for x in jax.tree.leaves(part)) for name, part in variables.items()}
    assert sizes == {"c1": 156, "s2": 12, "c3": 1516, "s4": 32}
    assert np.abs(variables["c1"]["kernel"]).max() <= 2.4 / 25
    assert np.abs(variables["c3"]["kernel"][..., :3]).max() <= 2.4 / 75


def test_the_modern_lenet_is_its_twin():
    network, _ = lenet5()
    rng = np.random.default_rng(0)
    image = rng.uniform(size=(1, 32, 32, 3)).astype(np.float32)
    params = network.init(jax.random.key(1), jnp.asarray(image), train=False)["params"]
    params = jax.tree.map(lambda x: x + 0.02 * rng.normal(size=x.shape).astype(np.float32), params)
    found = jax.jit(lambda p: network.apply({"params": p}, image, train=False)["classification"])(params)
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    x = (image[0].astype(np.float64) * 1.275 - 0.1).mean(axis=-1, keepdims=True)
    for name in ("conv1", "conv2"):
        part = params["backbone"][name]
        x = np.maximum(convolve(x, part["kernel"], part["bias"]), 0)
        x = np.max([x[i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=0)
    x = x.transpose(2, 0, 1).reshape(-1)
    for i in (1, 2, 3):
        part = params["heads_classification"][f"fc{i}"]
        x = (x if i == 1 else np.maximum(x, 0)) @ part["kernel"] + part["bias"]
    np.testing.assert_allclose(found[0], x, rtol=1e-4, atol=1e-5)
