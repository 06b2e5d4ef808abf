"""What the rooms hand to each other: examples, batches, outputs, detections.

Shape shorthand: B images, N objects an image (padded), M detections an image (padded), H W C image axes,
K classes, A anchor points or anchors, R regions of interest (padded) or bins of a box distribution, J points of a pose,
C prototypes, S semantic classes. Levels are named `"p3"`, `"p4"`, …; level `"p3"` has stride 2**3.

Things are counted and have boxes; stuff is not. The semantic classes of a data set are its `classes`, which are its
things, followed by its `stuff`.

Boxes are float32 `xyxy` in pixels with continuous corners: a box that covers the whole of a W by H image is
(0, 0, W, H). Every padded axis has a `valid` mask beside it, and rows outside it are zeros that no consumer may read
a meaning into.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, UInt8

# A batch is NumPy on the host and JAX on the device; to the type checker it is JAX, which most code sees.
if TYPE_CHECKING:
    AnyArray = Array
else:
    AnyArray = Array | np.ndarray


# What can be known of an image.
Label = Literal["box", "mask", "keypoint", "semantic", "category"]

VOID = 255  # in semantic maps: nobody says what is there; never learned, never scored


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """The points that a pose consists of.

    Attributes:
      names: of the J points.
      mirror: index of each point's counterpart in a mirrored image (the left eye's is the right one), or its own.
      edges: pairs of points that drawings connect.
      sigmas: how far, as a share of the object's size, annotators differ on each point (COCO's OKS constants); the
        scale on which a pose's errors are measured.
      classes: names of the things that have such poses; empty for all.
    """

    names: tuple[str, ...]
    mirror: tuple[int, ...]
    edges: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...]
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.names)
        if sorted(self.mirror) != list(range(count)) or any(self.mirror[j] != i for i, j in enumerate(self.mirror)):
            raise ValueError(f"mirror is {self.mirror}: pair up the {count} points, each with one or with itself")
        if any(not 0 <= point < count for edge in self.edges for point in edge):
            raise ValueError(f"edges are {self.edges}, but there are {count} points, from 0")
        if len(self.sigmas) != count or min(self.sigmas, default=1) <= 0:
            raise ValueError(f"sigmas are {self.sigmas}: give one above 0 for each of the {count} points")


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
      masks: of each object its pixels in `image` as COCO's compressed run lengths (`counts`), empty where nobody drew
        this one; None where nobody drew any.
      keypoints: [n, J, 3] x, y in pixels of `image` and COCO's v: 0 not labelled, 1 hidden, 2 visible; None where
        nobody marked any.
      semantic: [H, W] the semantic class of each pixel, or VOID; None where nobody drew it.
      known: [K] the classes whose every object in the image has a box; None for all. Of the others, an absent box says
        nothing.
      drawn: [S] the classes, then the stuff, whose pixels the semantic map shows; None for all. That there is none of
        the others it does not say. A class may have its pixels drawn and no boxes, or boxes alone.
      source: which of a mixture's sets the image comes from.
      category: index into the source's `classes` of what the image as a whole shows; None where nobody said.
    """

    image: UInt8[np.ndarray, "H W 3"]
    name: str
    boxes: Float[np.ndarray, "n 4"]
    labels: Int[np.ndarray, " n"]
    crowd: Bool[np.ndarray, " n"]
    area: Float[np.ndarray, " n"]
    masks: tuple[bytes, ...] | None = None
    keypoints: Float[np.ndarray, "n J 3"] | None = None
    semantic: UInt8[np.ndarray, "H W"] | None = None
    known: Bool[np.ndarray, " K"] | None = None
    drawn: Bool[np.ndarray, " S"] | None = None
    source: int = 0
    category: int | None = None


