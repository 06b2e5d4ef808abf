"""Ylosia: one network, one pass, every answer about the objects in an image."""

from typing import Literal

from ylosia_jax.models.backbones.csp import CSP
from ylosia_jax.models.heads.decoupled import DecoupledHead
from ylosia_jax.models.necks.pan import PAN
from ylosia_jax.models.network import Network
from ylosia_jax.tasks.dense import DenseBoxes

Scale = Literal["n", "s", "m", "l", "x"]

# Scale -> depth multiple, width multiple, widest stage before the multiple.
SCALES: dict[Scale, tuple[float, float, int]] = {
    "n": (0.33, 0.25, 1024),
    "s": (0.33, 0.50, 1024),
    "m": (0.67, 0.75, 768),
    "l": (1.00, 1.00, 512),
    "x": (1.00, 1.25, 512),
}


def ylosia(scale: Scale, num_classes: int) -> tuple[Network, dict[str, DenseBoxes]]:
    """Network and tasks of Ylosia's detector at one of its published scales.

    The widths and depths are those of the YOLOv8 family, so that sizes and published results compare; parameters at
    80 classes: n 3,157,184, s 11,166,544, m 25,902,624, l 43,691,504, x 68,229,632.
    """
    depth, width, widest = SCALES[scale]
    widths = [round(min(channels, widest) * width) for channels in (64, 128, 256, 512, 1024)]
    depths = [max(round(blocks * depth), 1) for blocks in (3, 6, 6, 3)]
    network = Network(
        backbone=CSP(widths=tuple(widths), depths=tuple(depths)),  # type: ignore[arg-type]
        neck=PAN(widths=tuple(widths[2:]), depth=depths[0]),  # type: ignore[arg-type]
        heads={"box": DecoupledHead(num_classes=num_classes)},
    )
    return network, {"box": DenseBoxes(num_classes=num_classes)}
