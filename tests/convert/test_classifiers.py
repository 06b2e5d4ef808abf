import jax
import jax.numpy as jnp
import pytest

from ylosia_jax.convert.layouts import LAYOUTS, choose
from ylosia_jax.systems.classifiers import alexnet, densenet121, googlenet, mobilenet_v2, resnet, resnet_cifar, vgg16

# Layout -> its system, and some of the names that the published file has.
SYSTEMS = {
    "alexnet": (lambda: alexnet(10), {"features.10.bias", "classifier.1.weight", "classifier.6.bias"}),
    "vgg16": (lambda: vgg16(10), {"features.28.weight", "classifier.0.weight", "classifier.6.bias"}),
    "vgg16_bn": (
        lambda: vgg16(10, batch_norm=True),
        {"features.40.bias", "features.41.running_var", "classifier.3.weight"},
    ),
    "googlenet": (
        lambda: googlenet(10),
        {"conv1.conv.weight", "inception5b.branch4.1.bn.running_mean", "aux2.fc2.bias", "fc.weight"},
    ),
    "resnet_classifier": (
        lambda: resnet(50, 10),
        {"layer4.2.bn3.running_var", "layer2.0.downsample.0.weight", "fc.bias"},
    ),
    "resnet_cifar": (lambda: resnet_cifar(56), {"layer3.8.bn2.running_mean", "linear.weight"}),
    "densenet": (lambda: densenet121(10), {"features.denseblock4.denselayer16.conv2.weight", "features.norm5.bias"}),
    "densenet_published": (
        lambda: densenet121(10),
        {
            "features.denseblock4.denselayer16.norm.2.running_var",
            "features.transition3.conv.weight",
            "features.conv0.weight",
        },
    ),
    "mobilenet_v2": (
        lambda: mobilenet_v2(10),
        {"features.0.0.weight", "features.1.conv.1.weight", "features.17.conv.3.running_var", "features.18.1.bias"},
    ),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_leaf_has_a_name_of_its_own(name):
    make, some = SYSTEMS[name]
    network, _ = make()
    side = 32 if name == "resnet_cifar" else 64
    form = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, side, side, 3)), train=False))
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(form)]
    paths = [path.partition("/")[2] for path in paths]
    layout = next(layout for layout in LAYOUTS if layout.name == name)
    names = [layout.name_of(path) for path in paths]
    assert None not in names
    assert len(set(names)) == len(paths)
    assert some <= set(names)
    # Of a file with these names it is the one that is chosen.
    assert choose(dict.fromkeys(names), paths).name == name
