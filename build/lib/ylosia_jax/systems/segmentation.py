"""FCN, DeepLabv3 and DeepLabv3+ on dilated ResNets: a class for every pixel.

`num_classes` counts all semantic classes, the background too where the data has one.
"""

from typing import Any, Literal

from flax import linen as nn

from ylosia_jax.models.backbones.resnet import Depth, ResNet, resnet
from ylosia_jax.models.heads.deeplab import DeepLabHead, DeepLabPlusHead
from ylosia_jax.models.heads.fcn import FCNHead
from ylosia_jax.models.network import Network
from ylosia_jax.nn.pixels import IMAGENET
from ylosia_jax.tasks.pixels import PixelSemantic

OutputStride = Literal[8, 16]


def fcn(
    num_classes: int,
    *,
    depth: Depth = 50,
    output_stride: OutputStride = 8,
    auxiliary: bool = True,
    width: int = 64,
) -> tuple[Network, dict[str, Any]]:
    """Network and tasks of FCN (arXiv:1411.4038) as torchvision has it: one answer, of a last level of stride 8.

    Parameters with 21 classes: depth 50 35,322,218, 101 54,314,346.

    Args:
      auxiliary: learn a second answer, of the level before the last, with half the weight.
      width: features of the backbone's first stage, which all others follow.
    """
    head = FCNHead(num_classes)
    return _system(head, num_classes, output_stride, _resnet(depth, output_stride, width), auxiliary)


def deeplabv3(
    num_classes: int,
    *,
    depth: Depth = 50,
    output_stride: OutputStride = 8,
    auxiliary: bool = True,
    multi_grid: tuple[int, ...] = (),
    width: int = 64,
) -> tuple[Network, dict[str, Any]]:
    """Network and tasks of DeepLabv3 (arXiv:1706.05587) as torchvision has it.

    Parameters with 21 classes: depth 50 42,004,074, 101 60,996,202.

    Args:
      output_stride: 16 takes a quarter of 8's time in the last stage and the head; 8 follows edges better.
      auxiliary: as in `fcn`; the paper has none.
      multi_grid: see `ResNet`; the paper's best is (1, 2, 4), torchvision has none.
      width: features of the backbone's first stage; the head has four times as many.
    """
    head = DeepLabHead(num_classes, _rates(output_stride), 4 * width)
    return _system(head, num_classes, output_stride, _resnet(depth, output_stride, width, multi_grid), auxiliary)


def deeplabv3_plus(
    num_classes: int,
    *,
    depth: Depth = 50,
    output_stride: OutputStride = 16,
    multi_grid: tuple[int, ...] = (),
    width: int = 64,
) -> tuple[Network, dict[str, Any]]:
    """Network and tasks of DeepLabv3+ (arXiv:1802.02611): DeepLabv3's pyramid, and a decoder of stride 4.

    Args:
      multi_grid: as in `deeplabv3`.
      width: as in `deeplabv3`.
    """
    head = DeepLabPlusHead(num_classes, _rates(output_stride), 4 * width)
    return _system(head, num_classes, 4, _resnet(depth, output_stride, width, multi_grid), auxiliary=False)


def _resnet(depth: Depth, output_stride: OutputStride, width: int, multi_grid: tuple[int, ...] = ()) -> ResNet:
    return resnet(depth, width=width, output_stride=output_stride, multi_grid=multi_grid)


def _rates(output_stride: OutputStride) -> tuple[int, ...]:
    """Dilations that look equally far at every stride."""
    return tuple(rate * 16 // output_stride for rate in (6, 12, 18))


def _system(
    head: nn.Module, num_classes: int, stride: int, backbone: ResNet, auxiliary: bool
) -> tuple[Network, dict[str, Any]]:
    heads = {"semantic": head}
    if auxiliary:
        heads["auxiliary"] = FCNHead(num_classes, level="c4")
    task = PixelSemantic(num_classes, stride=stride, auxiliary="auxiliary" if auxiliary else "")
    return Network(backbone=backbone, neck=None, heads=heads, pixels=IMAGENET), {"semantic": task}
