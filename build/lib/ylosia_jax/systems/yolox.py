"""YOLOX (arXiv:2107.08430): anchor-free, with a decoupled head and dynamic assignment."""

from typing import Any, Literal

from ylosia_jax.models.backbones.csp_darknet import CSPDarknet
from ylosia_jax.models.heads.yolox import YOLOXHead
from ylosia_jax.models.necks.pafpn import PAFPN
from ylosia_jax.models.network import Network
from ylosia_jax.nn.pixels import BGR_255
from ylosia_jax.tasks.yolox import YOLOXBoxes

Scale = Literal["nano", "tiny", "s", "m", "l", "x"]

# Scale -> depth multiple, width multiple.
SCALES: dict[Scale, tuple[float, float]] = {
    "nano": (0.33, 0.25),
    "tiny": (0.33, 0.375),
    "s": (0.33, 0.50),
    "m": (0.67, 0.75),
    "l": (1.00, 1.00),
    "x": (1.33, 1.25),
}


def yolox(scale: Scale, num_classes: int, *, l1_epoch: int | None = None) -> tuple[Network, dict[str, Any]]:
    """Network and task of YOLOX at one of its published scales; nano's 3x3 convolutions are depthwise separable.

    Parameters at 80 classes: nano 912,159, tiny 5,055,855, s 8,968,255, m 25,326,495, l 54,208,895, x 99,071,455.

    Args:
      l1_epoch: see `YOLOXBoxes`; in the paper's runs the 15th from last.
    """
    depth, width = SCALES[scale]
    depthwise = scale == "nano"
    widths = [round(channels * width) for channels in (64, 128, 256, 512, 1024)]
    blocks = max(round(3 * depth), 1)
    network = Network(
        backbone=CSPDarknet(
            widths=tuple(widths),  # type: ignore[arg-type]
            depths=(blocks, 3 * blocks, 3 * blocks, blocks),
            depthwise=depthwise,
        ),
        neck=PAFPN(widths=tuple(widths[2:]), depth=round(3 * depth), depthwise=depthwise),  # type: ignore[arg-type]
        heads={"box": YOLOXHead(num_classes=num_classes, width=widths[2], depthwise=depthwise)},
        pixels=BGR_255,
    )
    return network, {"box": YOLOXBoxes(num_classes=num_classes, l1_epoch=l1_epoch)}
