"""ResNet-50 on ImageNet, from random weights, by the recipe of its paper (arXiv:1512.03385, section 3.4): 90 epochs.

Not trained yet: torchvision's weights of this recipe have top1 of 0.761 on val, of the middle 224 px of pictures whose
shorter side has 256. Here whole pictures are fitted into 224 px, of which another number is to be expected. The set's
1,000 folders are to be renamed to their places in the alphabet, 0000 to 0999, under train/ and val/.

    ylosia data import folders PATH/TO/imagenet --name imagenet
    ylosia train configs/resnet50_imagenet.py --workdir runs/resnet50_imagenet
"""

from ylosia_jax.data.augment import Augment
from ylosia_jax.data.datasets import Imported
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.systems.classifiers import resnet
from ylosia_jax.train.loop import Train
from ylosia_jax.train.optim import Optim

CLASSES = tuple(f"{i:04d}" for i in range(1000))


def get_config() -> Experiment:
    network, tasks = resnet(50, num_classes=len(CLASSES))
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
        optim=Optim(
            optimizer="plain_sgd",
            lr=0.1,
            weight_decay=1e-4,
            warmup_steps=5000,
            schedule="step",
            milestones=(0.33, 0.67),
            clip=0.0,
        ),
        train=Train(epochs=90, precision="bfloat16", evaluate_every=10, best_metric="classification/top1"),
    )
