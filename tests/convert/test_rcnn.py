"""R-CNN and Fast R-CNN begin with all of a published classifier but its last layer."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ylosia_jax.convert.layout import path_of, to_tensors, to_variables
from ylosia_jax.convert.layouts import LAYOUTS, choose
from ylosia_jax.models.backbones.resnet import resnet as body
from ylosia_jax.models.backbones.vgg import VGG
from ylosia_jax.systems.classifiers import alexnet, resnet, vgg16
from ylosia_jax.systems.fast_rcnn import fast_rcnn, rcnn

# Layout -> classifier, detector, what --only would say, side of the image, and leaves of both.
CASES: dict[str, Any] = {
    "alexnet": (alexnet(9), rcnn(4, size=224), "heads_box/(backbone|fc)", 224, "classifier.4.weight", "heads_box/fc_1"),
    "vgg16": (vgg16(9), fast_rcnn(4), "backbone|heads_box/fc", 224, "classifier.3.weight", "heads_box/fc7"),
    "vgg16_bn": (
        vgg16(9, batch_norm=True),
        fast_rcnn(4, backbone=VGG(batch_norm=True, last_pool=False)),
        "backbone|heads_box/fc",
        224,
        "features.40.weight",
        "backbone/conv5_3/conv",
    ),
    "resnet_classifier": (
        resnet(18, 9),
        rcnn(4, backbone=body(18), dense=(16,)),
        "heads_box/backbone",
        64,
        "layer4.1.conv2.weight",
        "heads_box/backbone/layer4_1/conv2/conv",
    ),
}


def form_of(network: nn.Module, side: int) -> Any:
    return jax.eval_shape(lambda key: network.init(key, jnp.zeros((1, side, side, 3)), train=False), jax.random.key(0))


@pytest.mark.parametrize("name", CASES)
def test_all_but_the_last_layer_is_taken(name: str) -> None:
    """Names and shapes, and one number an array, by which it is known again."""
    (classifier, _), (detector, _), only, side, theirs, ours = CASES[name]
    layout = next(layout for layout in LAYOUTS if layout.name == name)
    count = iter(range(1000))
    filled = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(next(count)), leaf.shape), form_of(classifier, side))
    tensors = to_tensors(filled, layout)
    form = form_of(detector, side)
    paths = [path_of(path) for path, _ in jax.tree.leaves_with_path(form)]
    wanted = [path for path in paths if re.match(only, path.partition("/")[2])]
    chosen = choose(tensors, [path.partition("/")[2] for path in wanted])
    fresh = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(-1), leaf.shape), form)
    found = to_variables(tensors, chosen, form, fresh=fresh, renewed=frozenset(paths) - frozenset(wanted), partial=True)
    leaves = {path_of(path): leaf for path, leaf in jax.tree.leaves_with_path(found)}
    assert {path for path, leaf in leaves.items() if leaf.min() == -1} == set(paths) - set(wanted)
    assert leaves[f"params/{ours}/kernel"].flat[0] == tensors[theirs].flat[0]
