"""Ylosia: one network, one pass, every answer about the objects in an image."""

from collections.abc import Mapping
from typing import Any, Literal

from flax import linen as nn

from ylosia_jax.models.backbones.csp import CSP
from ylosia_jax.models.heads.decoupled import DecoupledHead
from ylosia_jax.models.heads.pose import PoseHead
from ylosia_jax.models.heads.prototypes import PrototypeHead
from ylosia_jax.models.heads.semantic import SemanticHead
from ylosia_jax.models.necks.pan import PAN
from ylosia_jax.models.network import Network
from ylosia_jax.tasks.dense import DenseBoxes
from ylosia_jax.tasks.masks import PrototypeMasks
from ylosia_jax.tasks.panoptic import Panoptic
from ylosia_jax.tasks.poses import DensePoses
from ylosia_jax.tasks.semantic import Semantic
from ylosia_jax.types import Skeleton

Scale = Literal["n", "s", "m", "l", "x"]

# Scale -> depth multiple, width multiple, widest stage before the multiple.
SCALES: dict[Scale, tuple[float, float, int]] = {
    "n": (0.33, 0.25, 1024),
    "s": (0.33, 0.50, 1024),
    "m": (0.67, 0.75, 768),
    "l": (1.00, 1.00, 512),
    "x": (1.00, 1.25, 512),
}

# Head -> the longest gradient that it sends back to the features, relative to the box head's: added up as they are,
# poses and semantic maps leave boxes and masks behind (experiments/joint_vs_single).
GRADIENT_LIMITS = {"mask": 1.0, "keypoint": 0.25, "semantic": 0.35}


def ylosia(
    scale: Scale,
    num_classes: int,
    *,
    masks: bool = False,
    skeleton: Skeleton | None = None,
    semantic_classes: int = 0,
    nms_free: bool = False,
    gradient_limits: Mapping[str, float] = GRADIENT_LIMITS,
) -> tuple[Network, dict[str, Any]]:
    """Network and tasks of Ylosia at one of its published scales: boxes, and whatever else is asked for.

    The widths and depths are those of the YOLOv8 family, so that sizes and published results compare; parameters at
    80 classes, boxes alone: n 3,157,184, s 11,166,544, m 25,902,624, l 43,691,504, x 68,229,632.

    Args:
      num_classes: of the things; 0 for none, and no boxes.
      masks: find an instance mask with every box.
      skeleton: find a pose of these points with every box.
      semantic_classes: things and stuff, for a semantic map; with masks too, there is a panoptic map as well.
      nms_free: beside the class scores that find every object many times, train a twin of them that finds it once, of
        the same boxes (after YOLOv10, arXiv:2405.14458, section 3.1). Prediction has the twin's alone, and nothing to
        suppress.
      gradient_limits: of the heads "mask", "keypoint" and "semantic", relative to the box head, see `Network`; without
        effect where one of the two is not there. {} for none.

    Raises:
      ValueError: if masks or poses are asked for, but no classes of things; if there is a limit for another head.
    """
    if unknown := gradient_limits.keys() - GRADIENT_LIMITS.keys():
        names = ", ".join(sorted(unknown))
        raise ValueError(f"gradient_limits names {names}: give limits of {', '.join(GRADIENT_LIMITS)} only")
    depth, width, widest = SCALES[scale]
    widths = [round(min(channels, widest) * width) for channels in (64, 128, 256, 512, 1024)]
    depths = [max(round(blocks * depth), 1) for blocks in (3, 6, 6, 3)]
    heads: dict[str, nn.Module] = {}
    tasks: dict[str, Any] = {}
    if num_classes:
        heads["box"] = DecoupledHead(num_classes=num_classes, twin=nms_free)
        tasks["box"] = DenseBoxes(num_classes=num_classes, nms_free=nms_free)
    elif masks or skeleton is not None:
        raise ValueError("num_classes is 0, but masks and poses are of objects: give the number of their classes")
    if masks:
        heads["mask"], tasks["mask"] = PrototypeHead(), PrototypeMasks()
    if skeleton is not None:
        heads["keypoint"] = PoseHead(points=len(skeleton.names))
        tasks["keypoint"] = DensePoses(sigmas=skeleton.sigmas)
    if semantic_classes:
        heads["semantic"], tasks["semantic"] = SemanticHead(num_classes=semantic_classes), Semantic(semantic_classes)
        if masks:
            tasks["panoptic"] = Panoptic(things=num_classes, classes=semantic_classes)
    limits = {name: limit for name, limit in gradient_limits.items() if name in heads} if "box" in heads else {}
    network = Network(
        backbone=CSP(widths=tuple(widths), depths=tuple(depths)),  # type: ignore[arg-type]
        neck=PAN(
            widths=tuple(widths[2:]),  # type: ignore[arg-type]
            depth=depths[0],
            fine=widths[2] if heads.keys() - {"box"} else 0,
        ),
        heads=heads,
        gradient_limits=limits,
    )
    return network, tasks
