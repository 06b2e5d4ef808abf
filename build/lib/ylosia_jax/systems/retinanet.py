"""RetinaNet (arXiv:1708.02002): a dense detector with anchors and the focal loss."""

from typing import Literal

from ylosia_jax.models.backbones.resnet import Depth, resnet
from ylosia_jax.models.heads.retina import RetinaHead
from ylosia_jax.models.necks.fpn import FPN
from ylosia_jax.models.network import Network
from ylosia_jax.nn.norm import NormKind
from ylosia_jax.nn.pixels import IMAGENET
from ylosia_jax.tasks.anchored import AnchoredBoxes


def retinanet(
    num_classes: int, *, depth: Depth = 50, version: Literal[1, 2] = 1, norm: NormKind = "batch", eps: float = 1e-5
) -> tuple[Network, dict[str, AnchoredBoxes]]:
    """Network and task of RetinaNet with a residual network, equal to torchvision's.

    Parameters at 91 classes and depth 50: version 1 with a frozen norm 34,014,999, 2 with batch norm 38,198,935. Of
    torchvision's 91 outputs, called as COCO numbers its categories, the first and ten more are no class.

    Args:
      depth: of the residual network.
      version: 1 has plain branches and an absolute loss of encoded boxes; 2 group norm in its branches, the GIoU loss,
        and its two coarsest levels made of the backbone's last instead of the pyramid's.
      norm: of the residual network; "frozen" where it comes with trained weights and batches are small.
      eps: of it; 0 for what torchvision's first version was published with.
    """
    newer = version == 2
    network = Network(
        backbone=resnet(depth, norm=norm, eps=eps),
        neck=FPN(levels=("c3", "c4", "c5"), extra="c5" if newer else "p5"),
        heads={"box": RetinaHead(num_classes=num_classes, norm="group" if newer else None)},
        pixels=IMAGENET,
    )
    return network, {"box": AnchoredBoxes(num_classes=num_classes, box_loss="giou" if newer else "l1")}
