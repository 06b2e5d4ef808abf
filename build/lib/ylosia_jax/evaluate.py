"""Predicting whole splits and scoring them."""

import dataclasses
import json
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from ylosia_jax.answers import ImageAnswer, true_segments, unpad
from ylosia_jax.data.pipeline import PLAIN, Letterbox, Style, eval_batches
from ylosia_jax.data.regions import SelectiveSearch
from ylosia_jax.metrics.classification import Ranked, classification_metrics, rank
from ylosia_jax.metrics.instances import (
    ImageDetections,
    ImageTruth,
    box_metrics,
    image_truth,
    keypoint_metrics,
    mask_metrics,
)
from ylosia_jax.metrics.panoptic import ImageSegments, panoptic_metrics, segments_of
from ylosia_jax.metrics.semantic import confusion, semantic_metrics
from ylosia_jax.ops.image import to_float
from ylosia_jax.train.questions import cast_floats, decode_tasks, selection
from ylosia_jax.train.sharding import batch_sharding, local_rows, place_batch
from ylosia_jax.types import Batch, Example, Source


class Predict(Protocol):
    """What `make_predict` makes."""

    def __call__(self, variables: Any, image: Any, known: Any = None, regions: Any = None, /) -> dict[str, Any]:
        """The answer of each task to letterboxed uint8 images.

        Args:
          regions: a `Rois` for a network that does not propose its own.
          known: [B, K] the classes that are asked for; None for all. Things of others are not found, so that they take
            no place in a panoptic map.
        """
        ...


# Is shown each image's place in its split, the image with its truth, and the answer.
Watch = Callable[[int, Example, ImageAnswer], None]


def make_predict(
    network: nn.Module, tasks: Mapping[str, Any], precision: Literal["float32", "bfloat16"] = "float32"
) -> Predict:
    """The function from images to answers, not compiled yet.

    Tasks that are no `Decoder` have no part in it.
    """
    dtype = jnp.dtype(precision)

    def predict(variables: Any, image: Any, known: Any = None, regions: Any = None, /) -> dict[str, Any]:
        stored = {"params": cast_floats(variables["params"], dtype)}
        stored |= {name: value for name, value in variables.items() if name != "params"}
        answers: dict[str, Any] = {}
        select = selection(tasks, answers, None, known, regions)
        outputs = network.apply(stored, to_float(image).astype(dtype), train=False, **select)
        decode_tasks(tasks, cast_floats(outputs, jnp.dtype("float32")), answers, known=known)
        return answers

    return predict


def compile_predict(
    network: nn.Module,
    tasks: Mapping[str, Any],
    mesh: Mesh,
    precision: Literal["float32", "bfloat16"] = "float32",
) -> Predict:
    """`make_predict`, jitted over a mesh: images and answers are split over its devices by their batch axis."""
    sharding = batch_sharding(mesh)
    places = (None, sharding, sharding, sharding)
    compiled = jax.jit(make_predict(network, tasks, precision), in_shardings=places, out_shardings=sharding)

    def predict(variables: Any, image: Any, known: Any = None, regions: Any = None, /) -> dict[str, Any]:
        return compiled(variables, image, known, regions)

    return predict


def letterbox_of(batch: Batch, row: int, style: Style = PLAIN) -> Letterbox:
    """The letterbox that brought a batch's image onto its canvas."""

    def whole(pair: Any) -> tuple[int, int]:
        return int(pair[0]), int(pair[1])

    return Letterbox(size=whole(batch.size[row]), extent=whole(batch.extent[row]), style=style)


@dataclasses.dataclass(frozen=True)
class Record:
    """What scoring needs of one image: no pixels.

    Attributes:
      name: of the image.
      truth: of things.
      found: of things; None where no task finds any.
      confusion: [S, S + 1] pixels by true class and class found, see `semantic.confusion`; None where one of them is
        not known.
      segments: panoptic truth, and what was found; None likewise.
      ranked: the category and its place among the answers; None likewise.
    """

    name: str
    truth: ImageTruth
    found: ImageDetections | None = None
    confusion: np.ndarray | None = None
    segments: tuple[ImageSegments, ImageSegments] | None = None
    ranked: Ranked | None = None


def record_of(example: Example, answer: ImageAnswer, things: int, classes: int) -> Record:
    """One image's truth and answers.

    Args:
      things: how many classes are things.
      classes: all semantic classes.
    """
    counts = segments = ranked = None
    known = np.ones(things, bool) if example.known is None else example.known
    drawn = np.ones(classes, bool) if example.drawn is None else example.drawn
    if answer.semantic is not None and example.semantic is not None:
        counts = confusion(example.semantic, answer.semantic, drawn)
    if answer.segments is not None and (truth := true_segments(example, things)) is not None:
        told = np.append(known, drawn[things:])
        labels = {number: label for number, label in answer.segment_labels.items() if told[label]}
        segments = truth, segments_of(example.name, answer.segments, labels)
    if answer.categories is not None and example.category is not None:
        ranked = rank(answer.categories, example.category)
    return Record(example.name, image_truth(example), _known(answer.detections, known), counts, segments, ranked)


def _known(found: ImageDetections | None, known: np.ndarray) -> ImageDetections | None:
    """The detections of classes that the image has labels for: of others nobody can say whether they are right."""
    if found is None or known.all():
        return found
    keep = known[found.labels]
    return ImageDetections(
        boxes=found.boxes[keep],
        scores=found.scores[keep],
        labels=found.labels[keep],
        masks=None if found.masks is None else tuple(m for m, k in zip(found.masks, keep, strict=True) if k),
        keypoints=None if found.keypoints is None else found.keypoints[keep],
    )


