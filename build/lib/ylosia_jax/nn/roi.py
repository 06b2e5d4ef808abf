"""How a second stage's head looks into its regions."""

import dataclasses
from collections.abc import Mapping

from jaxtyping import Array, Float

from ylosia_jax.ops import roi as roi_ops
from ylosia_jax.types import Rois, stride


@dataclasses.dataclass(frozen=True)
class RoiAlign:
    """Bilinear samples of the level that suits a region's size, see `ops.roi.multilevel_roi_align`.

    Attributes:
      size: bins along each side.
      sampling: points along each side of a bin.
      aligned: see `ops.roi.roi_align`.
      levels: consecutive, finest first.
    """

    size: int = 7
    sampling: int = 2
    aligned: bool = False
    levels: tuple[str, ...] = ("p2", "p3", "p4", "p5")

    def __call__(self, features: Mapping[str, Float[Array, "B _ _ C"]], rois: Rois) -> Float[Array, "B R P P C"]:
        """Pools all regions, those of padding too."""
        levels = {level: features[level] for level in self.levels}
        return roi_ops.multilevel_roi_align(
            levels, rois.boxes, (self.size, self.size), sampling=self.sampling, aligned=self.aligned
        )


@dataclasses.dataclass(frozen=True)
class RoiPool:
    """The maxima of a region's bins on one level, see `ops.roi.roi_pool`.

    Attributes:
      size: bins along each side.
      level: of the features.
      stride: of that level; None for what its name says.
    """

    size: int = 7
    level: str = "c4"
    stride: int | None = None

    def __call__(self, features: Mapping[str, Float[Array, "B _ _ C"]], rois: Rois) -> Float[Array, "B R P P C"]:
        """Pools all regions, those of padding too."""
        scale = 1 / (self.stride or stride(self.level))
        return roi_ops.roi_pool(features[self.level], rois.boxes, (self.size, self.size), scale=scale)
