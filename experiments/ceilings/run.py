"""What outputs without error would score: `python experiments/ceilings/run.py PATH/TO/coco-panoptic`.

Nothing is trained. Boxes are the true ones; masks and semantic maps are what a network would say that has learned its
targets exactly. They go through decoding, back into the pixels of the images, and through the metrics.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from seeds import ROOT, imported, score, write_row, ylosia

from ylosia_jax import config
from ylosia_jax.answers import unpad
from ylosia_jax.data.pipeline import prepare, stack
from ylosia_jax.evaluate import Record, letterbox_of, metrics, record_of
from ylosia_jax.experiment import Experiment, open_source
from ylosia_jax.types import Batch, Detections, Masks, Source

HERE = Path(__file__).parent
VARIANTS = [("scenes", 128), ("coco_panoptic", 384), ("coco_panoptic", 448), ("coco_panoptic", 640)]
TARGETS = ("pixel", "shares")
SCORES = ("mask/AP50", "mask/AP", "semantic/mIoU", "panoptic/PQ")
STRIDE = 4
SUREST = 4.0  # logits of trained networks go no further; further ones move the edges when they are enlarged


def shares(numbers: np.ndarray, wanted: np.ndarray, targets: str) -> np.ndarray:
    """What a map [H, W] asks of each cell about each number, [M, h, w]: by its middle pixel or by all of them."""
    height, width = (side // STRIDE for side in numbers.shape)
    cells = numbers.reshape(height, STRIDE, width, STRIDE)
    if targets == "pixel":
        middle = slice(STRIDE // 2, STRIDE // 2 + 1)
        cells = cells[:, middle, :, middle]
    return np.stack([(cells == number).mean(axis=(1, 3)) for number in wanted])


def perfect(experiment: Experiment, batch: Batch, targets: str) -> dict[str, Any]:
    """The answers about a batch of one."""
    objects, tasks = batch.objects, experiment.tasks
    least = 1 / (1 + np.exp(SUREST))
    asked = shares(np.asarray(batch.instances)[0], 1 + np.arange(experiment.data.max_objects), targets)
    asked = np.clip(asked, least, 1 - least)
    classes = shares(np.asarray(batch.semantic)[0], np.arange(tasks["semantic"].classes), targets)
    # Crowds are nobody's to find.
    found = np.asarray(objects.valid & ~objects.crowd)
    order = np.argsort(~found[0], kind="stable")
    answers = {
        "box": Detections(
            boxes=objects.boxes[:, order],
            scores=found[:, order].astype(np.float32),
            labels=objects.labels[:, order],
            valid=found[:, order],
            index=np.zeros(found.shape, np.int32),
        ),
        "mask": Masks(logits=np.log(asked / (1 - asked))[None, order].astype(np.float32)),
    }
    outputs = {"semantic": np.log(np.maximum(classes, least)).transpose(1, 2, 0)[None].astype(np.float32)}
    for name in ("semantic", "panoptic"):
        answers[name] = tasks[name].decode(outputs, answers)
    return jax.device_get(answers)


def record(experiment: Experiment, source: Source, index: int, targets: str) -> Record:
    """The truth of an image, and the answers about it."""
    example, canvas = source[index], experiment.canvas
    style, most = experiment.data.style, experiment.data.max_objects
    batch = stack([prepare(example, index, 0, canvas, most, experiment.needs, style)])
    answer = unpad(perfect(experiment, batch, targets), 0, letterbox_of(batch, 0, style), canvas)
    return record_of(example, answer, len(experiment.data.classes), experiment.tasks["semantic"].classes)


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs experiments/ceilings and writes its results.csv.")
    parser.add_argument("source", type=Path, help="the folder coco-panoptic, with annotations/ and images/")
    parser.add_argument("--root", type=Path, default=ROOT, help="where data/ is made")
    options = parser.parse_args()
    data = options.root.resolve() / "data"
    os.environ["YLOSIA_DATA_DIR"] = str(data)
    base = options.source.resolve()
    command = ["panoptic", f"{base}/annotations/panoptic_train.json", "--images", f"{base}/images", "--split", "train"]
    if not imported(data / "coco_panoptic", command):
        ylosia("data", "import", *command, "--name", "coco_panoptic", "--out", str(data))
    order = [f"{name} {side} {targets}" for name, side in VARIANTS for targets in TARGETS]
    for name, side in VARIANTS:
        tree = config.load(ROOT / "configs" / f"ylosia_n_{name}.py")
        experiment = config.override(tree, ["--data.image_size", str(side)])
        source = open_source(experiment, experiment.data.valid)
        for targets in TARGETS:
            records = [record(experiment, source, i, targets) for i in range(len(source))]
            scores = metrics(records, source)
            row = {"variant": f"{name} {side} {targets}", "seed": "0", "images": str(len(source))}
            write_row(HERE / "results.csv", row | {path: score(scores, path) for path in SCORES}, order)


if __name__ == "__main__":
    main()
