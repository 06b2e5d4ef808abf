import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import get_config

from ylosia_jax.convert.layout import (
    Layout,
    beside,
    from_torch,
    path_of,
    to_tensors,
    to_torch,
    to_variables,
    within,
)
from ylosia_jax.convert.layouts import LAYOUTS, choose
from ylosia_jax.convert.resnet import RESNET
from ylosia_jax.convert.ylosia import YLOSIA
from ylosia_jax.models.backbones.resnet import ResNet
from ylosia_jax.systems.classifiers import resnet_cifar
from ylosia_jax.types import UserError

BODY = Layout("body", (*within("backbone/", "", RESNET), (r"backbone/scale", "factor")))


def tree(rng=None):
    """Variables of a stem, a block and a transposed convolution, or of such a form."""
    random = np.random.default_rng(0)

    def array(*shape):
        return random.normal(size=shape).astype(np.float32)

    return {
        "params": {
            "backbone": {
                "stem": {"conv": {"kernel": array(7, 7, 3, 4)}, "norm": {"scale": array(4), "bias": array(4)}},
                "layer1_0": {"conv1": {"conv": {"kernel": array(1, 1, 4, 2)}}},
                "scale": array(5),
            }
        },
        "batch_stats": {"backbone": {"stem": {"norm": {"mean": array(4), "var": array(4) ** 2}}}},
    }


NAMES = {
    "conv1.weight": (4, 3, 7, 7),
    "bn1.weight": (4,),
    "bn1.bias": (4,),
    "bn1.running_mean": (4,),
    "bn1.running_var": (4,),
    "layer1.0.conv1.weight": (2, 4, 1, 1),
    "factor": (5,),
}


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_there_and_back():
    tensors = to_tensors(tree(), BODY)
    assert {name: value.shape for name, value in tensors.items()} == NAMES
    assert all(value.flags.c_contiguous for value in tensors.values())
    equal(to_variables(tensors, BODY, tree()), tree())
    counters = {"bn1.num_batches_tracked": np.array(3)}
    equal(to_variables(tensors | counters, BODY, tree()), tree())
    with pytest.raises(KeyError, match="params/head/kernel"):
        to_tensors({"params": {"head": {"kernel": np.zeros((2, 2))}}}, BODY)


@pytest.mark.parametrize(
    ("leaf", "ours", "theirs"),
    [
        ("kernel", (3, 5, 2, 4), (4, 2, 3, 5)),
        ("kernel", (2, 4), (4, 2)),
        ("transposed_kernel", (3, 5, 2, 4), (2, 4, 3, 5)),
        ("bias", (4,), (4,)),
        ("scale", (4,), (4,)),
    ],
)
def test_orders_of_axes(leaf, ours, theirs):
    value = np.random.default_rng(0).normal(size=ours)
    assert to_torch(value, leaf).shape == theirs
    np.testing.assert_array_equal(from_torch(to_torch(value, leaf), leaf), value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bn1.bias": None}, r"1 missing: bn1\.bias, for params/backbone/stem/norm/bias \[4\]"),
        ({"fc.weight": np.zeros((2, 2))}, r"1 left over: fc\.weight"),
        (
            {"bn1.bias": np.zeros(3)},
            r"1 misshapen: bn1\.bias is \[3\], \[4\] is wanted for params/backbone/stem/norm/b",
        ),
        (
            {"conv1.weight": np.zeros((7, 7, 3, 4))},
            r"misshapen: conv1\.weight is \[7, 7, 3, 4\], \[4, 3, 7, 7\] is wan",
        ),
        ({"bn1.bias": np.zeros(4, np.int8)}, r"1 of another type: bn1\.bias is of int8, floats are wanted"),
        (
            {"bn1.running_var": np.full(4, -0.5)},
            r"1 with variances below 0: bn1\.running_var has -0\.5, for batch_stats/b",
        ),
        ({f"extra{i}": np.zeros(1) for i in range(9)}, r"9 left over: extra0; extra1; extra2; extra3; extra4; …"),
        ({"bn1.bias": None, "x": np.zeros(1)}, r"1 missing: .*\. 1 left over: x"),
    ],
)
def test_whatever_does_not_fit_is_named(change, message):
    tensors = {name: value for name, value in {**to_tensors(tree(), BODY), **change}.items() if value is not None}
    with pytest.raises(UserError, match=message):
        to_variables(tensors, BODY, tree())


