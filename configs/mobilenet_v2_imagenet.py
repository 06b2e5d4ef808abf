"""MobileNetV2 on ImageNet (arXiv:1801.04381): SGD with a cosine schedule, batch 256, 150 epochs.

Not trained yet: torchvision's weights have top1 of 0.719 on val, of the middle 224 px of pictures whose shorter side
has 256. Here whole pictures are fitted into 224 px, of which another number is to be expected. The set's 1,000 folders
are to be renamed to their places in the alphabet, 0000 to 0999, under train/ and val/.

    ylosia data import folders PATH/TO/imagenet --name imagenet
    ylosia weights import mobilenet_v2.pth --config configs/mobilenet_v2_imagenet.py --workdir runs/mobilenet_published
    ylosia train configs/mobilenet_v2_imagenet.py --workdir runs/mobilenet_v2_imagenet
"""

from ylosia_jax.data.augment import Augment
from ylosia_jax.data.datasets import Imported
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.systems.classifiers import mobilenet_v2
from ylosia_jax.train.loop import Train
from ylosia_jax.train.optim import Optim

CLASSES = tuple(f"{i:04d}" for i in range(1000))


def get_config() -> Experiment:
    network, tasks = mobilenet_v2(num_classes=len(CLASSES))
    return Experiment(
        network=network,
        tasks=tasks,
        data=Data(
            train=Imported("imagenet", split="train"),
            valid=Imported("imagenet", split="val"),
            classes=CLASSES,
            image_size=224,
            batch_size=256,
            max_objects=1,
            threads=16,
        ),
        # Any part of the picture that is at least a ninth of it.
        augment=Augment(flip=0.5, scale=(1.0, 3.0), jitter=True, saturation=0.4, brightness=0.4, contrast=0.4),
        optim=Optim(optimizer="plain_sgd", lr=0.05, weight_decay=4e-5, warmup_steps=5000, clip=0.0),
        train=Train(epochs=150, precision="bfloat16", evaluate_every=10, best_metric="classification/top1"),
    )
