"""FCOS (arXiv:1904.01355, 2006.09214): a dense detector without anchors."""

from ylosia_jax.models.backbones.resnet import Depth, resnet
from ylosia_jax.models.heads.fcos import FCOSHead
from ylosia_jax.models.necks.fpn import FPN
from ylosia_jax.models.network import Network
from ylosia_jax.nn.norm import NormKind
from ylosia_jax.nn.pixels import IMAGENET
from ylosia_jax.tasks.fcos import CentreBoxes


def fcos(num_classes: int, *, depth: Depth = 50, norm: NormKind = "batch") -> tuple[Network, dict[str, CentreBoxes]]:
    """Network and task of FCOS with a residual network, equal to torchvision's.

    Parameters at 91 classes, depth 50 and a frozen norm: 32,269,600.

    Args:
      depth: of the residual network.
      norm: of the residual network; "frozen" where it comes with trained weights and batches are small.
    """
    network = Network(
        backbone=resnet(depth, norm=norm),
        neck=FPN(levels=("c3", "c4", "c5"), extra="p5"),
        heads={"box": FCOSHead(num_classes=num_classes)},
        pixels=IMAGENET,
    )
    return network, {"box": CentreBoxes(num_classes=num_classes)}
