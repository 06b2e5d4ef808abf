"""Every classifier on a part of MNIST: `python experiments/classifiers/run.py PATH/TO/mnist-subset`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from seeds import reproduce

NAMES = (
    "lenet5",
    "lenet5_original",
    "alexnet",
    "vgg16_bn",
    "googlenet",
    "resnet18",
    "densenet121",
    "mobilenet_v2",
    "resnet20",
)

if __name__ == "__main__":
    reproduce(
        Path(__file__).parent,
        variants={name: [f"configs/{name}_mnist.py"] for name in NAMES},
        scores=["classification/top1", "classification/top5"],
        imports={"mnist": [["idx", "{source}"]]},
    )
