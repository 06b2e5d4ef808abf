"""Classifiers: what an image as a whole shows. Networks as torchvision has them, but for the ResNets for CIFAR."""

from collections.abc import Mapping
from typing import Literal

from flax import linen as nn

from ylosia_jax.models.backbones import resnet as residual
from ylosia_jax.models.backbones.alexnet import AlexNet
from ylosia_jax.models.backbones.densenet import DenseNet
from ylosia_jax.models.backbones.googlenet import GoogLeNet
from ylosia_jax.models.backbones.mobilenet import MobileNetV2
from ylosia_jax.models.backbones.vgg import VGG
from ylosia_jax.models.heads.classify import AuxiliaryClassifyHead, ClassifyHead, DenseClassifyHead
from ylosia_jax.models.network import Network
from ylosia_jax.nn.pixels import CENTRED, IMAGENET
from ylosia_jax.tasks.classify import Classify

System = tuple[Network, dict[str, Classify]]


def _classifier(backbone: nn.Module, head: nn.Module, num_classes: int) -> System:
    network = Network(backbone=backbone, neck=None, heads={"classification": head}, pixels=IMAGENET)
    return network, {"classification": Classify(num_classes)}


def alexnet(num_classes: int, *, pool: int = 6, hidden: int = 4096, dropout: float = 0.5) -> System:
    """AlexNet in its form for one device (arXiv:1404.5997); 61,100,840 parameters at 1,000 classes.

    Args:
      pool: cells a side of what the first matrix reads.
      hidden: outputs of the first two matrices.
    """
    rates = (dropout, dropout, 0.0)
    head = DenseClassifyHead(num_classes, pool=pool, hidden=(hidden, hidden), dropout=rates)
    return _classifier(AlexNet(), head, num_classes)


def vgg16(
    num_classes: int, *, batch_norm: bool = False, pool: int = 7, hidden: int = 4096, dropout: float = 0.5
) -> System:
    """VGG-16 (arXiv:1409.1556), configuration D; 138,357,544 parameters at 1,000 classes, 138,365,992 with batch norm.

    Args:
      pool: cells a side of what the first matrix reads.
      hidden: outputs of the first two matrices.
    """
    rates = (0.0, dropout, dropout)
    head = DenseClassifyHead(num_classes, pool=pool, hidden=(hidden, hidden), dropout=rates, std=0.01)
    return _classifier(VGG(batch_norm=batch_norm), head, num_classes)


def googlenet(num_classes: int, *, dropout: float = 0.2, auxiliary_dropout: float = 0.7) -> System:
    """GoogLeNet (arXiv:1409.4842) with its auxiliary heads, which prediction does not compute.

    Pixels are scaled to [-1, 1], as torchvision's published weights saw them (`transform_input`).
    13,004,888 parameters at 1,000 classes, 6,624,904 without the auxiliary heads'.
    """
    head = ClassifyHead(num_classes, dropout=dropout, std=0.01)
    levels = {"aux1": "c4a", "aux2": "c4d"}
    auxiliary: Mapping[str, nn.Module] = {
        name: AuxiliaryClassifyHead(num_classes, level, dropout=auxiliary_dropout) for name, level in levels.items()
    }
    network = Network(backbone=GoogLeNet(), neck=None, heads={"classification": head, **auxiliary}, pixels=CENTRED)
    return network, {"classification": Classify(num_classes, auxiliary=tuple(levels))}


def resnet(layers: residual.Depth, num_classes: int) -> System:
    """ResNet (arXiv:1512.03385); 11,689,512, 21,797,672, 25,557,032 or 44,549,160 parameters at 1,000 classes."""
    return _classifier(residual.resnet(layers), ClassifyHead(num_classes), num_classes)


def densenet121(num_classes: int) -> System:
    """DenseNet-121 (arXiv:1608.06993): layers that add 32 features; 7,978,856 parameters at 1,000 classes."""
    return _classifier(DenseNet(), ClassifyHead(num_classes), num_classes)


def mobilenet_v2(num_classes: int, *, width: float = 1.0, dropout: float = 0.2) -> System:
    """MobileNetV2 (arXiv:1801.04381); 3,504,872 parameters at 1,000 classes.

    Args:
      width: multiple of all channels.
    """
    head = ClassifyHead(num_classes, dropout=dropout, std=0.01)
    return _classifier(MobileNetV2(width), head, num_classes)


def resnet_cifar(layers: Literal[20, 32, 44, 56, 110], num_classes: int = 10) -> System:
    """ResNet for images of 32 pixels (arXiv:1512.03385, section 4.2), whose shortcuts have no parameters (option A).

    269,722 parameters with 20 layers and 10 classes, 853,018 with 56.
    """
    return _classifier(residual.CifarResNet((layers - 2) // 6), ClassifyHead(num_classes, level="c2"), num_classes)
