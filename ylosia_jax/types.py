"""What the rooms hand to each other: examples, batches, outputs, detections.

Shape shorthand: B images, N objects an image (padded), M detections an image (padded), H W C image axes,
K classes, A anchor points, R bins of a box distribution. Levels are named `"p3"`, `"p4"`, …; level `"p3"` has
stride 2**3.

Boxes are float32 `xyxy` in pixels with continuous corners: a box that covers the whole of a W by H image is
(0, 0, W, H). Every padded axis has a `valid` mask beside it, and rows outside it are zeros that no consumer may read
a meaning into.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, UInt8

# A batch is NumPy on the host and JAX on the device; to the type checker it is JAX, which most code sees.
if TYPE_CHECKING:
    AnyArray = Array
else:
    AnyArray = Array | np.ndarray


@dataclasses.dataclass(frozen=True)
class Example:
    """One labelled image on the host, as a source hands it out: nothing resized, nothing padded.

    Attributes:
      image: RGB, [H, W, 3].
      name: the image's file name, unique in its split; `image_id` of predictions and evaluations.
      boxes: [n, 4] xyxy in pixels of `image`.
      labels: [n] index into the source's `classes`.
      crowd: [n] True where one box stands for a group (COCO `iscrowd`): never a training target, ignored when scored.
      area: [n] the object's own area in square pixels, which COCO evaluation uses to sort by size. The segmentation's
        where there is one, else the box's.
    """

    image: UInt8[np.ndarray, "H W 3"]
    name: str
    boxes: Float[np.ndarray, "n 4"]
    labels: Int[np.ndarray, " n"]
    crowd: Bool[np.ndarray, " n"]
    area: Float[np.ndarray, " n"]


class Source(Protocol):
    """A split of a data set with random access: the same index always gives the same example."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in label order."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


@struct.dataclass
class Objects:
    """Ground truth of a batch, padded to N objects an image.

    Attributes:
      boxes: [B, N, 4] xyxy in pixels of the canvas.
      labels: [B, N] class index; 0 where not valid.
      valid: [B, N] False marks padding.
      crowd: [B, N] a group box: not a target, and what it covers is no background either.
    """

    boxes: Float[AnyArray, "*B N 4"]
    labels: Int[AnyArray, "*B N"]
    valid: Bool[AnyArray, "*B N"]
    crowd: Bool[AnyArray, "*B N"]


@struct.dataclass
class Batch:
    """Letterboxed images on a fixed canvas with their truth.

    Attributes:
      image: [B, H, W, 3] RGB. uint8 from the host; float32 in [0, 1] after augmentation.
      extent: [B, 2] height and width in pixels of the picture in the canvas's top left corner; the rest is padding.
      size: [B, 2] height and width of the picture before the letterbox, in pixels.
      index: [B] the example's place in its source; -1 for an image that only fills the batch.
      epoch: [B] which pass over the source this is. (seed, epoch, index) is all that augmentation's randomness sees.
      objects: the truth, in pixels of the canvas.
    """

    image: AnyArray
    extent: Float[AnyArray, "B 2"]
    size: Float[AnyArray, "B 2"]
    index: Int[AnyArray, " B"]
    epoch: Int[AnyArray, " B"]
    objects: Objects


@struct.dataclass
class DenseOutputs:
    """A dense one-stage head's answer: one prediction for each cell of each level.

    Attributes:
      logits: level -> [B, H, W, K] class logits.
      deltas: level -> [B, H, W, D] encoded boxes; the task's coder knows what D holds.
    """

    logits: Mapping[str, Float[Array, "B _ _ K"]]
    deltas: Mapping[str, Float[Array, "B _ _ D"]]


@struct.dataclass
class Detections:
    """Detections of a batch, best first, padded to M an image.

    Attributes:
      boxes: [B, M, 4] xyxy in pixels of the canvas.
      scores: [B, M] in [0, 1]; 0 where not valid.
      labels: [B, M] class index.
      valid: [B, M] False marks padding.
    """

    boxes: Float[AnyArray, "*B M 4"]
    scores: Float[AnyArray, "*B M"]
    labels: Int[AnyArray, "*B M"]
    valid: Bool[AnyArray, "*B M"]


def stride(level: str) -> int:
    """Stride in pixels of a level by its name: 8 for `"p3"`."""
    return 2 ** int(level[1:])


class UserError(Exception):
    """What the user can mend: shown as one line, exit status 2, no traceback. Names the value and the remedy."""


class Stopped(Exception):
    """A run that was told to stop has saved its state and left; the message says where it goes on."""
