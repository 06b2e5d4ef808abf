"""What the released YOLOX calls its tensors (arXiv:2107.08430), in state dicts and in ONNX exports."""

import re
from collections.abc import Collection, Mapping

import numpy as np

from ylosia_jax.convert.layout import Layout, within
from ylosia_jax.types import UserError

EPS = 1e-3  # of its batch norms

_CONV = ((r"/conv", r".conv"), (r"/norm", r".bn"))
_CONV3 = (
    *within(r"/full", r"", _CONV),
    *within(r"/depthwise", r".dconv", _CONV),
    *within(r"/pointwise", r".pconv", _CONV),
)
_C3 = (
    *within(r"/deep", r".conv1", _CONV),
    *within(r"/short", r".conv2", _CONV),
    *within(r"/block(\d+)_reduce", r".m.\1.conv1", _CONV),
    *within(r"/block(\d+)_conv", r".m.\1.conv2", _CONV3),
    *within(r"/fuse", r".conv3", _CONV),
)
_BACKBONE = (
    *within(r"/stem", r".stem.conv", _CONV),
    *(rule for i in (2, 3, 4, 5) for rule in within(rf"/down{i}", rf".dark{i}.0", _CONV3)),
    *(rule for i in (2, 3, 4) for rule in within(rf"/stage{i}", rf".dark{i}.1", _C3)),
    *within(r"/spp/reduce", r".dark5.1.conv1", _CONV),
    *within(r"/spp/fuse", r".dark5.1.conv2", _CONV),
    *within(r"/stage5", r".dark5.2", _C3),
)
_NECK = (
    *within(r"/narrow5", r".lateral_conv0", _CONV),
    *within(r"/top4", r".C3_p4", _C3),
    *within(r"/narrow4", r".reduce_conv1", _CONV),
    *within(r"/top3", r".C3_p3", _C3),
    *within(r"/down4", r".bu_conv2", _CONV3),
    *within(r"/bottom4", r".C3_n3", _C3),
    *within(r"/down5", r".bu_conv1", _CONV3),
    *within(r"/bottom5", r".C3_n4", _C3),
)


def _head(level: str, number: int) -> tuple[tuple[str, str], ...]:
    return (
        *within(rf"/stem_{level}", rf".stems.{number}", _CONV),
        *within(rf"/class_{level}_([01])", rf".cls_convs.{number}.\1", _CONV3),
        *within(rf"/box_{level}_([01])", rf".reg_convs.{number}.\1", _CONV3),
        (rf"/class_{level}_out", rf".cls_preds.{number}"),
        (rf"/box_{level}_out", rf".reg_preds.{number}"),
        (rf"/object_{level}_out", rf".obj_preds.{number}"),
    )


# Of a network whose parts run one after the other, their order.
_TURNS = (
    *("backbone", "stem", "dark2", "dark3", "dark4", "dark5", "lateral_conv0", "C3_p4", "reduce_conv1", "C3_p3"),
    *("bu_conv2", "C3_n3", "bu_conv1", "C3_n4", "head", "stems", "cls_convs", "reg_convs"),
    *("conv1", "conv2", "m", "conv3", "dconv", "pconv", "conv", "weight"),
)


def unfold(tensors: Mapping[str, np.ndarray], names: Collection[str]) -> Mapping[str, np.ndarray]:
    """An ONNX export's tensors under the names of the state dict that it was made of; a state dict as it is.

    PyTorch's exporter folds a norm into the convolution before it, and calls what comes out `onnx::Conv_<number>`, a
    weight and a bias, numbered as the convolutions run. Here the weight is the convolution's, the bias the norm's, and
    the norm does nothing else: scale 1, mean 0 and a variance that makes a deviation of 1. So the network that learns
    takes the weights too. What it predicts is the same; the statistics that training had are lost, so learning goes
    on from norms that first have to find them again.

    Args:
      names: all that the state dict has.

    Raises:
      UserError: if there are not as many numbered tensors as a network of these names has convolutions with norms.
    """
    numbered = sorted((int(match[1]), name) for name in tensors if (match := re.fullmatch(r"onnx::Conv_(\d+)", name)))
    if not numbered:
        return tensors
    folded = [name for name in names if name.endswith(".conv.weight")]
    if len(numbered) != 2 * len(folded):
        raise UserError(
            f"the file holds {len(numbered)} tensors of convolutions with folded norms, a network of this size has "
            f"{2 * len(folded)}: give the config of the size that was exported"
        )
    found = {name: value for name, value in tensors.items() if not name.startswith("onnx::")}
    pairs = zip(numbered[::2], numbered[1::2], strict=True)
    for name, ((_, weight), (_, bias)) in zip(sorted(folded, key=_turn), pairs, strict=True):
        norm = name.removesuffix("conv.weight") + "bn"
        one = np.ones_like(tensors[bias])
        found |= {
            name: tensors[weight],
            f"{norm}.weight": one,
            f"{norm}.bias": tensors[bias],
            f"{norm}.running_mean": 0 * one,
            f"{norm}.running_var": (1 - EPS) * one,
        }
    return found


def _turn(name: str) -> list[int]:
    """When a convolution runs, by its name: a sorting key."""
    words = name.split(".")
    if words[0] == "head":  # level by level, not branch by branch
        words[1:3] = words[2], words[1]
    return [int(word) if word.isdigit() else _TURNS.index(word) for word in words]


YOLOX = Layout(
    "yolox",
    (
        *within(r"backbone", r"backbone.backbone", _BACKBONE),
        *within(r"neck", r"backbone", _NECK),
        *(rule for i, level in enumerate(("p3", "p4", "p5")) for rule in within("heads_box", "head", _head(level, i))),
    ),
    mend=unfold,
)
