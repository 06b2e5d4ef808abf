"""RetinaNet, both recipes, against torchvision's."""

from functools import partial

import pytest
from parity.detectors import Pair, compare, enliven
from parity.reference import exact, randomise, torch, torchvision

from ylosia_jax.convert.onestage import RETINANET
from ylosia_jax.models.backbones.resnet import ResNet
from ylosia_jax.systems.retinanet import retinanet

CLASSES = 5


def pair(recipe, layers, canvas):
    tv = torchvision()
    detection, resnet = tv.models.detection, tv.models.resnet
    frozen = recipe == "v1"
    torch.manual_seed(0)
    norm = tv.ops.misc.FrozenBatchNorm2d if frozen else torch.nn.BatchNorm2d
    extra = tv.ops.feature_pyramid_network.LastLevelP6P7(256 if frozen else 2048, 256)
    body = detection.backbone_utils._resnet_fpn_extractor(
        resnet.ResNet(resnet.Bottleneck, layers, norm_layer=norm), 5, returned_layers=[2, 3, 4], extra_blocks=extra
    )
    head = None
    if recipe == "v2":
        head = detection.retinanet.RetinaNetHead(256, 9, CLASSES, norm_layer=partial(torch.nn.GroupNorm, 32))
        head.regression_head._loss_type = "giou"
    model = detection.RetinaNet(body, CLASSES, head=head, min_size=min(canvas), max_size=max(canvas))
    network, tasks = retinanet(CLASSES, recipe=recipe, norm="frozen" if frozen else "batch")
    network = network.clone(backbone=ResNet(tuple(layers), norm="frozen" if frozen else "batch"))
    size = f"{canvas[0]}x{canvas[1]}, {sum(layers) * 3 + 2} layers"
    found = Pair(
        f"retinanet {recipe} ({size})", randomise(model), network, tasks, RETINANET, CLASSES, first=0, canvas=canvas
    )
    branches = model.head.classification_head, model.head.regression_head
    last = {
        "cls_logits": ([branches[0].cls_logits], 1.5, -2.0),
        "bbox_regression": ([branches[1].bbox_reg], 0.5, 0.0),
    }
    enliven(model, found.images(2), last)
    return found


@pytest.mark.parametrize("recipe", ["v1", "v2"])
def test_equals_torchvision_with_a_small_body(recipe):
    with exact():
        compare(pair(recipe, [1, 1, 1, 1], (64, 96)), lr=1e-4, curve=1e-3)


@pytest.mark.full
@pytest.mark.parametrize("recipe", ["v1", "v2"])
def test_equals_torchvision(recipe):
    with exact():
        compare(pair(recipe, [3, 4, 6, 3], (256, 320)), lr=1e-4, curve=1e-3)
