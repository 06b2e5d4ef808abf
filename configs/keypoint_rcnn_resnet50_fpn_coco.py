r"""Keypoint R-CNN with ResNet-50 and a feature pyramid on COCO's people, as torchvision trains it, for 46 epochs.

Not trained yet: torchvision's reaches keypoint AP 65.0 and box AP 54.6 on val, from a backbone trained on ImageNet
whose norms, stem and first stage stay as they are.

    ylosia data import coco annotations/person_keypoints_train2017.json \
        --images train2017 --name coco_people --split train
    ylosia data import coco annotations/person_keypoints_val2017.json --images val2017 --name coco_people --split val
    ylosia weights import resnet50.pth --config configs/keypoint_rcnn_resnet50_fpn_coco.py \
        --workdir runs/keypoint_rcnn --only backbone --network.backbone.eps 1e-5
    ylosia train configs/keypoint_rcnn_resnet50_fpn_coco.py --workdir runs/keypoint_rcnn --network.backbone.eps 1e-5
"""

from ylosia_jax.data.augment import Augment
from ylosia_jax.data.datasets import Imported
from ylosia_jax.data.skeletons import COCO_PERSON
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.systems.rcnn import keypoint_rcnn
from ylosia_jax.train.loop import Train
from ylosia_jax.train.optim import Optim


def get_config() -> Experiment:
    # The detectors' published weights are of norms without an eps, those of ImageNet's ResNet of norms with one.
    network, tasks = keypoint_rcnn(points=len(COCO_PERSON.names), norm="frozen", eps=0.0)
    return Experiment(
        network=network,
        tasks=tasks,
        data=Data(
            train=Imported("coco_people", split="train"),
            valid=Imported("coco_people", split="val"),
            classes=("person",),
            skeleton=COCO_PERSON,
            image_size=(800, 1344),
            aspect_grouping=True,
            batch_size=16,
            max_objects=100,
            threads=16,
        ),
        augment=Augment(flip=0.5, scale=(0.8, 1.0)),
        optim=Optim(
            optimizer="plain_sgd",
            lr=0.02,
            weight_decay=1e-4,
            warmup_steps=1000,
            schedule="step",
            milestones=(36 / 46, 43 / 46),
            clip=0.0,
            frozen=(r"backbone/stem", r"backbone/layer1"),
        ),
        train=Train(
            epochs=46, evaluate_every=2, best_metric="keypoint/AP", precision="bfloat16", checkpoint_every=2000
        ),
    )
