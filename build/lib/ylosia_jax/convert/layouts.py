"""All layouts of foreign weights, and which of them a file and a network have in common."""

import contextlib
from collections.abc import Collection, Mapping
from typing import Any

from ylosia_jax.convert.classifiers import CLASSIFIERS
from ylosia_jax.convert.layout import Layout, within
from ylosia_jax.convert.onestage import FCOS, RETINANET, RETINANET_2020, ssd
from ylosia_jax.convert.resnet import RESNET, fpn
from ylosia_jax.convert.segmentation import DEEPLABV3, FCN
from ylosia_jax.convert.two_stage import RCNN, RCNN_2019, RCNN_V2
from ylosia_jax.convert.ylosia import YLOSIA
from ylosia_jax.convert.yolox import YOLOX
from ylosia_jax.types import UserError

LAYOUTS: tuple[Layout, ...] = (
    YLOSIA,
    YOLOX,
    # torchvision's classifiers have their body at the root, its detectors under `backbone.`.
    Layout("resnet", within("backbone/", "", RESNET)),
    Layout("resnet_fpn", (*within("backbone/", "backbone.body.", RESNET), *within("neck/", "backbone.fpn.", fpn(2)))),
    Layout(
        "retinanet_fpn", (*within("backbone/", "backbone.body.", RESNET), *within("neck/", "backbone.fpn.", fpn(3)))
    ),
    *CLASSIFIERS,
    RCNN,
    RCNN_V2,
    RCNN_2019,
    RETINANET,
    RETINANET_2020,
    FCOS,
    ssd(),
    FCN,
    DEEPLABV3,
)


def choose(
    tensors: Mapping[str, Any],
    paths: Collection[str],
    name: str | None = None,
    *,
    whole: Collection[str] | None = None,
) -> Layout:
    """The layout that names all leaves and finds the most of them among the tensors.

    Args:
      paths: of the leaves that the file has tensors of, `backbone/…/kernel`.
      name: of the layout, where the user chose it.
      whole: paths of all the network's leaves, where `paths` are some: what `Layout.mend` needs.

    Raises:
      UserError: if there is no such layout, none knows all leaves, or it finds none of its names among the tensors.
    """
    there = ", ".join(layout.name for layout in LAYOUTS)
    if name is not None:
        chosen = next((layout for layout in LAYOUTS if layout.name == name), None)
        if chosen is None:
            raise UserError(f"there is no layout {name!r}: there are {there}")
        return chosen

    def named(layout: Layout) -> list[str]:
        return [found for path in paths if (found := layout.name_of(path)) is not None]

    fitting = [layout for layout in LAYOUTS if len(named(layout)) == len(paths)]
    if not fitting:
        near = max(LAYOUTS, key=lambda layout: len(named(layout)))
        unnamed = next(path for path in paths if near.name_of(path) is None)
        known = len(named(near))
        close = f"; {near.name} has the most, {known}, but none for {unnamed}" if 2 * known >= len(paths) else ""
        raise UserError(
            f"no layout has names for all {len(paths)} leaves of this network{close}. There are {there}; with --only a "
            "part of the network is imported alone, such as --only backbone"
        )

    def found(layout: Layout) -> int:
        held = tensors
        if layout.mend is not None:
            with contextlib.suppress(UserError):
                held = layout.mend(tensors, {found for path in whole or paths if (found := layout.name_of(path))})
        return sum(name in held for name in named(layout))

    best = max(fitting, key=found)
    if not found(best):
        wanted, held = next(iter(named(best)), ""), next(iter(tensors), "")
        raise UserError(
            f"no tensor of the file has a name of this network's. Of the layouts {there}, those that could name its "
            f"layers are {', '.join(layout.name for layout in fitting)}: {best.name} looks for {wanted}, and the file "
            f"has {held}"
        )
    return best
