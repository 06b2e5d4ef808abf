import math

import jax
import jax.numpy as jnp
import pytest

from ylosia_jax.systems.classifiers import alexnet, densenet121, googlenet, mobilenet_v2, resnet, resnet_cifar, vgg16
from ylosia_jax.systems.lenet import lenet5

# Published: torchvision's, at 1,000 classes; the ResNet paper's 0.27M and 0.85M, and LeNet-5's 60,000.
SYSTEMS = {
    "alexnet": (lambda: alexnet(1000), 224, 61_100_840),
    "vgg16": (lambda: vgg16(1000), 224, 138_357_544),
    "vgg16_bn": (lambda: vgg16(1000, batch_norm=True), 224, 138_365_992),
    "googlenet": (lambda: googlenet(1000), 224, 13_004_888),
    "resnet18": (lambda: resnet(18, 1000), 224, 11_689_512),
    "resnet34": (lambda: resnet(34, 1000), 224, 21_797_672),
    "resnet50": (lambda: resnet(50, 1000), 224, 25_557_032),
    "resnet101": (lambda: resnet(101, 1000), 224, 44_549_160),
    "densenet121": (lambda: densenet121(1000), 224, 7_978_856),
    "mobilenet_v2": (lambda: mobilenet_v2(1000), 224, 3_504_872),
    "resnet_cifar20": (lambda: resnet_cifar(20), 32, 269_722),
    "resnet_cifar56": (lambda: resnet_cifar(56), 32, 853_018),
    "lenet5": (lambda: lenet5(), 32, 61_706),
    "lenet5_original": (lambda: lenet5(original=True), 32, 60_000),
}


def count(tree):
    return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", SYSTEMS)
def test_parameter_count(name):
    make, side, parameters = SYSTEMS[name]
    network, tasks = make()
    image = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    logits, variables = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x, train=False), image)
    assert count(variables["params"]) == parameters
    assert {"backbone", "heads_classification"} <= set(variables["params"])
    assert list(tasks) == ["classification"]
    assert {x.shape for x in logits.values()} == {(2, tasks["classification"].num_classes)}
    if name == "googlenet":
        heads = {name: count(x) for name, x in variables["params"].items()}
        assert parameters - heads["heads_aux1"] - heads["heads_aux2"] == 6_624_904


def test_the_original_lenet_knows_digits_alone():
    with pytest.raises(ValueError, match="num_classes is 26: the original"):
        lenet5(26, original=True)
