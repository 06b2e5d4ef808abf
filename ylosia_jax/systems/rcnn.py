"""Detectors that look twice: Faster R-CNN, Mask R-CNN and Keypoint R-CNN on a feature pyramid.

Constants, initial kernels and answers are torchvision's, whose checkpoints they take (`convert.two_stage`).
"""

from typing import Any, Literal

from flax import linen as nn

from ylosia_jax.models.backbones.resnet import Depth, resnet
from ylosia_jax.models.heads.roi_box import RoiBoxHead
from ylosia_jax.models.heads.roi_keypoint import RoiKeypointHead
from ylosia_jax.models.heads.roi_mask import RoiMaskHead
from ylosia_jax.models.heads.rpn import RPNHead
from ylosia_jax.models.necks.fpn import FPN
from ylosia_jax.models.two_stage import TwoStage
from ylosia_jax.nn.norm import NormKind
from ylosia_jax.nn.pixels import IMAGENET
from ylosia_jax.tasks.roi_boxes import RoiBoxes
from ylosia_jax.tasks.roi_keypoints import RoiKeypoints
from ylosia_jax.tasks.roi_masks import RoiMasks
from ylosia_jax.tasks.rpn import RegionProposals

# 1 as in the papers; 2 after arXiv:2111.11429: batch norm beyond the backbone, a deeper RPN, a convolutional box head.
Version = Literal[1, 2]


def faster_rcnn(
    num_classes: int, *, depth: Depth = 50, version: Version = 1, norm: NormKind = "batch", eps: float = 1e-5
) -> tuple[TwoStage, dict[str, Any]]:
    """Faster R-CNN (arXiv:1506.01497) on a ResNet with a feature pyramid (1612.03144).

    Parameters with ResNet-50 at torchvision's 90 classes, norms that are not frozen included: 41,755,286 with frozen
    norms, 43,712,278 in the second version.

    Args:
      depth: of the ResNet.
      norm: of the backbone. "frozen" from trained weights, as the paper and torchvision's first version have it.
      eps: of it; 0 for what torchvision's first version was published with.
    """
    heads: dict[str, nn.Module] = {
        "box": RoiBoxHead(num_classes, convs=(256,) * 4 if version == 2 else (), dense=(1024,) * (3 - version))
    }
    network = TwoStage(
        backbone=resnet(depth, norm=norm, eps=eps),
        neck=FPN(norm="batch" if version == 2 else None),
        rpn=RPNHead(depth=version),
        heads=heads,
        pixels=IMAGENET,
    )
    return network, {"rpn": RegionProposals(), "box": RoiBoxes(num_classes)}


def mask_rcnn(
    num_classes: int, *, depth: Depth = 50, version: Version = 1, norm: NormKind = "batch", eps: float = 1e-5
) -> tuple[TwoStage, dict[str, Any]]:
    """Mask R-CNN (arXiv:1703.06870): `faster_rcnn` and a mask of every detection.

    Parameters with ResNet-50 at torchvision's 90 classes: 44,401,393 with frozen norms, 46,359,409 in the second
    version.
    """
    network, tasks = faster_rcnn(num_classes, depth=depth, version=version, norm=norm, eps=eps)
    head = RoiMaskHead(num_classes, norm="batch" if version == 2 else None)
    return network.clone(heads={**network.heads, "mask": head}), {**tasks, "mask": RoiMasks()}


def keypoint_rcnn(
    num_classes: int = 1, *, points: int = 17, depth: Depth = 50, norm: NormKind = "batch", eps: float = 1e-5
) -> tuple[TwoStage, dict[str, Any]]:
    """Keypoint R-CNN (arXiv:1703.06870, section 5): `faster_rcnn` and a pose of every detection.

    Parameters with ResNet-50 for people: 59,137,258 with frozen norms.

    Args:
      points: J of the skeleton.
    """
    network, tasks = faster_rcnn(num_classes, depth=depth, norm=norm, eps=eps)
    head = RoiKeypointHead(points)
    return network.clone(heads={**network.heads, "keypoint": head}), {**tasks, "keypoint": RoiKeypoints()}
