"""Ylosia n on white blood cells, semantic maps: `python experiments/wbc/run.py PATH/TO/wbc-segmentation`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from seeds import reproduce

if __name__ == "__main__":
    classes = ["background", "cytoplasm", "nucleus"]
    reproduce(
        Path(__file__).parent,
        variants={"n": ["configs/ylosia_n_wbc.py"]},
        scores=["semantic/mIoU", "semantic/dice", "semantic/accuracy", *(f"semantic/per_class/{x}" for x in classes)],
        imports={"wbc": [["masks", "{source}", "--classes", *classes]]},
    )
