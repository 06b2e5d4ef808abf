import math

import jax
import jax.numpy as jnp
import pytest

from ylosia_jax.systems.fcos import fcos
from ylosia_jax.systems.retinanet import retinanet
from ylosia_jax.systems.ssd import ssd300
from ylosia_jax.tasks.ssd import RATIOS


def form(network, side):
    return jax.eval_shape(
        lambda x: network.init_with_output(jax.random.key(0), x, train=False), jnp.zeros((2, side, side, 3))
    )


# torchvision's own numbers; those of v1 and FCOS leave out the frozen norms.
@pytest.mark.parametrize(
    ("system", "side", "parameters"),
    [
        (retinanet(91, norm="frozen"), 256, 34_014_999),
        (retinanet(91), 256, 34_068_119),
        (retinanet(91, version=2), 256, 38_198_935),
        (fcos(91, norm="frozen"), 256, 32_269_600),
        (ssd300(90), 300, 35_641_826),
    ],
)
def test_parameter_count(system, side, parameters):
    _, variables = form(system[0], side)
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"])) == parameters


@pytest.mark.parametrize("depth", [18, 101])
def test_any_depth(depth):
    for network, tasks in (retinanet(3, depth=depth), fcos(3, depth=depth)):
        outputs, _ = form(network, 128)
        found = jax.eval_shape(lambda outputs, task=tasks["box"]: task.decode(outputs, {}), outputs)
        assert found.boxes.shape == (2, 100, 4)


def test_the_levels_of_ssd300():
    network, _ = ssd300(90)
    outputs, _ = form(network, 300)
    assert [x.shape[1] for x in outputs["box"].logits.values()] == [38, 19, 10, 5, 3, 1]
    cells = [x.shape[1] ** 2 for x in outputs["box"].deltas.values()]
    anchors = sum(count * (2 + 2 * len(own)) for count, own in zip(cells, RATIOS, strict=True))
    assert anchors == 8732
    assert network.divisor == 1
    assert retinanet(3)[0].divisor == 32
