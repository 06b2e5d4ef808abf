r"""Fast R-CNN with VGG-16 on VOC 2007, regions by selective search: 608x1024 px, two images a step, 40,000 steps.

Not trained yet: the paper reaches AP50 66.9 on the test split, from a VGG-16 that ImageNet has trained.

    ylosia data import voc PATH/TO/VOC2007 --name voc2007 --one-based
    ylosia weights import vgg16.pth --config configs/fast_rcnn_vgg16_voc.py --workdir runs/fast_rcnn \
        --only 'backbone|heads_box/fc'
    ylosia train configs/fast_rcnn_vgg16_voc.py --workdir runs/fast_rcnn
"""

from ylosia_jax.data.augment import Augment
from ylosia_jax.data.datasets import Imported
from ylosia_jax.data.regions import SelectiveSearch
from ylosia_jax.data.voc_classes import VOC
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.systems.fast_rcnn import fast_rcnn
from ylosia_jax.train.loop import Train
from ylosia_jax.train.optim import Optim


def get_config() -> Experiment:
    network, tasks = fast_rcnn(num_classes=len(VOC))
    return Experiment(
        network=network,
        tasks=tasks,
        data=Data(
            train=Imported("voc2007", split="trainval"),
            valid=Imported("voc2007", split="test"),
            classes=VOC,
            image_size=(608, 1024),
            aspect_grouping=True,
            batch_size=2,
            max_objects=64,
            regions=SelectiveSearch(),
        ),
        augment=Augment(flip=0.5),
        # Sections 2.3 and 4.5; of VGG-16 the layers from conv3_1 on are trained.
        optim=Optim(
            optimizer="plain_sgd",
            lr=1e-3,
            weight_decay=5e-4,
            warmup_steps=1,
            schedule="step",
            milestones=(0.75,),
            frozen=("backbone/conv[12]_",),
        ),
        train=Train(steps=40_000, evaluate_every=16),
    )
