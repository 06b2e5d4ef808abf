"""Ylosia n on nuclei-dsb2018, instance masks: `python experiments/nuclei/run.py PATH/TO/nuclei-dsb2018`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from seeds import reproduce

if __name__ == "__main__":
    reproduce(
        Path(__file__).parent,
        variants={"n": ["configs/ylosia_n_nuclei.py"]},
        scores=["mask/AP", "mask/AP50", "mask/AP75", "box/AP", "box/AP50"],
        imports={
            "nuclei": [["coco", f"{{source}}/instances_{split}.json", "--split", split] for split in ("train", "val")]
        },
    )