class Source(Protocol):
    """A split of a data set with random access: the same index always gives the same example."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the things, in label order."""
        ...

    @property
    def stuff(self) -> tuple[str, ...]:
        """Names of the semantic classes beyond the things."""
        ...

    @property
    def skeleton(self) -> Skeleton | None:
        """What `Example.keypoints` consist of."""
        ...

    @property
    def labels(self) -> frozenset[Label]:
        """What is known of its images, at least of some."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...

    @property
    def shapes(self) -> Int[np.ndarray, "n 2"]:
        """Heights and widths of the images, told without decoding them."""
        ...


@struct.dataclass
class Objects:
    """Ground truth of a batch, padded to N objects an image.

    Attributes:
      boxes: [B, N, 4] xyxy in pixels of the canvas.
      labels: [B, N] class index; 0 where not valid.
      valid: [B, N] False marks padding.
      crowd: [B, N] a group box: not a target, and what it covers is no background either.
      masked: [B, N] whether the object's mask is known; None in a run without masks.
      keypoints: [B, N, J, 3] x, y in pixels of the canvas and v, 0 where not labelled or out of view; None in a run
        without poses.
    """

    boxes: Float[AnyArray, "*B N 4"]
    labels: Int[AnyArray, "*B N"]
    valid: Bool[AnyArray, "*B N"]
    crowd: Bool[AnyArray, "*B N"]
    masked: Bool[AnyArray, "*B N"] | None = None
    keypoints: Float[AnyArray, "*B N J 3"] | None = None


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
      known: [B, K] classes whose every object is among `objects`; None where that holds for all images.
      source: [B, S] which of a mixture's sets an image comes from, a mosaic with its first tile; None where there is
        one set. Losses are means of the sets', see `ops.sources`.
      instances: [B, H, W] 1 + the row in `objects` of the object that is seen there, 0 for none; None in a run without
        masks.
      semantic: [B, H, W] semantic class, or VOID; None in a run without semantic maps.
      category: [B] class of the image as a whole, -1 where nobody said; None in a run without categories.
      regions: where objects may be, found outside of the network; None in a run whose network finds its own or none.
    """

    image: AnyArray
    extent: Float[AnyArray, "B 2"]
    size: Float[AnyArray, "B 2"]
    index: Int[AnyArray, " B"]
    epoch: Int[AnyArray, " B"]
    objects: Objects
    known: Bool[AnyArray, "B K"] | None = None
    source: Bool[AnyArray, "B S"] | None = None
    instances: Int[AnyArray, "B H W"] | UInt8[AnyArray, "B H W"] | None = None
    semantic: Int[AnyArray, "B H W"] | UInt8[AnyArray, "B H W"] | None = None
    category: Int[AnyArray, " B"] | None = None
    regions: "Rois | None" = None


