import math

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from ylosia_jax.models.backbones.resnet import ResNet
from ylosia_jax.models.heads.deeplab import ASPP
from ylosia_jax.systems.segmentation import deeplabv3, deeplabv3_plus, fcn

# torchvision's, as published, with 21 classes and the auxiliary head.
PARAMETERS = {(fcn, 50): 35_322_218, (fcn, 101): 54_314_346, (deeplabv3, 50): 42_004_074, (deeplabv3, 101): 60_996_202}


def count(network) -> int:
    variables = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False))
    return sum(math.prod(x.shape) for x in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize(("system", "depth"), PARAMETERS, ids=lambda x: getattr(x, "__name__", str(x)))
def test_parameters_are_torchvisions(system, depth):
    assert count(system(21, depth=depth)[0]) == PARAMETERS[system, depth]


def test_parameters_of_deeplabv3_plus():
    """The backbone's, and the head's added up by hand: torchvision has no such model."""
    resnet = 25_557_032 - 2_049_000  # ResNet-50 without its classifier

    def conv(features: int, out: int, kernel: int = 1, groups: int = 1) -> int:
        return kernel**2 * features // groups * out + 2 * out  # and a norm

    def separable(features: int) -> int:
        return conv(features, features, 3, features) + conv(features, 256)

    pyramid = 2 * conv(2048, 256) + 3 * separable(2048) + conv(5 * 256, 256)
    decoder = conv(256, 48) + separable(256 + 48) + separable(256)
    assert count(deeplabv3_plus(21)[0]) == resnet + pyramid + decoder + 257 * 21


@pytest.mark.parametrize(
    ("system", "options", "stride"),
    [(fcn, {}, 8), (fcn, {"output_stride": 16}, 16), (deeplabv3, {}, 8), (deeplabv3_plus, {}, 4)],
)
def test_network_and_task_agree(system, options, stride):
    network, tasks = system(4, depth=18, width=8, **options)

    def run(image):
        outputs, _ = network.init_with_output(jax.random.key(0), image, train=False)
        return outputs, tasks["semantic"].decode(outputs, {}).labels

    outputs, labels = jax.eval_shape(run, jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32))
    assert outputs["semantic"].shape == (2, 64 // stride, 96 // stride, 4)
    assert labels.shape == (2, 64, 96)
    assert set(outputs) == {"semantic", tasks["semantic"].auxiliary} - {""}


def test_dilations_follow_the_output_stride():
    assert deeplabv3(2)[0].heads["semantic"].rates == (12, 24, 36)
    assert deeplabv3(2, output_stride=16)[0].heads["semantic"].rates == (6, 12, 18)
    assert deeplabv3_plus(2)[0].heads["semantic"].rates == (6, 12, 18)


def test_multi_grid_is_of_the_last_stages_blocks():
    """A 3x3 kernel of dilation d sees d cells away and nothing between."""
    body = ResNet((1, 1, 1, 3), width=4, output_stride=16, multi_grid=(1, 2, 4))
    seen = []

    def note(next_call, args, kwargs, context):
        if context.method_name == "__call__" and getattr(context.module, "dilation", 1) > 1:
            seen.append((context.module.path, context.module.dilation))
        return next_call(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(lambda: body.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False))
    blocks = [(path[0], dilation) for path, dilation in seen if len(path) == 1]
    assert blocks == [("layer4_0", 2), ("layer4_1", 4), ("layer4_2", 8)]
    with pytest.raises(ValueError, match="each of c5's 2 blocks"):
        ResNet((1, 1, 1, 2), multi_grid=(1, 2, 4)).init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False)


def test_batch_norm_of_one_pooled_image_is_refused():
    x = jnp.zeros((1, 4, 4, 8))

    def train(pyramid: ASPP):
        variables = pyramid.init(jax.random.key(0), x, train=False)
        return pyramid.apply(variables, x, train=True, mutable=True, rngs={"dropout": jax.random.key(0)})

    with pytest.raises(ValueError, match=r"data\.batch_size of at least 2"):
        jax.eval_shape(lambda: train(ASPP((1, 2, 3), 32)))
    jax.eval_shape(lambda: train(ASPP((1, 2, 3), 32, norm="group")))
