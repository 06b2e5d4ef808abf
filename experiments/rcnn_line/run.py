"""R-CNN, Fast R-CNN and Faster R-CNN on BCCD: `python experiments/rcnn_line/run.py PATH/TO/bccd`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from seeds import reproduce

if __name__ == "__main__":
    reproduce(
        Path(__file__).parent,
        variants={
            "rcnn": ["configs/rcnn_resnet18_bccd.py"],
            "fast_rcnn": ["configs/fast_rcnn_resnet18_bccd.py"],
            "faster_rcnn": ["configs/faster_rcnn_resnet18_fpn_bccd.py"],
        },
        scores=["box/AP50", "box/AP", "box/AP75"],
        imports={"bccd": [["voc", "{source}"]]},
    )
