"""Three sets in one run against a run for each: `python experiments/mixed/run.py PATH/TO/data`.

The folder holds `nuclei-dsb2018` and `mouse-keypoints`.
"""

import csv
import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from seeds import reproduce

from ylosia_jax.data.scenes import CLASSES
from ylosia_jax.data.scenes_grounds import STUFF

HERE = Path(__file__).parent
# What is compared: a set, the score, and the classes that it is the mean of.
SCORES = {
    "nuclei box/AP": ("box", ("nucleus",)),
    "nuclei mask/AP": ("mask", ("nucleus",)),
    "mouse box/AP": ("box", ("mouse",)),
    "mouse keypoint/AP": ("keypoint", ("mouse",)),
    "scenes box/AP": ("box", CLASSES),
    "scenes mask/AP": ("mask", CLASSES),
    "scenes keypoint/AP": ("keypoint", ("person",)),
    "scenes semantic/mIoU": ("semantic", CLASSES + STUFF),
    "scenes panoptic/PQ": ("panoptic", CLASSES + STUFF),
}


def by_set(workdir: Path, data: Path) -> Mapping[str, float]:
    """The scores of a run set by set, as far as it has them, and how often its step was compiled."""
    metrics = json.loads((workdir / "metrics.json").read_text())
    with (workdir / "metrics.csv").open() as file:
        found = {"compiles": float(list(csv.DictReader(file))[-1]["compiles"])}
    for name, (task, classes) in SCORES.items():
        each = [metrics.get(task, {}).get("per_class", {}).get(one) for one in classes]
        if all(value is not None for value in each):
            found[name] = statistics.fmean(each)
    return found


def split(folder: str, file: str) -> list[list[str]]:
    """The imports of both splits."""
    return [["coco", f"{{source}}/{folder}/{file}_{name}.json", "--split", name] for name in ("train", "val")]


if __name__ == "__main__":
    reproduce(
        HERE,
        variants={
            "mixed": ["configs/ylosia_n_mixed.py"],
            **{name: [str(HERE / f"{name}.py")] for name in ("nuclei", "scenes", "mouse")},
        },
        scores=[],
        imports={
            "nuclei": split("nuclei-dsb2018", "instances"),
            "mouse": split("mouse-keypoints", "keypoints"),
        },
        measure=by_set,
    )