@struct.dataclass
class DenseOutputs:
    """A dense head's answer: one prediction for each cell of each level, or one for each of a cell's anchors.

    Of several anchors a cell the last axis holds one's numbers after the other's.

    Attributes:
      logits: level -> [B, H, W, K] class logits.
      deltas: level -> [B, H, W, D] encoded boxes; the task's coder knows what D holds.
      once: level -> [B, H, W, K] class logits of a twin that names every object once; None where there is none.
      quality: level -> [B, H, W, 1] logit of how good the box is, whatever its class: objectness, centre-ness; None
        where there is none.
    """

    logits: Mapping[str, Float[Array, "B _ _ K"]]
    deltas: Mapping[str, Float[Array, "B _ _ D"]]
    once: Mapping[str, Float[Array, "B _ _ K"]] | None = None
    quality: Mapping[str, Float[Array, "B _ _ _"]] | None = None

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Level -> (height, width) in cells."""
        return {level: (x.shape[1], x.shape[2]) for level, x in self.logits.items()}


@struct.dataclass
class MaskOutputs:
    """A prototype head's answer (YOLACT, arXiv:1904.02689): masks that all objects share, and how each mixes them.

    Attributes:
      prototypes: [B, h, w, C] on a grid that the canvas is a whole multiple of.
      coefficients: level -> [B, H, W, C].
    """

    prototypes: Float[Array, "B h w C"]
    coefficients: Mapping[str, Float[Array, "B _ _ C"]]


@struct.dataclass
class PoseOutputs:
    """A dense pose head's answer.

    Attributes:
      points: level -> [B, H, W, 3 J] encoded x and y, and a logit of being visible, of every point of the pose.
      heatmap: [B, h, w, J] logits of each point being in a cell, whichever object's it is; on a grid that the canvas
        is a whole multiple of.
    """

    points: Mapping[str, Float[Array, "B _ _ P"]]
    heatmap: Float[Array, "B h w J"]


@struct.dataclass
class Rois:
    """Regions of interest that a second stage looks into, padded to R an image.

    Attributes:
      boxes: [B, R, 4] xyxy in pixels of the canvas.
      valid: [B, R] False marks padding.
      index: [B, R] in training the row of the object that each answers for, 0 where there is none; in prediction the
        row of the anchor, region or detection that it was made from.
      kind: [B, R] in training 1 where it answers for an object, 0 for background; 0 in prediction.
      canvas: height and width in pixels of what they lie in.
    """

    boxes: Float[AnyArray, "*B R 4"]
    valid: Bool[AnyArray, "*B R"]
    index: Int[AnyArray, "*B R"]
    kind: Int[AnyArray, "*B R"]
    canvas: tuple[int, int] = struct.field(pytree_node=False)


@struct.dataclass
class RoiOutputs:
    """A second stage's classes and boxes of its regions.

    Attributes:
      rois: that it looked into.
      logits: [B, R, K + 1] class logits, the background's first.
      deltas: [B, R, K + 1, 4] the region's box refined for each class, encoded; row 0, of the background, means
        nothing.
    """

    rois: Rois
    logits: Float[Array, "B R K1"]
    deltas: Float[Array, "B R K1 4"]


@struct.dataclass
class CropOutputs:
    """What R-CNN says of its regions: a softmax over features, and what was fitted to the features afterwards.

    Attributes:
      rois, logits: as in `RoiOutputs`.
      deltas: likewise, by the ridge regression; zeros until it is fitted.
      margins: [B, R, K] decision values of the support vector machines; zeros until they are fitted.
      fitted: 1 once they are, 0 before.
      pooled: [B, R, P] what the regression sees.
      features: [B, R, D] what the machines see.
    """

    rois: Rois
    logits: Float[Array, "B R K1"]
    deltas: Float[Array, "B R K1 4"]
    margins: Float[Array, "B R K"]
    fitted: Float[Array, ""]
    pooled: Float[Array, "B R P"]
    features: Float[Array, "B R D"]


@struct.dataclass
class RoiMaps:
    """A second stage's maps of its regions: masks, a channel a class, or heatmaps, a channel a point of the pose.

    Attributes:
      rois: that it looked into.
      logits: [B, R, h, w, C] on a grid over each region's box.
    """

    rois: Rois
    logits: Float[Array, "B R h w C"]


@struct.dataclass
class Detections:
    """Detections of a batch, best first, padded to M an image.

    Attributes:
      boxes: [B, M, 4] xyxy in pixels of the canvas.
      scores: [B, M] in [0, 1]; 0 where not valid.
      labels: [B, M] class index.
      valid: [B, M] False marks padding.
      index: [B, M] the anchor point, or the region of interest, that each comes from; 0 where not valid.
    """

    boxes: Float[AnyArray, "*B M 4"]
    scores: Float[AnyArray, "*B M"]
    labels: Int[AnyArray, "*B M"]
    valid: Bool[AnyArray, "*B M"]
    index: Int[AnyArray, "*B M"]


@struct.dataclass
class Masks:
    """The masks of a batch's detections.

    Attributes:
      logits: [B, M, h, w] on the prototypes' grid, which covers the canvas; above 0 is inside. They reach beyond the
        detection's box, to which its mask is to be cut once it is enlarged.
    """

    logits: Float[AnyArray, "B M h w"]


@struct.dataclass
class BoxMasks:
    """The masks of a batch's detections, each on a grid over its own box.

    Attributes:
      logits: [B, M, h, w]; above 0 is inside.
    """

    logits: Float[AnyArray, "B M h w"]


@struct.dataclass
class Categories:
    """What each image as a whole shows.

    Attributes:
      scores: [B, K] in [0, 1], of each class.
    """

    scores: Float[AnyArray, "B K"]


@struct.dataclass
class Poses:
    """The poses of a batch's detections.

    Attributes:
      keypoints: [B, M, J, 3] x and y in pixels of the canvas, and the score of being there, in [0, 1].
    """

    keypoints: Float[AnyArray, "B M J 3"]


@struct.dataclass
class SemanticMap:
    """What each pixel shows.

    Attributes:
      labels: [B, H, W] class of each pixel of the canvas.
    """

    labels: Int[AnyArray, "B H W"]


@struct.dataclass
class PanopticMap:
    """Which segment each pixel belongs to.

    Attributes:
      segments: [B, H, W] 0 for none, 1 + m for detection m, 1 + M + s for the stuff of semantic class s.
    """

    segments: Int[AnyArray, "B H W"]


def stride(level: str) -> int:
    """Stride in pixels of a level by its name: 8 for `"p3"`."""
    return 2 ** int(level[1:])


class UserError(Exception):
    """What the user can mend: shown as one line, exit status 2, no traceback. Names the value and the remedy."""


class Stopped(Exception):
    """A run that was told to stop has saved its state and left; the message says where it goes on."""
