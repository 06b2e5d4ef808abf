"""FCOS against torchvision's."""

import pytest
from parity.detectors import Pair, compare, enliven, head_outputs, resnet_fpn
from parity.reference import exact, randomise, settle, torch, torchvision

from ylosia_jax.convert.onestage import FCOS
from ylosia_jax.models.backbones.resnet import ResNet
from ylosia_jax.systems.fcos import fcos

CLASSES = 5


def pair(layers, canvas, *, small):
    torch.manual_seed(0)
    body = resnet_fpn(layers, small=small, frozen=True, from_c5=False)
    model = torchvision().models.detection.FCOS(body, CLASSES, min_size=min(canvas), max_size=max(canvas))
    network, tasks = fcos(CLASSES, norm="frozen")
    if small:
        network = network.clone(
            backbone=ResNet(tuple(layers), bottleneck=False, norm="frozen"), neck=network.neck.clone(features=128)
        )
    name = "fcos (small)" if small else "fcos"
    found = Pair(name, randomise(model), network, tasks, FCOS, CLASSES, first=0, canvas=canvas)
    branches = model.head.classification_head, model.head.regression_head
    last = {
        "cls_logits": ([branches[0].cls_logits], 1.5, -0.5),
        # A spread of 2 in full size has distances of 15 strides: there float32 is 1e-4 from float64, ours and torch's.
        "bbox_regression": ([branches[1].bbox_reg], 2.0 if small else 1.0, 2.0),
        "bbox_ctrness": ([branches[1].bbox_ctrness], 1.0, 1.0),
    }
    if not small:
        settle(model, lambda: head_outputs(model.eval(), found.images(2)))
    enliven(model, found.images(2), last)
    return found


def test_equals_torchvision_with_a_small_body():
    with exact():
        compare(pair([1, 1, 1, 1], (64, 96), small=True), lr=1e-4, small=True)


@pytest.mark.full
def test_equals_torchvision():
    with exact():
        compare(pair([3, 4, 6, 3], (256, 320), small=False), lr=1e-5, small=False)
