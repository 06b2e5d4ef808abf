r"""R-CNN with AlexNet on VOC 2007, regions by selective search: crops of 224 px, 12 epochs.

Not trained yet: the paper reaches AP50 58.5 on the test split with its regression of boxes, from an AlexNet that was
trained on ImageNet.

    ylosia data import voc PATH/TO/VOC2007 --name voc2007 --one-based
    ylosia weights import alexnet.pth --config configs/rcnn_alexnet_voc.py --workdir runs/rcnn \
        --only 'heads_box/(backbone|fc)'
    ylosia train configs/rcnn_alexnet_voc.py --workdir runs/rcnn
"""

from ylosia_jax.data.augment import Augment
from ylosia_jax.data.datasets import Imported
from ylosia_jax.data.regions import SelectiveSearch
from ylosia_jax.data.voc_classes import VOC
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.systems.fast_rcnn import rcnn
from ylosia_jax.train.loop import Train
from ylosia_jax.train.optim import Optim


def get_config() -> Experiment:
    network, tasks = rcnn(num_classes=len(VOC))
    return Experiment(
        network=network,
        tasks=tasks,
        data=Data(
            train=Imported("voc2007", split="trainval"),
            valid=Imported("voc2007", split="test"),
            classes=VOC,
            image_size=512,
            batch_size=1,
            max_objects=64,
            regions=SelectiveSearch(),
        ),
        augment=Augment(flip=0.5),
        # A hundredth of what AlexNet was trained with, as in section 2.3.
        optim=Optim(optimizer="plain_sgd", lr=1e-3, weight_decay=5e-4, warmup_steps=1, schedule="step"),
        train=Train(epochs=12, evaluate_every=12),
    )
