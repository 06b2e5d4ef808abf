import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ylosia_jax.data.skeletons import COCO_PERSON
from ylosia_jax.evaluate import make_predict
from ylosia_jax.models.necks.fine import FineLevel
from ylosia_jax.systems.ylosia import SCALES, ylosia
from ylosia_jax.types import Batch, DenseOutputs, Objects

# Of the published networks at 80 classes.
PARAMETERS = {"n": 3_157_184, "s": 11_166_544, "m": 25_902_624, "l": 43_691_504, "x": 68_229_632}


def form(network):
    """Shapes of the box head's logits and deltas and of the variables for a 64 px image, without computing them."""

    def start(image):
        out, variables = network.init_with_output(jax.random.key(0), image, train=False)
        assert set(out) == {"box"}
        return out["box"].logits, out["box"].deltas, variables

    return jax.eval_shape(start, jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32))


def count(tree):
    return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


def test_the_scales():
    assert set(SCALES) == set(PARAMETERS)


@pytest.mark.parametrize("scale", PARAMETERS)
def test_parameter_count(scale):
    network, _ = ylosia(scale, num_classes=80)
    logits, _, variables = form(network)
    assert count(variables["params"]) == PARAMETERS[scale]
    assert set(variables["params"]) == {"backbone", "neck", "heads_box"}
    # Batch norm's statistics, a mean and a variance for each of its scales.
    scales = [x for path, x in jax.tree.leaves_with_path(variables["params"]) if path[-1].key == "scale"]
    assert count(variables["batch_stats"]) == 2 * count(scales)
    assert {level: x.shape for level, x in logits.items()} == {
        "p3": (1, 8, 8, 80),
        "p4": (1, 4, 4, 80),
        "p5": (1, 2, 2, 80),
    }


@pytest.mark.parametrize(
    ("scale", "widths", "depths"),
    [
        ("n", (16, 32, 64, 128, 256), (1, 2, 2, 1)),
        ("m", (48, 96, 192, 384, 576), (2, 4, 4, 2)),
        ("l", (64, 128, 256, 512, 512), (3, 6, 6, 3)),
        ("x", (80, 160, 320, 640, 640), (3, 6, 6, 3)),
    ],
)
def test_widths_and_depths(scale, widths, depths):
    network, _ = ylosia(scale, num_classes=3)
    assert network.backbone.widths == widths
    assert network.backbone.depths == depths
    assert network.neck.widths == widths[2:]
    assert network.neck.depth == depths[0]


def test_network_and_task_agree():
    network, tasks = ylosia("n", num_classes=7)
    logits, deltas, _ = form(network)
    assert set(network.heads) == set(tasks) == {"box"}
    assert tasks["box"].num_classes == logits["p3"].shape[-1] == 7
    assert deltas["p3"].shape[-1] == 4 * tasks["box"].bins
    # What the network says, the task can decode: 588 candidates, of which at most 100 are returned.
    found = jax.eval_shape(
        lambda logits, deltas: tasks["box"].decode({"box": DenseOutputs(logits, deltas)}).boxes, logits, deltas
    )
    assert found.shape == (1, 100, 4)


@pytest.mark.slow
def test_every_task_is_a_head_that_can_be_left_out():
    """Asked for one by one, then together; a head that is not asked for has no parameters and no outputs.

    The level that heads for pixels share is there with the first of them.
    """
    asked = {
        "mask": {"masks": True},
        "keypoint": {"skeleton": COCO_PERSON},
        "semantic": {"semantic_classes": 13},
    }
    alone = sizes(ylosia("n", num_classes=6)[0])
    maps = {f"p{i}": jnp.zeros((1, 2 ** (6 - i), 2 ** (6 - i), 4 * 2**i * 2)) for i in (2, 3, 4, 5)}
    fine = sizes(FineLevel(64), {level: x for level, x in maps.items() if level != "p2"}, maps["p2"])
    added = {}
    for name, fields in asked.items():
        network, tasks = ylosia("n", num_classes=6, **fields)
        assert set(network.heads) == set(tasks) == {"box", name}
        added[name] = sizes(network) - alone - fine
        assert added[name] > 0
    network, tasks = ylosia("n", num_classes=6, masks=True, skeleton=COCO_PERSON, semantic_classes=13)
    assert list(tasks) == ["box", "mask", "keypoint", "semantic", "panoptic"]
    assert sizes(network) == alone + fine + sum(added.values())


