"""R-CNN: regions named by support vector machines on a network's features, their boxes by ridge regression.

Shape shorthand: B images, R regions an image (padded), K classes, D features, P pooled features, n rows.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ylosia_jax.ops import boxes as box_ops
from ylosia_jax.ops import deltas, nms
from ylosia_jax.tasks.machines import Machines, ridge
from ylosia_jax.tasks.roi_boxes import RoiBoxes, RoiTargets
from ylosia_jax.types import Batch, CropOutputs, Detections, Label, Rois


@dataclasses.dataclass(frozen=True)
class RCNN:
    """Rich feature hierarchies (arXiv:1311.2524, sections 2.3, B and C; constants that the paper leaves out are those
    of its authors' code).

    The network learns from regions that overlap an object by half. The machines are stricter: an object's own box is
    the only positive, a region that overlaps no object of the class by more than `svm_negative` a negative, and what
    lies between is left out.

    Attributes:
      regions: which regions the network learns from, and how.
      svm_c: weight of the machines' errors.
      svm_negative: see above.
      feature_norm: the mean length that features are scaled to.
      ridge: weight of the regression's coefficients' squares.
      pair: a region teaches the regression where it overlaps an object by more than this.
      iou_threshold: of the class-wise suppression.
      pre_nms: candidates that enter it.
      max_detections: M.
      head: whose outputs these are, and the task's name.
    """

    regions: RoiBoxes
    svm_c: float = 1e-3
    svm_negative: float = 0.3
    feature_norm: float = 20.0
    ridge: float = 1000.0
    pair: float = 0.6
    iou_threshold: float = 0.3
    pre_nms: int = 4096
    max_detections: int = 100
    head: str = "box"

    @property
    def num_classes(self) -> int:
        """K."""
        return self.regions.num_classes

    @property
    def needs(self) -> frozenset[Label]:
        """The labels without which this cannot be learned."""
        return self.regions.needs

    def select(self, outputs: Mapping[str, Any], answers: Mapping[str, Any], batch: Batch | None) -> Rois:
        """As `RoiBoxes.select`."""
        return self.regions.select(outputs, answers, batch)

    def encode(self, outputs: Mapping[str, Any], batch: Batch, targets: Mapping[str, Any]) -> RoiTargets:
        """As `RoiBoxes.encode`."""
        return self.regions.encode(outputs, batch, targets)

    def loss(
        self, outputs: Mapping[str, Any], targets: Mapping[str, Any], batch: Batch
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The cross entropy of the regions' classes; boxes are not learned by gradients."""
        _, parts = self.regions.loss(outputs, targets, batch)
        return parts["class"], {}

    def decode(self, outputs: Mapping[str, Any], answers: Mapping[str, Any]) -> Detections:
        """The detections of each image, best first, after class-wise suppression.

        Scores are the machines' margins through a sigmoid, which keeps their order; before they are fitted those of
        the softmax.
        """
        found: CropOutputs = outputs[self.head]
        rois = found.rois
        boxes = deltas.decode_deltas(found.deltas[:, :, 1:], rois.boxes[:, :, None])
        boxes = box_ops.clip(boxes, *rois.canvas)
        softmax = jax.nn.softmax(found.logits)[..., 1:]
        scores = jnp.where(found.fitted > 0.5, jax.nn.sigmoid(found.margins), softmax)
        boxes, scores, labels, valid, index = nms.select_detections(
            boxes,
            scores * rois.valid[..., None],
            score_threshold=1e-6,
            iou_threshold=self.iou_threshold,
            pre_nms=self.pre_nms,
            max_detections=self.max_detections,
        )
        return Detections(boxes=boxes, scores=scores, labels=labels, valid=valid, index=index)

    def fit(
        self, look: Callable[[Batch], Mapping[str, Any]], batches: Callable[[], Iterable[Batch]]
    ) -> dict[str, np.ndarray]:
        """Fits the machines and the regression to the features of a trained network.

        Two passes over the data: the first collects positives, the regression's pairs and a few negatives of every
        image; the second mines those negatives that the machines so far take for objects.

        Args:
          look: the network's outputs for a batch, whose regions are those of the image, then its objects' own boxes.
          batches: one pass over the training images; images that fill a batch have no valid region.

        Returns:
          The collection `fitted` of the head.
        """
        machines = Machines(self.num_classes, c=self.svm_c, norm=self.feature_norm)
        pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for mines in (False, True):
            for batch in batches():
                found: CropOutputs = look(batch)[self.head]
                for row in range(len(batch.index)):
                    image = _Image.of(batch, found, row)
                    if mines:
                        machines.mine(image.features, image.negative(self.svm_negative, self.num_classes))
                    else:
                        machines.add(image.features, image.truth, image.negative(self.svm_negative, self.num_classes))
                        pairs.append(image.pairs(self.pair))
            machines.refit()
        kernel, bias = machines.weights()
        pooled, wanted, labels = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        slope, shift = ridge(pooled, wanted, labels, self.num_classes, weight=self.ridge, norm=self.feature_norm)
        return {
            "svm_kernel": kernel,
            "svm_bias": bias,
            "ridge_kernel": slope,
            "ridge_bias": shift,
            "done": np.ones((), np.float32),
        }


@dataclasses.dataclass(frozen=True)
class _Image:
    """The valid regions of one image, the last of which are its objects' own boxes.

    Attributes:
      features: [n, D].
      pooled: [n, P].
      truth: [n] the class of the object whose own box a region is; -1 for the others.
      overlap: [n, objects] IoU with every object.
      labels: [objects] their classes.
      coded: [n, 4] the box of the object that it overlaps most, coded.
    """

    features: np.ndarray
    pooled: np.ndarray
    truth: np.ndarray
    overlap: np.ndarray
    labels: np.ndarray
    coded: np.ndarray

    @classmethod
    def of(cls, batch: Batch, found: CropOutputs, row: int) -> "_Image":
        """Without padding, without groups and the regions whose centres they cover."""
        objects = jax.tree.map(lambda x: np.asarray(x[row]), batch.objects)
        boxes, truths = jnp.asarray(found.rois.boxes[row]), jnp.asarray(objects.boxes)
        single = objects.valid & ~objects.crowd
        groups = objects.valid & objects.crowd
        # All on padded rows, so that the shapes are the same for every image.
        grouped = np.asarray(box_ops.contains(truths, (boxes[:, :2] + boxes[:, 2:]) / 2))[groups].any(axis=0)
        valid = np.asarray(found.rois.valid[row]) & ~grouped
        overlap = np.asarray(box_ops.pairwise_iou(boxes, truths)) * single
        coded = np.asarray(deltas.encode_deltas(truths[overlap.argmax(axis=1)], boxes))
        truth = np.full(len(boxes), -1)
        truth[-len(single) :] = np.where(single, objects.labels, -1)
        return cls(
            features=np.asarray(found.features[row])[valid],
            pooled=np.asarray(found.pooled[row])[valid],
            truth=truth[valid],
            overlap=overlap[valid][:, single],
            labels=objects.labels[single],
            coded=coded[valid],
        )

    def negative(self, most: float, classes: int) -> np.ndarray:
        """[n, K] whether a region overlaps no object of a class by more than `most`."""
        close = [(self.overlap * (self.labels == k) > most).any(axis=1) for k in range(classes)]
        return ~np.stack(close, axis=1)

    def pairs(self, least: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pooled features, coded boxes and classes of the regions that overlap an object by more than `least`."""
        if not len(self.labels):
            return self.pooled[:0], self.coded[:0], self.labels
        near = (self.overlap.max(axis=1) > least) & (self.truth < 0)
        return self.pooled[near], self.coded[near], self.labels[self.overlap.argmax(axis=1)[near]]
