"""Ylosia n on one mouse seen from above, poses: `python experiments/mouse/run.py PATH/TO/mouse-keypoints`."""

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from seeds import reproduce

import ylosia_jax as yl
from ylosia_jax.data import store


def errors(workdir: Path, data: Path) -> Mapping[str, float]:
    """Distances in pixels of 640x480 between the best detection's points and the labelled ones, on val."""
    model, split = yl.load(workdir, "last"), store.open("mouse", "val", root=data)
    found: list[float] = []
    for i in range(len(split)):
        example = split[i]
        result = model(example.image)
        truth = example.keypoints[0]
        # A picture without a detection counts as an error of its diagonal.
        points = result.keypoints[0, :, :2] if len(result.keypoints) else np.full((len(truth), 2), np.inf)
        distance = np.minimum(np.linalg.norm(points - truth[:, :2], axis=-1), np.hypot(*example.image.shape[:2]))
        found += distance[truth[:, 2] > 0].tolist()
    return {"median_px": float(np.median(found)), "mean_px": float(np.mean(found))}


if __name__ == "__main__":
    reproduce(
        Path(__file__).parent,
        variants={"n": ["configs/ylosia_n_mouse.py"]},
        scores=["keypoint/AP", "keypoint/AP50", "box/AP"],
        imports={
            "mouse": [["coco", f"{{source}}/keypoints_{split}.json", "--split", split] for split in ("train", "val")]
        },
        measure=errors,
    )
