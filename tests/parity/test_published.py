"""torchvision's COCO detectors in the form in which they are published, and the configs that take them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity.reference import torch, torchvision

from ylosia_jax import config
from ylosia_jax.convert.coco import NUMBERS, cut_to_categories
from ylosia_jax.convert.layout import to_variables
from ylosia_jax.convert.layouts import choose

# torchvision's name of the system -> the layout that names its tensors.
SYSTEMS = {
    "fasterrcnn_resnet50_fpn": ("faster_rcnn_resnet50_fpn_coco", "rcnn_fpn"),
    "fasterrcnn_resnet50_fpn_v2": ("faster_rcnn_resnet50_fpn_v2_coco", "rcnn_fpn_v2"),
    "maskrcnn_resnet50_fpn": ("mask_rcnn_resnet50_fpn_coco", "rcnn_fpn"),
    "maskrcnn_resnet50_fpn_v2": ("mask_rcnn_resnet50_fpn_v2_coco", "rcnn_fpn_v2"),
    "keypointrcnn_resnet50_fpn": ("keypoint_rcnn_resnet50_fpn_coco", "rcnn_fpn"),
    "retinanet_resnet50_fpn": ("retinanet_resnet50_fpn_coco", "retinanet"),
    "retinanet_resnet50_fpn_v2": ("retinanet_resnet50_fpn_v2_coco", "retinanet"),
    "fcos_resnet50_fpn": ("fcos_resnet50_fpn_coco", "fcos"),
    "ssd300_vgg16": ("ssd300_vgg16_coco", "ssd"),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_tensor_has_its_place_in_the_config(name: str) -> None:
    """Names and shapes only: neither side has numbers."""
    path, layout = SYSTEMS[name]
    weights = torchvision().models.get_model_weights(name).DEFAULT
    categories = weights.meta["categories"]
    people = "keypoint" in name
    with torch.device("meta"):
        model = torchvision().models.get_model(name, weights=None, weights_backbone=None, num_classes=len(categories))
    tensors = {key: np.broadcast_to(np.float32(0), value.shape) for key, value in model.state_dict().items()}
    experiment = config.load(f"configs/{path}.py")
    if not people:
        assert [categories[number] for number in NUMBERS] == list(experiment.data.classes)
    image = jnp.zeros((1, 320, 320, 3))
    form: Any = jax.eval_shape(lambda key: experiment.network.init(key, image, train=False), jax.random.key(0))
    paths = [jax.tree_util.keystr(key, simple=True, separator="/") for key, _ in jax.tree.leaves_with_path(form)]
    chosen = choose(tensors, [path.partition("/")[2] for path in paths])
    assert chosen.name == layout
    cut = cut_to_categories(tensors, chosen.per_class)
    assert (cut is None) == people
    to_variables(tensors if cut is None else cut, chosen, form)
