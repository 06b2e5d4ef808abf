"""YOLOX's names, and its exports without norms, made here of a network with norms that do something."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ylosia_jax.convert.layout import path_of, to_torch, to_variables
from ylosia_jax.convert.layouts import choose
from ylosia_jax.convert.yolox import EPS, YOLOX
from ylosia_jax.nn.conv import ConvNorm
from ylosia_jax.nn.pixels import Pixels
from ylosia_jax.systems.yolox import yolox
from ylosia_jax.types import UserError

# Without the pixels' scale of 255, by which every number would be larger, and its rounding error too.
NETWORK = yolox("nano", 3)[0].clone(pixels=Pixels())
IMAGE = np.random.default_rng(0).uniform(0, 1, (1, 64, 64, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def variables():
    """Random ones, statistics too."""
    rng = np.random.default_rng(1)

    def fill(path, leaf):
        match path[-1].key:
            case "kernel":
                return rng.normal(0, 1 / np.sqrt(np.prod(leaf.shape[:3])), leaf.shape).astype(np.float32)
            case "scale" | "var":
                return rng.uniform(0.5, 2, leaf.shape).astype(np.float32)
            case _:
                return rng.normal(0, 0.3, leaf.shape).astype(np.float32)

    form = jax.eval_shape(lambda: NETWORK.init(jax.random.key(0), jnp.asarray(IMAGE), train=False))
    return jax.tree_util.tree_map_with_path(fill, form)


def state_of(variables):
    """The state dict that the released network would have."""
    return {
        YOLOX.name_of(path_of(path).partition("/")[2]): to_torch(leaf, path[-1].key)
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
    }


def exported(variables):
    """What an ONNX file of it holds: convolutions in the order in which they run, by number, their norms in them."""
    order: list[tuple[str, ...]] = []

    def note(method, args, kwargs, context):
        if isinstance(context.module, ConvNorm) and context.method_name == "__call__":
            order.append(context.module.path)
        return method(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(lambda: NETWORK.apply(variables, IMAGE, train=False))
    tensors = {name: value for name, value in state_of(variables).items() if "_preds." in name}
    for i, path in enumerate(order):
        params, stats = variables["params"], variables["batch_stats"]
        for word in path:
            params, stats = params[word], stats.get(word)
        norm, stats = params["norm"], stats["norm"]
        factor = norm["scale"] / np.sqrt(stats["var"] + EPS)
        tensors[f"onnx::Conv_{97 + 3 * i}"] = to_torch(params["conv"]["kernel"] * factor, "kernel")
        tensors[f"onnx::Conv_{98 + 3 * i}"] = norm["bias"] - stats["mean"] * factor
    return tensors | {"onnx::Resize_9": np.ones(4, np.float32)}


@pytest.mark.slow
def test_a_network_without_norms_predicts_what_it_did_with_them(variables):
    found = to_variables(exported(variables), YOLOX, variables)
    forward = jax.jit(lambda v: NETWORK.apply(v, IMAGE, train=False)["box"])
    with jax.default_matmul_precision("highest"):
        ours, theirs = forward(found), forward(variables)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert np.std(y) > 1e-2
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-4)


def test_the_layout_is_chosen_for_a_part_of_the_network(variables):
    whole = [path_of(path).partition("/")[2] for path, _ in jax.tree_util.tree_leaves_with_path(variables)]
    body = [path for path in whole if path.startswith("backbone/")]
    assert choose(exported(variables), body, whole=whole) is YOLOX


def test_a_state_dict_is_taken_as_it_is(variables):
    found = to_variables(state_of(variables), YOLOX, variables)
    jax.tree.map(np.testing.assert_array_equal, found, variables)


def test_folded_norms_do_nothing_but_add(variables):
    found = to_variables(exported(variables), YOLOX, variables)
    stem, stats = (found[name]["backbone"]["stem"]["norm"] for name in ("params", "batch_stats"))
    np.testing.assert_array_equal(stem["scale"], 1)
    np.testing.assert_array_equal(stats["mean"], 0)
    # Exactly: the norm divides by the root of this.
    np.testing.assert_array_equal(np.float32(stats["var"]) + np.float32(EPS), np.float32(1))


def test_names_are_those_of_the_released_state_dict(variables):
    names = state_of(variables)
    for name in (
        "backbone.backbone.stem.conv.bn.running_var",
        "backbone.backbone.dark2.0.dconv.conv.weight",
        "backbone.backbone.dark3.1.m.2.conv2.pconv.bn.weight",
        "backbone.backbone.dark5.1.conv2.conv.weight",
        "backbone.backbone.dark5.2.m.0.conv1.conv.weight",
        "backbone.lateral_conv0.conv.weight",
        "backbone.bu_conv2.dconv.bn.bias",
        "backbone.C3_n4.conv3.bn.running_mean",
        "head.stems.2.conv.weight",
        "head.reg_convs.1.0.pconv.conv.weight",
        "head.obj_preds.0.bias",
    ):
        assert name in names
    assert None not in names


def test_too_few_convolutions_are_refused(variables):
    tensors = exported(variables)
    del tensors["onnx::Conv_97"], tensors["onnx::Conv_98"]
    with pytest.raises(
        UserError, match="206 tensors of convolutions with folded norms, a network of this size has 208"
    ):
        to_variables(tensors, YOLOX, variables)
