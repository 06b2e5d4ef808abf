"""R-CNN and Fast R-CNN: second stages on regions that come with the image (`data.regions`)."""

from typing import Any

from flax import linen as nn

from ylosia_jax.models.backbones.alexnet import AlexNet
from ylosia_jax.models.backbones.vgg import VGG
from ylosia_jax.models.heads.crops import CropHead, Pixel
from ylosia_jax.models.heads.roi_box import RoiBoxHead
from ylosia_jax.models.two_stage import TwoStage
from ylosia_jax.nn.pixels import IMAGENET
from ylosia_jax.nn.roi import RoiPool
from ylosia_jax.tasks.rcnn import RCNN
from ylosia_jax.tasks.roi_boxes import RoiBoxes


def fast_rcnn(
    num_classes: int,
    *,
    backbone: nn.Module | None = None,
    level: str = "c5",
    stride: int = 16,
    dense: tuple[int, ...] = (4096, 4096),
    dropout: float = 0.5,
    samples: int = 64,
) -> tuple[TwoStage, dict[str, Any]]:
    """Fast R-CNN (arXiv:1504.08083): one pass over the image, pooled in each of its regions.

    Constants are the paper's (sections 2.3 and 4.1): of 64 regions an image a quarter are positives, background
    overlaps an object by 0.1 to 0.5, suppression at 0.3.

    Args:
      backbone: VGG-16 without its last pool, if None.
      level: of the backbone that is pooled from.
      stride: of that level.
      dense: features of the dense layers.
      samples: regions an image that learn in a step.
    """
    network = TwoStage(
        backbone=VGG(last_pool=False) if backbone is None else backbone,
        neck=None,
        rpn=None,
        heads={
            "box": RoiBoxHead(
                num_classes=num_classes,
                pool=RoiPool(size=7, level=level, stride=stride),
                dense=dense,
                dropout=dropout,
                init_std=(0.01, 0.001),
            )
        },
        pixels=IMAGENET,
    )
    box = RoiBoxes(num_classes=num_classes, samples=samples, background=0.1, beta=1.0, iou_threshold=0.3)
    return network, {"box": box}


def rcnn(
    num_classes: int,
    *,
    backbone: nn.Module | None = None,
    level: str = "c5",
    size: int = 224,
    context: int = 16,
    dense: tuple[int, ...] = (4096, 4096),
    dropout: float = 0.5,
    samples: int = 128,
) -> tuple[TwoStage, dict[str, Any]]:
    """R-CNN (arXiv:1311.2524): a network of its own on every region, support vector machines on its features.

    Of 128 regions a quarter are positives, as in the paper's fine-tuning (section 2.3); an image brings all of its
    step's here, there the whole batch does.

    Args:
      backbone: AlexNet, if None.
      level: of the backbone that the dense layers see.
      size: of a crop, in pixels.
      context: the rim of a crop that shows what is around its region.
      dense: features of the dense layers.
      samples: regions an image that learn in a step.
    """
    head = CropHead(
        backbone=AlexNet() if backbone is None else backbone,
        num_classes=num_classes,
        level=level,
        size=size,
        context=context,
        dense=dense,
        dropout=dropout,
    )
    network = TwoStage(backbone=Pixel(), neck=None, rpn=None, heads={"box": head}, pixels=IMAGENET)
    return network, {"box": RCNN(regions=RoiBoxes(num_classes=num_classes, samples=samples))}
