"""Panoptic segmentation: every pixel belongs to one thing or to stuff. Nothing is learned here, only merged.

Shape shorthand: B images, M detections, H W canvas.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ylosia_jax.ops import panoptic
from ylosia_jax.types import Detections, Label, Masks, PanopticMap, SemanticMap


@dataclasses.dataclass(frozen=True)
class Panoptic:
    """Merges a task of masks and one of semantic maps (Kirillov et al., arXiv:1801.00868, section 6).

    Attributes:
      things: how many of the semantic classes are things; they come first.
      classes: all semantic classes.
      score_threshold: detections below this take no part.
      min_visible: a thing that better ones leave less than this share of is left out.
      min_stuff_area: a class of stuff with fewer pixels of the canvas than this is left out.
      instances: detections that take part at most, the best ones.
      boxes, masks, semantic: names of the tasks whose answers are merged.
    """

    things: int
    classes: int
    score_threshold: float = 0.4
    min_visible: float = 0.5
    min_stuff_area: float = 64.0
    instances: int = 100
    boxes: str = "box"
    masks: str = "mask"
    semantic: str = "semantic"

    @property
    def needs(self) -> frozenset[Label]:
        """Nothing: the tasks that it merges say what they need."""
        return frozenset()

    def decode(self, outputs: Mapping[str, Any], answers: Mapping[str, Any]) -> PanopticMap:
        """The merged map of each image."""
        detections: Detections = answers[self.boxes]
        masks: Masks = answers[self.masks]
        semantic: SemanticMap = answers[self.semantic]
        total = detections.scores.shape[1]
        most = min(self.instances, total)
        chosen = detections.valid & (detections.scores >= self.score_threshold)

        def one(logits: Array, boxes: Array, chosen: Array, semantic: Array) -> Array:
            page = panoptic.merge(
                logits,
                boxes,
                chosen,
                semantic,
                things=self.things,
                classes=self.classes,
                min_visible=self.min_visible,
                min_stuff_area=self.min_stuff_area,
            )
            # Stuff is numbered from the number of all detections on, not only of those that take part.
            return jnp.where(page > most, page + (total - most), page)

        first = (masks.logits[:, :most], detections.boxes[:, :most], chosen[:, :most])
        return PanopticMap(segments=jax.vmap(one)(*first, semantic.labels))
