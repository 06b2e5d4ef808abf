"""Predicting whole splits and scoring them."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from ylosia_jax.data.pipeline import Letterbox, eval_batches
from ylosia_jax.metrics.boxes import ImageDetections, ImageTruth, box_metrics, image_truth
from ylosia_jax.ops.image import to_float
from ylosia_jax.train.sharding import batch_sharding, local_rows, place_batch
from ylosia_jax.train.step import cast_floats
from ylosia_jax.types import Batch, Detections, Source

Predict = Callable[[Any, Any], dict[str, Any]]


class Decoder(Protocol):
    """What prediction asks of a task."""

    def decode(self, outputs: Any, /) -> Any:
        """The answer on the canvas, in arrays with a batch axis."""
        ...


def make_predict(
    network: nn.Module, tasks: Mapping[str, Decoder], precision: Literal["float32", "bfloat16"] = "float32"
) -> Predict:
    """The function `(variables, image) -> {head: answer}` for letterboxed uint8 images, not compiled yet."""
    dtype = jnp.dtype(precision)

    def predict(variables: Any, image: Any) -> dict[str, Any]:
        stored = {"params": cast_floats(variables["params"], dtype)}
        stored |= {name: value for name, value in variables.items() if name != "params"}
        outputs = cast_floats(network.apply(stored, to_float(image).astype(dtype), train=False), jnp.dtype("float32"))
        return {name: task.decode(outputs[name]) for name, task in tasks.items()}

    return predict


def compile_predict(
    network: nn.Module,
    tasks: Mapping[str, Decoder],
    mesh: Mesh,
    precision: Literal["float32", "bfloat16"] = "float32",
) -> Predict:
    """`make_predict`, jitted over a mesh: images and answers are split over its devices by their batch axis."""
    sharding = batch_sharding(mesh)
    return jax.jit(make_predict(network, tasks, precision), in_shardings=(None, sharding), out_shardings=sharding)


def unpad(detections: Detections, row: int, letterbox: Letterbox) -> ImageDetections:
    """One image's detections without padding, in pixels of the image before the letterbox."""
    valid = np.asarray(detections.valid[row])
    return ImageDetections(
        boxes=letterbox.decode(np.asarray(detections.boxes[row])[valid]),
        scores=np.asarray(detections.scores[row])[valid],
        labels=np.asarray(detections.labels[row])[valid],
    )


def letterbox_of(batch: Batch, row: int) -> Letterbox:
    """The letterbox that brought a batch's image onto its canvas."""

    def whole(pair: Any) -> tuple[int, int]:
        return int(pair[0]), int(pair[1])

    return Letterbox(size=whole(batch.size[row]), extent=whole(batch.extent[row]))


def detect(
    predict: Predict, variables: Any, source: Source, mesh: Mesh, *, canvas: tuple[int, int], batch_size: int
) -> Iterator[tuple[ImageTruth, ImageDetections]]:
    """Truth and detections of this host's share of a split, image by image.

    Args:
      predict: from `compile_predict`, over the same mesh.
      batch_size: of the global batch, over all hosts.
    """
    hosts = {"process": jax.process_index(), "processes": jax.process_count()}
    for batch, examples in eval_batches(source, canvas=canvas, batch_size=batch_size, **hosts):
        found = predict(variables, place_batch(mesh, batch.image))["box"]
        local = jax.tree.map(local_rows, found)
        for row, example in enumerate(examples):
            yield image_truth(example), unpad(local, row, letterbox_of(batch, row))


def evaluate(
    predict: Predict,
    variables: Any,
    source: Source,
    mesh: Mesh,
    *,
    canvas: tuple[int, int],
    batch_size: int,
) -> dict[str, Any]:
    """Scores a split: what `metrics.json` holds. On several hosts each predicts its share and all get the result."""
    pairs = list(detect(predict, variables, source, mesh, canvas=canvas, batch_size=batch_size))
    pairs = _gather(pairs)
    return {"box": box_metrics([t for t, _ in pairs], [d for _, d in pairs], source.classes)}


def flat_scores(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The headline numbers by name (`box/AP`); a number that the split cannot define counts as 0."""
    return {
        f"{task}/{name}": 0.0 if value is None else value
        for task, entry in metrics.items()
        for name, value in entry.items()
        if value is None or isinstance(value, float)
    }


def _gather(pairs: Sequence[tuple[ImageTruth, ImageDetections]]) -> list[tuple[ImageTruth, ImageDetections]]:
    """All hosts' records, sorted by name so that every host scores the same list."""
    if jax.process_count() == 1:
        return list(pairs)
    # As JSON text: it carries ragged records and every float exactly, and nobody's bytes are executed.
    text = json.dumps([[_to_lists(t), _to_lists(d)] for t, d in pairs]).encode()
    sizes = multihost_utils.process_allgather(np.array(len(text)))
    padded = np.frombuffer(text.ljust(int(sizes.max())), np.uint8)
    texts = multihost_utils.process_allgather(padded)
    records = [record for row in np.asarray(texts) for record in json.loads(row.tobytes())]
    gathered = [(_from_lists(ImageTruth, t), _from_lists(ImageDetections, d)) for t, d in records]
    return sorted(gathered, key=lambda pair: pair[0].name)


def _to_lists(record: Any) -> dict[str, Any]:
    values = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    return {
        name: [str(value.dtype), value.shape, value.ravel().tolist()] if isinstance(value, np.ndarray) else value
        for name, value in values.items()
    }


def _from_lists(kind: type, record: dict[str, Any]) -> Any:
    arrays = {
        name: np.array(value[2], value[0]).reshape(value[1]) if isinstance(value, list) else value
        for name, value in record.items()
    }
    return kind(**arrays)
