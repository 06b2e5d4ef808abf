"""FCN, DeepLabv3 and DeepLabv3+ on white blood cells: `run.py PATH/TO/wbc-segmentation`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from seeds import reproduce

if __name__ == "__main__":
    classes = ["background", "cytoplasm", "nucleus"]
    reproduce(
        Path(__file__).parent,
        variants={name: [f"configs/{name}_resnet18_wbc.py"] for name in ("fcn", "deeplabv3", "deeplabv3_plus")},
        scores=["semantic/mIoU", "semantic/dice", "semantic/accuracy", *(f"semantic/per_class/{x}" for x in classes)],
        imports={"wbc": [["masks", "{source}", "--classes", *classes]]},
    )
