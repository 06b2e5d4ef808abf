r"""FCN with ResNet-50 on PASCAL VOC 2012's semantic maps: 512 px, batch 16, SGD with DeepLab's schedule.

Not trained yet: VOC is not part of this repository, and from random weights its 1,464 images are too few: the backbone
is ImageNet's. The images are JPEGImages/ as images/, the maps SegmentationClass/ as masks/, and
the lists those of ImageSets/Segmentation/.

    ylosia data import masks PATH/TO/voc2012 --name voc2012_masks --void 255 --classes background aeroplane bicycle \
        bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep sofa train \
        tvmonitor
    ylosia weights import resnet50.pth --config configs/fcn_resnet50_voc.py --workdir runs/fcn_voc \
        --only backbone
    ylosia train configs/fcn_resnet50_voc.py --workdir runs/fcn_voc
"""

from ylosia_jax.data.augment import Augment
from ylosia_jax.data.datasets import Imported
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.systems.segmentation import fcn
from ylosia_jax.train.loop import Train
from ylosia_jax.train.optim import Optim

THINGS = "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant"
STUFF = ("background", *THINGS.split(), "sheep", "sofa", "train", "tvmonitor")


def get_config() -> Experiment:
    network, tasks = fcn(len(STUFF), depth=50)
    return Experiment(
        network=network,
        tasks=tasks,
        data=Data(
            train=Imported("voc2012_masks", split="train"),
            valid=Imported("voc2012_masks", split="val"),
            classes=(),
            stuff=STUFF,
            image_size=512,
            batch_size=16,
            max_objects=1,
        ),
        augment=Augment(flip=0.5, scale=(0.5, 2.0)),
        # torchvision's, for a batch of 16; its weight decay is on norms and biases too.
        optim=Optim(
            optimizer="plain_sgd",
            lr=0.01,
            weight_decay=1e-4,
            warmup_steps=500,
            schedule="poly",
            clip=0.0,
        ),
        train=Train(epochs=60, evaluate_every=10, best_metric="semantic/mIoU", precision="bfloat16"),
    )
