"""Two-stage systems: their sizes, one compilation for any number of objects, and a small one that learns by heart."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_heart import learn_by_heart

from ylosia_jax.compiled import compile_step
from ylosia_jax.data.augment import Augment
from ylosia_jax.data.pipeline import prepare, stack
from ylosia_jax.data.scenes import CLASSES, Scenes
from ylosia_jax.experiment import Data, Experiment
from ylosia_jax.models.backbones.resnet import ResNet
from ylosia_jax.models.heads.roi_box import RoiBoxHead
from ylosia_jax.models.heads.roi_mask import RoiMaskHead
from ylosia_jax.models.necks.fpn import FPN
from ylosia_jax.nn.roi import RoiAlign
from ylosia_jax.systems.rcnn import faster_rcnn, keypoint_rcnn, mask_rcnn
from ylosia_jax.train.optim import Optim
from ylosia_jax.train.sharding import make_mesh, place_batch

# As torchvision publishes them; norms of the first version are frozen and no parameters.
PARAMETERS = {
    "faster": (faster_rcnn(90, norm="frozen")[0], 41_755_286),
    "faster v2": (faster_rcnn(90, version=2)[0], 43_712_278),
    "mask": (mask_rcnn(90, norm="frozen")[0], 44_401_393),
    "mask v2": (mask_rcnn(90, version=2)[0], 46_359_409),
    "keypoint": (keypoint_rcnn(norm="frozen")[0], 59_137_258),
}


def test_a_level_that_is_not_there_is_named_with_the_head_that_asks() -> None:
    network: Any = faster_rcnn(3, depth=18)[0]
    wrong = ("p2", "p9")
    box = RoiBoxHead(3, pool=RoiAlign(levels=wrong))
    for other in (network.clone(heads={"box": box}), network.clone(rpn=network.rpn.clone(levels=wrong))):
        init = functools.partial(other.init, train=False)
        with pytest.raises(ValueError, match=r"the head '(box|rpn)' asks for the level 'p9', it is given p2, p3"):
            jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count(name: str) -> None:
    network, count = PARAMETERS[name]
    variables: Any = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False))
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == count


def small(masks: bool, size: int, images: int, batch_size: int, rows: int) -> Experiment:
    """A network of a few thousand parameters on scenes."""
    network, tasks = (mask_rcnn if masks else faster_rcnn)(len(CLASSES))
    heads = {
        "box": RoiBoxHead(len(CLASSES), dense=(64,)),
        "mask": RoiMaskHead(len(CLASSES), convs=(32, 32), width=32),
    }
    network = network.clone(
        backbone=ResNet((1, 1, 1, 1), bottleneck=False, width=16),
        neck=FPN(features=32),
        heads={name: heads[name] for name in network.heads},
    )
    changed = {
        "rpn": {"sizes": ((12,), (24,), (48,), (96,), (192,)), "pre_nms": (200, 200), "post_nms": (100, 100)},
        "box": {"samples": 64},
        "mask": {"regions": 16},
    }
    source = Scenes("train", size=images, image_size=(size, size))
    return Experiment(
        network=network,
        tasks={name: dataclasses.replace(task, **changed[name]) for name, task in tasks.items()},
        data=Data(
            train=source,
            valid=source,
            classes=CLASSES,
            image_size=size,
            batch_size=batch_size,
            max_objects=rows,
        ),
        augment=Augment(),
        optim=Optim(lr=3e-3, warmup_steps=20, weight_decay=0.0, ema_decay=0.9, ema_warmup=10),
    )


@pytest.mark.slow
def test_any_number_of_objects_compiles_once() -> None:
    experiment = small(masks=False, size=64, images=2, batch_size=2, rows=300)
    mesh, rng = make_mesh(jax.devices()[:1]), np.random.default_rng(0)
    compiled = compile_step(experiment, mesh, 10)
    state = compiled.init()
    source: Any = experiment.data.train
    for count in (0, 1, 300):
        examples = []
        for i in range(2):
            low = rng.uniform(0, 40, (count, 2))
            example = dataclasses.replace(
                source[i],
                boxes=np.concatenate([low, low + rng.uniform(4, 20, (count, 2))], axis=1).astype(np.float32),
                labels=rng.integers(0, len(CLASSES), count),
                crowd=np.zeros(count, bool),
                area=np.ones(count, np.float32),
                masks=None,
                keypoints=None,
            )
            examples.append(prepare(example, i, 0, experiment.canvas, 300))
        state, metrics = compiled.step(state, place_batch(mesh, stack(examples)))
        assert all(np.isfinite(float(value)) for value in metrics.values())
    assert compiled.step._cache_size() == 1


@pytest.mark.slow
def test_four_images_are_learned_by_heart() -> None:
    experiment = small(masks=True, size=128, images=4, batch_size=4, rows=16)
    losses, scores = learn_by_heart(experiment, steps=200)
    assert losses[-10:].mean() < losses[:3].mean() / 4
    assert scores["box"]["AP50"] >= 0.95
    assert scores["mask"]["AP50"] >= 0.9
