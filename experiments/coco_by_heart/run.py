"""Ylosia n learns a dozen COCO images by heart: `python experiments/coco_by_heart/run.py PATH/TO/data`.

The folder holds `coco-instances`, `coco-person-keypoints` and `coco-panoptic`, each with `annotations/` and `images/`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from seeds import reproduce


def split(kind: str, folder: str, file: str) -> list[list[str]]:
    """The import of a training split."""
    base = f"{{source}}/{folder}"
    return [[kind, f"{base}/annotations/{file}_train.json", "--images", f"{base}/images", "--split", "train"]]


if __name__ == "__main__":
    reproduce(
        Path(__file__).parent,
        variants={name: [f"configs/ylosia_n_coco_{name}.py"] for name in ("instances", "people", "panoptic")},
        scores=[
            *("box/AP50", "mask/AP50", "mask/AP", "keypoint/AP50", "keypoint/AP"),
            *("semantic/mIoU", "panoptic/PQ", "panoptic/SQ", "panoptic/RQ"),
        ],
        imports={
            "coco_instances": split("coco", "coco-instances", "instances"),
            "coco_people": split("coco", "coco-person-keypoints", "person_keypoints"),
            "coco_panoptic": split("panoptic", "coco-panoptic", "panoptic"),
        },
    )
