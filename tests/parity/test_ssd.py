"""SSD300 against torchvision's."""

import pytest
from parity.detectors import Pair, compare, enliven
from parity.reference import exact, narrowed, torch, torchvision

from ylosia_jax.convert.onestage import ssd
from ylosia_jax.models.backbones.ssd_vgg import EXTRAS, SSDVGG
from ylosia_jax.models.backbones.vgg import WIDTHS
from ylosia_jax.systems.ssd import ssd300

CLASSES = 5


def pair(depths, name, *, narrow=1):
    """Of so many convolutions a stage, all layers of the body so many times narrower than the paper's."""
    tv = torchvision()
    detection, vgg = tv.models.detection, tv.models.vgg
    torch.manual_seed(0)
    layers = []
    for depth, width in zip(depths, WIDTHS, strict=True):
        layers += [width] * depth + ["M"]
    body = detection.ssd._vgg_extractor(vgg.VGG(vgg.make_layers(layers), init_weights=True), False, 5)
    if narrow > 1:
        body = narrowed(body, narrow)
        body.scale_weight = torch.nn.Parameter(body.scale_weight[::narrow].clone())
    boxes = detection.anchor_utils.DefaultBoxGenerator(
        [[2], [2, 3], [2, 3], [2, 3], [2], [2]],
        scales=[0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05],
        steps=[8, 16, 32, 64, 100, 300],
    )
    model = detection.ssd.SSD(
        body, boxes, (300, 300), CLASSES + 1, image_mean=[0.48235, 0.45882, 0.40784], image_std=[1 / 255] * 3
    )
    network, tasks = ssd300(CLASSES)
    network = network.clone(
        backbone=SSDVGG(
            depths=depths,
            widths=tuple(width // narrow for width in WIDTHS),
            fc_width=1024 // narrow,
            extras=tuple((squeeze // narrow, wide // narrow, *shape) for squeeze, wide, *shape in EXTRAS),
        )
    )
    found = Pair(name, model, network, tasks, ssd(depths), CLASSES, first=1, canvas=(300, 300))
    branches = model.head.classification_head, model.head.regression_head
    last = {
        "cls_logits": (list(branches[0].module_list), 1.5, 0.0),
        "bbox_regression": (list(branches[1].module_list), 1.0, 0.0),
    }
    enliven(model, found.images(2), last)
    return found


def test_equals_torchvision_with_a_small_body():
    with exact():
        compare(pair((1, 1, 1, 1, 1), "ssd300 (small)", narrow=16), lr=1e-4, small=True)


@pytest.mark.full
def test_equals_torchvision():
    with exact():
        compare(pair((2, 2, 3, 3, 3), "ssd300"), lr=1e-5, small=False)