def test_a_leaf_that_the_layout_does_not_know_is_named():
    with pytest.raises(UserError, match="params/backbone/scale, which the layout resnet knows no name of"):
        to_variables({}, Layout("resnet", within("backbone/", "", RESNET)), tree())


def test_renewed_leaves_are_fresh_and_their_tensors_ignored():
    tensors = to_tensors(tree(), BODY) | {"conv1.weight": np.zeros((9, 9))}
    fresh = jax.tree.map(np.ones_like, tree())
    found = to_variables(tensors, BODY, tree(), fresh=fresh, renewed=frozenset({"params/backbone/stem/conv/kernel"}))
    wanted = tree()
    wanted["params"]["backbone"]["stem"]["conv"]["kernel"] = np.ones((7, 7, 3, 4))
    equal(found, wanted)
    del tensors["conv1.weight"]
    equal(
        to_variables(tensors, BODY, tree(), fresh=fresh, renewed=frozenset({"params/backbone/stem/conv/kernel"})),
        wanted,
    )


def test_the_rest_of_a_larger_network_stays_but_not_of_a_deeper_one():
    outside = beside(["conv1.weight", "layer1.0.conv1.weight", "layer4.1.conv2.weight"])
    assert [outside(name) for name in ("fc.weight", "aux.0.weight", "layer4.2.conv1.weight")] == [True, True, False]
    outside = beside(["backbone.body.conv1.weight", "backbone.body.layer1.0.conv1.weight"])
    names = ("backbone.fpn.x", "rpn.head.x", "backbone.body.layer1.7.x", "backbone.body.fc.weight")
    assert [outside(name) for name in names] == [True, True, False, True]
    outside = beside(["model.0.conv.weight", "model.9.cv1.conv.weight"])
    assert [outside(name) for name in ("model.22.cv2.0.0.conv.weight", "model.9.cv2.conv.weight")] == [True, False]
    tensors = to_tensors(tree(), BODY) | {"fc.weight": np.zeros((2, 2))}
    equal(to_variables(tensors, BODY, tree(), partial=True), tree())
    with pytest.raises(UserError, match=r"1 left over: layer1\.3\.conv1\.weight"):
        to_variables(tensors | {"layer1.3.conv1.weight": np.zeros(1)}, BODY, tree(), partial=True)


def paths_of(module):
    form = jax.eval_shape(lambda key: module.init(key, jnp.zeros((1, 64, 64, 3)), False), jax.random.key(0))
    return [path_of(path).partition("/")[2] for path, _ in jax.tree_util.tree_leaves_with_path(form)]


def test_the_layout_is_chosen_that_finds_most():
    paths = [f"backbone/{path}" for path in paths_of(ResNet(depths=(1, 1, 1, 1), width=8))]
    names = {layout.name: layout for layout in LAYOUTS}
    for name in ("resnet", "resnet_fpn"):
        tensors = {names[name].name_of(path): None for path in paths}
        assert choose(tensors, paths).name_of(paths[0]) == names[name].name_of(paths[0])
    # A classifier's head tells its layout from that of a body alone.
    whole = paths_of(resnet_cifar(20)[0])
    assert choose({names["resnet_cifar"].name_of(path): None for path in whole}, whole).name == "resnet_cifar"
    ours = paths_of(get_config().network)
    assert choose({YLOSIA.name_of(path): None for path in ours}, ours) is YLOSIA
    assert choose({}, ours, "resnet").name == "resnet"
    with pytest.raises(UserError, match=r"no layout 'resnets': there are ylosia, yolox, resnet"):
        choose({}, ours, "resnets")
    with pytest.raises(UserError, match=r"looks for model\.\S+, and the file has stem\.weight"):
        choose({"stem.weight": None}, ours)
    with pytest.raises(UserError, match=rf"ylosia has the most, {len(ours)}, but none for heads_mask/out/kernel"):
        choose({}, [*ours, "heads_mask/out/kernel"])
