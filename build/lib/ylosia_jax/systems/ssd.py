"""SSD (arXiv:1512.02325): a dense detector with default boxes on six levels of a VGG."""

from ylosia_jax.models.backbones.ssd_vgg import SSDVGG
from ylosia_jax.models.heads.ssd import SSDHead
from ylosia_jax.models.network import Network
from ylosia_jax.nn.pixels import Pixels
from ylosia_jax.tasks.ssd import RATIOS, MultiBox

# The mean colour of Caffe's VGG, which saw values up to 255.
PIXELS = Pixels(mean=(0.48235, 0.45882, 0.40784), std=(1 / 255, 1 / 255, 1 / 255))


def ssd300(num_classes: int) -> tuple[Network, dict[str, MultiBox]]:
    """Network and task of SSD300 with VGG-16, equal to torchvision's; images are 300 x 300 pixels.

    Parameters at 90 classes: 35,641,826. An image is stretched to a square, as the paper and torchvision have it, with
    `data.stretch`.
    """
    network = Network(
        backbone=SSDVGG(),
        neck=None,
        heads={"box": SSDHead(num_classes=num_classes, anchors=tuple(2 + 2 * len(ratios) for ratios in RATIOS))},
        pixels=PIXELS,
    )
    return network, {"box": MultiBox(num_classes=num_classes)}
