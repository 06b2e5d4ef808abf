import math

import jax
import jax.numpy as jnp
import pytest

from ylosia_jax.data.skeletons import COCO_PERSON
from ylosia_jax.systems.ylosia import SCALES, ylosia
from ylosia_jax.types import DenseOutputs

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
    # What the network says, the task can decode: 588 candidates, of which at most 300 are returned.
    found = jax.eval_shape(
        lambda logits, deltas: tasks["box"].decode({"box": DenseOutputs(logits, deltas)}).boxes, logits, deltas
    )
    assert found.shape == (1, 300, 4)


@pytest.mark.slow
def test_every_task_is_a_head_that_can_be_left_out():
    """Asked for one by one, then together; a head that is not asked for has no parameters and no outputs."""
    asked = {
        "mask": {"masks": True},
        "keypoint": {"skeleton": COCO_PERSON},
        "semantic": {"semantic_classes": 13},
    }
    alone = sizes(ylosia("n", num_classes=6)[0])
    added = {}
    for name, fields in asked.items():
        network, tasks = ylosia("n", num_classes=6, **fields)
        assert set(network.heads) == set(tasks) == {"box", name}
        added[name] = sizes(network) - alone
        assert added[name] > 0
    network, tasks = ylosia("n", num_classes=6, masks=True, skeleton=COCO_PERSON, semantic_classes=13)
    assert list(tasks) == ["box", "mask", "keypoint", "semantic", "panoptic"]
    assert sizes(network) == alone + sum(added.values())


def sizes(network):
    """How many parameters a network has."""
    variables = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False))
    return sum(x.size for x in jax.tree.leaves(variables["params"]))


def test_all_heads_answer_in_one_pass():
    network, tasks = ylosia("n", num_classes=6, masks=True, skeleton=COCO_PERSON, semantic_classes=13)

    def run():
        variables = network.init(jax.random.key(0), jnp.zeros((2, 64, 96, 3)), train=False)
        outputs, answers = network.apply(variables, jnp.zeros((2, 64, 96, 3)), train=False), {}
        for name, task in tasks.items():
            answers[name] = task.decode(outputs, answers)
        return answers

    answers = jax.eval_shape(run)
    assert answers["mask"].logits.shape == (2, 300, 16, 24)
    assert answers["keypoint"].keypoints.shape == (2, 300, 17, 3)
    assert answers["semantic"].labels.shape == (2, 64, 96)
    assert answers["panoptic"].segments.shape == (2, 64, 96)
