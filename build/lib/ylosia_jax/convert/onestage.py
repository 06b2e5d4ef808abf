"""What torchvision calls the parts of RetinaNet, FCOS and SSD300."""

from collections.abc import Sequence

from ylosia_jax.convert.layout import Layout, PerClass, within
from ylosia_jax.convert.resnet import RESNET, fpn
from ylosia_jax.convert.vgg import vgg

_CLASS, _BOX = "head.classification_head", "head.regression_head"
_PER_CLASS = (PerClass(r"head\.classification_head\.cls_logits\..*", background=False),)


def _dense(conv: str, norm: str = "", *, step: int = 1) -> tuple[tuple[str, str], ...]:
    """Rules of RetinaNet's and FCOS's networks.

    Args:
      conv, norm: names of the convolutions and norms of the head's towers, where {} is the first number of their layer.
      step: from the number of one layer to the next.
    """
    towers = [
        (f"heads_box/{part}_tower/conv{i}{leaf}", f"{foreign}.conv.{name.format(step * i, step * i + 1)}")
        for part, foreign in (("class", _CLASS), ("box", _BOX))
        for i in range(4)
        for leaf, name in (("", conv), ("/conv", conv), ("/norm", norm))
    ]
    return (
        *within("backbone/", "backbone.body.", RESNET),
        *within("neck/", "backbone.fpn.", fpn(3)),
        *towers,
        ("heads_box/class_out", f"{_CLASS}.cls_logits"),
        ("heads_box/box_out", f"{_BOX}.bbox_reg"),
        ("heads_box/quality_out", f"{_BOX}.bbox_ctrness"),
    )


RETINANET = Layout("retinanet", _dense("{0}.0", "{0}.1"), per_class=_PER_CLASS)
# The file of v1's trained weights is older than torchvision's names of today.
RETINANET_2020 = Layout("retinanet_2020", _dense("{0}", step=2), per_class=_PER_CLASS)
FCOS = Layout("fcos", _dense("{0}", "{1}", step=3), per_class=_PER_CLASS)


def ssd(depths: Sequence[int] = (2, 2, 3, 3, 3)) -> Layout:
    """The layout of SSD300 with a VGG of these depths, whose list of layers torchvision cuts before its fourth pool."""
    rules = (
        *within("backbone/", "backbone.", vgg(depths[:4])),
        *((f"backbone/conv5_{i}", f"backbone.extra.0.{2 * i - 1}") for i in range(1, depths[4] + 1)),
        ("backbone/fc6", f"backbone.extra.0.{2 * depths[4] + 1}.1"),
        ("backbone/fc7", f"backbone.extra.0.{2 * depths[4] + 1}.3"),
        *((f"backbone/conv{7 + i}_{n}", f"backbone.extra.{i}.{2 * n - 2}") for i in range(1, 5) for n in (1, 2)),
        ("backbone/scale", "backbone.scale_weight"),
        *((f"heads_box/class_p{3 + i}", f"{_CLASS}.module_list.{i}") for i in range(6)),
        *((f"heads_box/box_p{3 + i}", f"{_BOX}.module_list.{i}") for i in range(6)),
    )
    return Layout("ssd", rules, per_class=(PerClass(r"head\.classification_head\.module_list\..*"),))
