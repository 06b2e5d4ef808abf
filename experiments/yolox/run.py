"""The published weights of YOLOX-nano here and in onnxruntime.

`python experiments/yolox/run.py PATH/TO/data PATH/TO/yolox_nano.onnx`; the first holds `coco-instances` and
`coco-person-keypoints`, each with `annotations/` and `images/`. Ours are imported by `ylosia weights import` and scored
as `ylosia evaluate` does. The runtime's column has nothing of this package: OpenCV, NumPy and pycocotools; it is left
empty where onnxruntime is not installed.
"""

import argparse
import csv
import importlib
import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from seeds import ROOT, imported, ylosia

from ylosia_jax import runs

HERE = Path(__file__).parent
CONFIG = "configs/yolox_nano_coco.py"
SIDE, LOWEST, OVERLAP = 416, 0.01, 0.65
# Set -> its folder, its annotations, and how it is called here.
SETS = {
    "coco-instances": ("instances_val.json", "coco_instances"),
    "coco-person-keypoints": ("person_keypoints_val.json", "coco_people"),
}
SCORES = ("AP", "AP50")


def ours(workdir: Path, name: str) -> dict[str, float]:
    """The scores of an imported set's split."""
    found = runs.evaluate_run(workdir, checkpoint="last", name=name, split="val")
    return {score: found["box"][score] for score in SCORES}


def theirs(weights: Path, annotations: Path, images: Path, categories: list[int]) -> dict[str, float]:
    """The same of the file in its own runtime.

    Args:
      categories: COCO's number of each of the network's classes.
    """
    runtime = importlib.import_module("onnxruntime")
    coco = importlib.import_module("pycocotools.coco").COCO(str(annotations))
    evaluation = importlib.import_module("pycocotools.cocoeval").COCOeval
    session = runtime.InferenceSession(str(weights), providers=["CPUExecutionProvider"])
    rows: list[dict[str, Any]] = []
    for number, entry in coco.imgs.items():
        image = cv2.imread(str(images / entry["file_name"]))
        ratio = min(SIDE / image.shape[0], SIDE / image.shape[1])
        height, width = int(image.shape[0] * ratio), int(image.shape[1] * ratio)
        page = np.full((SIDE, SIDE, 3), 114, np.uint8)
        page[:height, :width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        answer = session.run(None, {"images": page.transpose(2, 0, 1)[None].astype(np.float32)})[0][0]
        boxes, scores = decode(answer)
        boxes = np.clip(boxes / ratio, 0, [*image.shape[1::-1]] * 2)
        for label, category in enumerate(categories):
            good = scores[:, label] > LOWEST
            for row in suppress(boxes[good], scores[good, label]):
                x, y, right, bottom = boxes[good][row].tolist()
                box = [x, y, right - x, bottom - y]
                score = float(scores[good, label][row])
                rows.append({"image_id": number, "category_id": category, "bbox": box, "score": score})
    result = evaluation(coco, coco.loadRes(rows), "bbox")
    result.evaluate()
    result.accumulate()
    result.summarize()
    return dict(zip(SCORES, result.stats[:2].tolist(), strict=True))


def decode(answer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [A, 4] on the canvas and scores [A, K] of the file's output [A, 5 + K]."""
    cells: list[np.ndarray] = []
    for stride in (8, 16, 32):
        y, x = np.divmod(np.arange((SIDE // stride) ** 2), SIDE // stride)
        cells.append(np.stack([x, y, np.full(len(x), stride)], axis=1))
    cell = np.concatenate(cells)
    centre, side = (answer[:, :2] + cell[:, :2]) * cell[:, 2:], np.exp(answer[:, 2:4]) * cell[:, 2:]
    return np.concatenate([centre - side / 2, centre + side / 2], axis=1), answer[:, 4:5] * answer[:, 5:]


def suppress(boxes: np.ndarray, scores: np.ndarray) -> list[int]:
    """Greedy suppression: the rows that stay."""
    order, kept = np.argsort(-scores, kind="stable"), list[int]()
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    while len(order):
        first, rest = order[0], order[1:]
        kept.append(int(first))
        low, high = np.maximum(boxes[first, :2], boxes[rest, :2]), np.minimum(boxes[first, 2:], boxes[rest, 2:])
        shared = np.maximum(high - low, 0).prod(axis=1)
        order = rest[shared / (area[first] + area[rest] - shared) <= OVERLAP]
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the folder of the data sets")
    parser.add_argument("weights", type=Path, help="yolox_nano.onnx")
    parser.add_argument("--root", type=Path, default=ROOT, help="where data/ and runs/ are made")
    options = parser.parse_args()
    source, root = options.source.resolve(), options.root.resolve()
    data, workdir = root / "data", root / "runs" / "yolox_nano"
    os.environ["YLOSIA_DATA_DIR"] = str(data)
    shutil.rmtree(workdir, ignore_errors=True)
    ylosia("weights", "import", str(options.weights.resolve()), "--config", CONFIG, "--workdir", str(workdir))
    coco = importlib.import_module("pycocotools.coco").COCO
    categories = sorted(coco(str(source / "coco-instances" / "annotations" / "instances_val.json")).cats)
    rows: list[dict[str, str]] = []
    for folder, (file, name) in SETS.items():
        annotations, images = source / folder / "annotations" / file, source / folder / "images"
        command = ["coco", str(annotations), "--images", str(images), "--split", "val"]
        if not imported(data / name, command):
            ylosia("data", "import", *command, "--name", name, "--out", str(data))
        found = ours(workdir, name)
        runs_there = importlib.util.find_spec("onnxruntime") is not None
        wanted = theirs(options.weights, annotations, images, categories) if runs_there else {}
        row = {"set": f"{folder} val"}
        for score in SCORES:
            row |= {score: f"{found[score]:.4f}", f"{score} onnxruntime": f"{wanted[score]:.4f}" if wanted else ""}
        rows.append(row)
        print(row, flush=True)
    with (HERE / "results.csv").open("w", newline="") as table:
        writer = csv.DictWriter(table, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