def evaluate(
    predict: Predict,
    variables: Any,
    source: Source,
    mesh: Mesh,
    *,
    canvases: Sequence[tuple[int, int]],
    batch_size: int,
    style: Style = PLAIN,
    watch: Watch | None = None,
    regions: SelectiveSearch | None = None,
) -> dict[str, Any]:
    """Scores a split: what `metrics.json` holds. On several hosts each predicts its share and all get the result.

    Scored is what the network answers and the split has the truth of.

    Args:
      predict: from `compile_predict`, over the same mesh.
      canvases: (height, width) of each; an image is shown on the one that it is largest on.
      batch_size: of the global batch, over all hosts.
      style: how pictures are drawn on the canvas, as in training.
      watch: is shown what this host finds, image by image.
      regions: how regions are found for a network that does not propose its own.
    """
    hosts: dict[str, Any] = {"process": jax.process_index(), "processes": jax.process_count()}
    things, classes = len(source.classes), len(source.classes) + len(source.stuff)
    records: list[tuple[int, Record]] = []
    shown: dict[str, Any] = {"canvases": canvases, "batch_size": batch_size, "style": style, "regions": regions}
    for batch, examples in eval_batches(source, **shown, **hosts):
        # Of a class that an image has no labels for nobody can say whether it is there: it is not asked for.
        known = np.ones((len(batch.image), things), bool)
        for row, example in enumerate(examples):
            known[row] = True if example.known is None else example.known
        found = predict(variables, *place_batch(mesh, (batch.image, known, batch.regions)))
        local, canvas = jax.tree.map(local_rows, found), (batch.image.shape[1], batch.image.shape[2])
        for row, example in enumerate(examples):
            answer = unpad(local, row, letterbox_of(batch, row, style), canvas)
            if watch is not None:
                watch(int(batch.index[row]), example, answer)
            records.append((int(batch.index[row]), record_of(example, answer, things, classes)))
    # In the order of the split, whichever canvas they were on: of equal scores the first counts first.
    return metrics(_gather([record for _, record in sorted(records, key=operator.itemgetter(0))]), source)


def metrics(found: Sequence[Record], source: Source) -> dict[str, Any]:
    """The entries of `metrics.json` that a split's records have the numbers for."""
    classes, labels = source.classes, source.labels
    names = (*classes, *source.stuff)
    truths, detections = [r.truth for r in found], [r.found for r in found if r.found is not None]
    result: dict[str, Any] = {}
    if detections and "box" in labels:
        result["box"] = box_metrics(truths, detections, classes)
        if "mask" in labels and detections[0].masks is not None:
            result["mask"] = mask_metrics(truths, detections, classes)
        if "keypoint" in labels and detections[0].keypoints is not None and source.skeleton is not None:
            result["keypoint"] = keypoint_metrics(truths, detections, classes, source.skeleton.sigmas)
    if counts := [r.confusion for r in found if r.confusion is not None]:
        result["semantic"] = semantic_metrics(np.sum(counts, axis=0), names)
    if segments := [r.segments for r in found if r.segments is not None]:
        result["panoptic"] = panoptic_metrics([t for t, _ in segments], [f for _, f in segments], names, len(classes))
    if ranked := [r.ranked for r in found if r.ranked is not None]:
        result["classification"] = classification_metrics(ranked, classes)
    return result


def flat_scores(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The headline numbers by name (`box/AP`); a number that the split cannot define counts as 0."""
    return {
        f"{task}/{name}": 0.0 if value is None else value
        for task, entry in metrics.items()
        for name, value in entry.items()
        if value is None or isinstance(value, float)
    }


def _gather(mine: Sequence[Record]) -> list[Record]:
    """All hosts' records, sorted by name so that every host scores the same list."""
    if jax.process_count() == 1:
        return list(mine)
    # As JSON text: it carries ragged records and every float exactly, and nobody's bytes are executed.
    text = json.dumps([_pack(record) for record in mine]).encode()
    sizes = multihost_utils.process_allgather(np.array(len(text)))
    padded = np.frombuffer(text.ljust(int(sizes.max())), np.uint8)
    texts = multihost_utils.process_allgather(padded)
    gathered = [_unpack(record) for row in np.asarray(texts) for record in json.loads(row.tobytes())]
    return sorted(gathered, key=lambda record: record.name)


_PACKED: dict[str, Any] = {kind.__name__: kind for kind in (Record, ImageTruth, ImageDetections, ImageSegments, Ranked)}


def _pack(value: Any) -> Any:
    """A record as what JSON holds: what is not a number or text becomes [kind, content]."""
    if isinstance(value, np.ndarray):
        return ["array", [str(value.dtype), value.shape, value.ravel().tolist()]]
    if isinstance(value, bytes):
        return ["bytes", value.decode("ascii")]
    if isinstance(value, tuple):
        return ["tuple", [_pack(item) for item in value]]
    if dataclasses.is_dataclass(value):
        fields = {field.name: _pack(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return [type(value).__name__, fields]
    return value


def _unpack(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    kind, content = value
    if kind == "array":
        dtype, shape, numbers = content
        return np.array(numbers, dtype).reshape(shape)
    if kind == "bytes":
        return content.encode("ascii")
    if kind == "tuple":
        return tuple(map(_unpack, content))
    return _PACKED[kind](**{name: _unpack(item) for name, item in content.items()})