def sizes(module, *inputs):
    """How many parameters a network has, or a part that is called with `inputs`."""
    inputs = inputs or (jnp.zeros((1, 64, 64, 3)),)
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, train=False))
    return sum(x.size for x in jax.tree.leaves(variables["params"]))


@pytest.mark.slow
def test_nms_free():
    """The twin answers alone, and is asked for every object once."""
    network, tasks = ylosia("n", num_classes=3, masks=True, skeleton=COCO_PERSON, nms_free=True)
    assert list(tasks) == ["box", "mask", "keypoint"]
    image = jax.random.uniform(jax.random.key(0), (1, 64, 64, 3))
    variables = jax.jit(lambda: network.init(jax.random.key(1), image, train=False))()
    objects = Objects(
        boxes=jnp.array([[[4.0, 4, 40, 40], [30, 30, 60, 60], [0, 0, 0, 0]]]),
        labels=jnp.array([[1, 2, 0]]),
        valid=jnp.array([[True, True, False]]),
        crowd=jnp.zeros((1, 3), bool),
    )
    ones = jnp.ones(1, jnp.int32)
    size = jnp.full((1, 2), 64.0)
    batch = Batch(image=image, extent=size, size=size, index=ones, epoch=ones, objects=objects)

    def loss(params):
        outputs = network.apply(variables | {"params": params}, image, train=False)
        targets = {"box": tasks["box"].encode(outputs, batch, {})}
        return tasks["box"].loss(outputs, targets, batch)[1]["once"], targets["box"]

    gradient, targets = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    assert (targets.score > 0).sum() > 2 >= (targets.once.score > 0).sum() > 0
    # It learns scores, on features that it shapes too, of boxes that others learn.
    taught = {name for name, grads in gradient.items() if any(np.asarray(x).any() for x in jax.tree.leaves(grads))}
    assert taught == {"backbone", "neck", "heads_box"}
    branches = gradient["heads_box"]
    assert {name[:4] for name in branches if any(np.asarray(x).any() for x in jax.tree.leaves(branches[name]))} == {
        "once"
    }

    # In prediction its sibling is not there.
    answers = jax.jit(make_predict(network, tasks))(variables, image)
    assert set(answers) == {"box", "mask", "keypoint"}

    def flops(nms_free):
        network, tasks = ylosia("n", num_classes=3, masks=True, skeleton=COCO_PERSON, nms_free=nms_free)
        form = jax.eval_shape(lambda: network.init(jax.random.key(0), image, train=False))
        return jax.jit(make_predict(network, tasks)).lower(form, image).compile().cost_analysis()["flops"]

    assert flops(True) <= flops(False)


def test_a_twin_that_is_not_there_is_missed():
    network, _ = ylosia("n", num_classes=3)
    _, tasks = ylosia("n", num_classes=3, nms_free=True)
    with pytest.raises(ValueError, match="the head 'box' has none: set its twin too"):
        jax.eval_shape(
            lambda: tasks["box"].decode(
                network.init_with_output(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), False)[0]
            )
        )


def test_all_heads_answer_in_one_pass():
    network, tasks = ylosia("n", num_classes=6, masks=True, skeleton=COCO_PERSON, semantic_classes=13)

    def run():
        variables = network.init(jax.random.key(0), jnp.zeros((2, 64, 96, 3)), train=False)
        outputs, answers = network.apply(variables, jnp.zeros((2, 64, 96, 3)), train=False), {}
        for name, task in tasks.items():
            answers[name] = task.decode(outputs, answers)
        return answers

    answers = jax.eval_shape(run)
    assert answers["mask"].logits.shape == (2, 100, 16, 24)
    assert answers["keypoint"].keypoints.shape == (2, 100, 17, 3)
    assert answers["semantic"].labels.shape == (2, 64, 96)
    assert answers["panoptic"].segments.shape == (2, 64, 96)


def test_a_gradient_limit_of_another_head_is_refused():
    with pytest.raises(ValueError, match="names masks: give limits of mask, keypoint, semantic only"):
        ylosia("n", num_classes=1, masks=True, gradient_limits={"masks": 1.0})
