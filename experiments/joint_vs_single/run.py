"""One network for all tasks against its twins for one, on the scenes: `python experiments/joint_vs_single/run.py`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from seeds import reproduce

HERE = Path(__file__).parent
# More than three times as many steps as the demo's, which are too few to tell what a network can from how fast it
# learns; scored on four times as many scenes: a point of difference is then more than chance.
MORE = ("--data.train.size", "4096", "--train.epochs", "6", "--train.evaluate_every", "6", "--data.valid.size", "512")

if __name__ == "__main__":
    reproduce(
        HERE,
        variants={
            name: [str(HERE / f"{name}.py"), *MORE]
            for name in ("joint", "box", "mask", "keypoint", "semantic", "panoptic")
        },
        scores=[
            *("box/AP", "box/AP50", "mask/AP", "mask/AP50", "keypoint/AP", "keypoint/AP50"),
            *("semantic/mIoU", "panoptic/PQ"),
        ],
    )
