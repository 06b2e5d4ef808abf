"""RetinaNet, both versions, against torchvision's."""

from functools import partial

import pytest
from parity.detectors import Pair, compare, enliven, head_outputs, resnet_fpn
from parity.reference import exact, randomise, settle, torch, torchvision

from ylosia_jax.convert.onestage import RETINANET
from ylosia_jax.models.backbones.resnet import ResNet
from ylosia_jax.systems.retinanet import retinanet

CLASSES = 5


def pair(version, layers, canvas, *, small):
    detection = torchvision().models.detection
    newer = version == 2
    torch.manual_seed(0)
    body = resnet_fpn(layers, small=small, frozen=not newer, from_c5=newer)
    head = None
    if newer:
        head = detection.retinanet.RetinaNetHead(
            body.out_channels, 9, CLASSES, norm_layer=partial(torch.nn.GroupNorm, 32)
        )
        head.regression_head._loss_type = "giou"
    model = detection.RetinaNet(body, CLASSES, head=head, min_size=min(canvas), max_size=max(canvas))
    norm = "batch" if newer else "frozen"
    network, tasks = retinanet(CLASSES, version=version, norm=norm)
    if small:
        network = network.clone(
            backbone=ResNet(tuple(layers), bottleneck=False, norm=norm), neck=network.neck.clone(features=128)
        )
    name = f"retinanet v{version}{' (small)' if small else ''}"
    found = Pair(name, randomise(model), network, tasks, RETINANET, CLASSES, first=0, canvas=canvas)
    branches = model.head.classification_head, model.head.regression_head
    last = {
        "cls_logits": ([branches[0].cls_logits], 1.5, -2.0),
        "bbox_regression": ([branches[1].bbox_reg], 0.5, 0.0),
    }
    if not small:
        settle(model, lambda: head_outputs(model.eval(), found.images(2)))
    enliven(model, found.images(2), last)
    return found


@pytest.mark.parametrize("version", [1, 2])
def test_equals_torchvision_with_a_small_body(version):
    with exact():
        # The first version's steps are left to its full size: CI has the second's.
        compare(pair(version, [1, 1, 1, 1], (64, 96), small=True), lr=1e-4, small=True, steps=version == 2)


@pytest.mark.full
@pytest.mark.parametrize("version", [1, 2])
def test_equals_torchvision(version):
    with exact():
        compare(pair(version, [3, 4, 6, 3], (256, 320), small=False), lr=1e-5, small=False)
