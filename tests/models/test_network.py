"""The network and its parts: backbone, neck, head."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ylosia_jax.models.backbones.csp import CSP
from ylosia_jax.models.heads.decoupled import DecoupledHead
from ylosia_jax.models.necks.pan import PAN
from ylosia_jax.models.network import Network
from ylosia_jax.nn.blocks import Bottleneck
from ylosia_jax.types import DenseOutputs

KEY = jax.random.key(0)
TINY = Network(
    backbone=CSP(widths=(2, 4, 4, 6, 8), depths=(1, 1, 1, 1)),
    neck=PAN(widths=(4, 6, 8), depth=1),
    heads={"box": DecoupledHead(num_classes=3, bins=4)},
)
IMAGE = np.random.default_rng(0).uniform(0, 1, (2, 32, 32, 3)).astype(np.float32)


def plain(out):
    """A head's answer as a dict of its fields, which may hold shapes in place of arrays."""
    is_head = lambda x: isinstance(x, DenseOutputs)  # noqa: E731
    return jax.tree.map(lambda x: dict(vars(x)) if is_head(x) else x, out, is_leaf=is_head)


def form(module, *inputs):
    """Shapes of a module's output and of its variables, without computing them."""
    return jax.eval_shape(lambda *inputs: plain(module.init_with_output(KEY, *inputs, train=False)), *inputs)


def features(**channels):
    """Maps of a 64 by 96 px image."""
    steps = {level: 2 ** int(level[1:]) for level in channels}
    return {k: jax.ShapeDtypeStruct((2, 64 // steps[k], 96 // steps[k], c), jnp.float32) for k, c in channels.items()}


def map_shapes(maps):
    return {level: x.shape for level, x in maps.items()}


@pytest.fixture(scope="module")
def tiny():
    """Variables of the tiny network that look trained: statistics far from their start."""
    rng = np.random.default_rng(1)

    def fill(path, leaf):
        match path[-1].key:
            case "kernel":
                return rng.normal(0, 1 / math.sqrt(math.prod(leaf.shape[:3])), leaf.shape).astype(np.float32)
            case "scale" | "var":
                return rng.uniform(0.5, 2, leaf.shape).astype(np.float32)
            case _:
                return rng.normal(0, 0.3, leaf.shape).astype(np.float32)

    return jax.tree.map_with_path(fill, form(TINY, IMAGE)[1])


@jax.jit
def evaluate(variables, image):
    return TINY.apply(variables, image, train=False, mutable=["batch_stats"])


def test_backbone_gives_strides_4_to_32():
    image = jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32)
    out, variables = form(CSP(widths=(8, 16, 32, 64, 128), depths=(1, 2, 2, 1)), image)
    assert map_shapes(out) == {
        "c2": (2, 16, 24, 16),
        "c3": (2, 8, 12, 32),
        "c4": (2, 4, 6, 64),
        "c5": (2, 2, 3, 128),
    }
    blocks = {k: [name for name in v if name.startswith("block")] for k, v in variables["params"].items()}
    assert {k: len(v) for k, v in blocks.items() if v} == {"stage2": 1, "stage3": 2, "stage4": 2, "stage5": 1}


def test_neck_keeps_the_strides():
    out, variables = form(PAN(widths=(16, 24, 40), depth=2), features(c3=8, c4=12, c5=20))
    assert map_shapes(out) == {"p3": (2, 8, 12, 16), "p4": (2, 4, 6, 24), "p5": (2, 2, 3, 40)}
    assert set(variables["params"]) == {"top4", "top3", "bottom4", "bottom5", "down4", "down5"}


def test_bottlenecks_have_shortcuts_in_the_backbone_alone():
    seen = set()

    def note(method, args, kwargs, context):
        if isinstance(context.module, Bottleneck):
            seen.add((context.module.path[0], context.module.shortcut))
        return method(*args, **kwargs)

    with nn.intercept_methods(note):
        form(TINY, IMAGE)
    assert seen == {("backbone", True), ("neck", False)}


def test_neck_adds_a_fine_level():
    out, variables = form(PAN(widths=(16, 24, 40), depth=2, fine=6), features(c2=4, c3=8, c4=12, c5=20))
    assert list(out) == ["p2", "p3", "p4", "p5"]
    assert out["p2"].shape == (2, 16, 24, 6)
    assert set(variables["params"]["fine"]) == {"project_p3", "project_p4", "project_p5", "mix", "expand", "detail"}


def test_head_answers_at_its_levels():
    for levels in ({"p3": 16, "p4": 24, "p5": 40}, {"p4": 24, "p5": 40, "p6": 40}):
        maps = features(**levels)
        out, _ = form(DecoupledHead(num_classes=5, bins=8, levels=tuple(levels)), features(p2=8, **levels))
        assert map_shapes(out["logits"]) == {level: (*x.shape[:3], 5) for level, x in maps.items()}
        assert map_shapes(out["deltas"]) == {level: (*x.shape[:3], 32) for level, x in maps.items()}


@pytest.mark.parametrize(
    ("channels", "classes", "bins", "box_width", "class_width"),
    # The widest of each rule in turn: 16, C / 4, 4 R for boxes; C, K, 100 for classes.
    [(8, 3, 2, 16, 8), (256, 80, 16, 64, 256), (512, 5, 16, 128, 512), (64, 80, 16, 64, 80), (64, 365, 16, 64, 100)],
)
def test_head_widths(channels, classes, bins, box_width, class_width):
    _, variables = form(DecoupledHead(classes, bins, levels=("p3",)), features(p3=channels))
    params = variables["params"]
    assert params["box_p3_0"]["conv"]["kernel"].shape == (3, 3, channels, box_width)
    assert params["box_p3_out"]["kernel"].shape == (1, 1, box_width, 4 * bins)
    assert params["class_p3_1"]["conv"]["kernel"].shape == (3, 3, class_width, class_width)
    assert params["class_p3_out"]["kernel"].shape == (1, 1, class_width, classes)


def test_head_biases_start_at_the_prior_of_their_level():
    maps = jax.tree.map(lambda x: jnp.zeros(x.shape), features(p3=4, p4=4, p5=4))
    # Only the biases are asked for: the compiler leaves the rest of the start out.
    biases = jax.jit(
        lambda: {
            name: layer["bias"]
            for name, layer in DecoupledHead(num_classes=80, bins=2).init(KEY, maps, False)["params"].items()
            if name.endswith("_out")
        }
    )()
    # 5 objects an image of 640 px, over 80 classes and 80, 40 and 20 cells a side.
    for level, cells in (("p3", 80), ("p4", 40), ("p5", 20)):
        np.testing.assert_allclose(biases[f"class_{level}_out"], np.full(80, math.log(5 / 80 / cells**2)), rtol=1e-6)
        np.testing.assert_array_equal(biases[f"box_{level}_out"], np.ones(8))


def test_parameter_paths():
    _, variables = form(TINY, IMAGE)
    assert set(variables) == {"params", "batch_stats"}
    for collection in variables.values():
        assert set(collection) == {"backbone", "neck", "heads_box"}


def test_a_head_that_is_left_out_costs_nothing():
    both = TINY.clone(heads={"box": TINY.heads["box"], "other": DecoupledHead(num_classes=7, bins=4)})
    out, variables = form(both, IMAGE)
    assert set(out) == {"box", "other"}
    assert set(variables["params"]) == {"backbone", "neck", "heads_box", "heads_other"}
    alone, _ = form(TINY, IMAGE)
    assert set(alone) == {"box"}
    none, variables = form(TINY.clone(heads={}), IMAGE)
    assert none == {}
    assert set(variables["params"]) == {"backbone", "neck"}


@pytest.mark.slow
def test_evaluation_leaves_the_statistics_alone_and_treats_each_image_alone(tiny):
    out, updated = evaluate(tiny, IMAGE)
    jax.tree.map(np.testing.assert_array_equal, updated["batch_stats"], tiny["batch_stats"])
    swapped, _ = evaluate(tiny, IMAGE[::-1])
    for x, y in zip(jax.tree.leaves(out), jax.tree.leaves(swapped), strict=True):
        np.testing.assert_allclose(x, y[::-1], atol=1e-5)
    # The two images are told apart at all.
    assert np.abs(out["box"].logits["p3"][0] - out["box"].logits["p3"][1]).max() > 1e-3


@pytest.mark.slow
def test_training_moves_the_statistics_of_every_norm_and_evaluation_reads_them(tiny):
    train = jax.jit(lambda v, x: TINY.apply(v, x, train=True, mutable=["batch_stats"]))
    out, updated = train(tiny, IMAGE)
    moved = jax.tree.map(lambda x, y: bool((np.asarray(x) != y).any()), updated["batch_stats"], tiny["batch_stats"])
    assert all(jax.tree.leaves(moved))
    before, _ = evaluate(tiny, IMAGE)
    after, _ = evaluate(tiny | updated, IMAGE)
    assert np.abs(before["box"].logits["p3"] - after["box"].logits["p3"]).max() > 1e-4
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(out))


def test_outputs_are_float32_whatever_the_arithmetic(tiny):
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), tiny["params"])
    out = jax.eval_shape(
        lambda v, x: plain(TINY.apply(v, x, train=False)), tiny | {"params": half}, IMAGE.astype(jnp.bfloat16)
    )
    assert {x.dtype for x in jax.tree.leaves(out)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("limit", [0.0, 1e-9])
def test_a_head_whose_gradient_is_limited_to_nothing_learns_but_does_not_teach(limit: float) -> None:
    head = DecoupledHead(num_classes=3, bins=4)
    network = TINY.clone(heads={"first": head, "second": head.clone()})
    # Any numbers: the initialisers of sixty layers take most of a minute to compile.
    random = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: (random.normal if leaf.ndim > 1 else random.uniform)(0.1, 0.4, leaf.shape).astype(np.float32),
        jax.eval_shape(functools.partial(network.init, train=False), KEY, IMAGE),
    )

    def gradient(network: Network, *names: str):
        def loss(params):
            outputs = network.apply({**variables, "params": params}, IMAGE, train=False)
            return sum((leaf**2).sum() for name in names for leaf in jax.tree.leaves(plain(outputs[name])))

        return jax.jit(jax.grad(loss))(variables["params"])

    both = gradient(network.clone(gradient_limits={"second": limit}), "first", "second")
    alone, free = gradient(network, "first"), gradient(network, "first", "second")

    def differ(one, other) -> float:
        """The greatest difference of two gradients, relative to the greatest entry of the same array."""
        worst = jax.tree.map(lambda a, b: np.abs(a - b).max() / np.abs(b).max(), one, other)
        return max(jax.tree.leaves(worst))

    for name in ("backbone", "neck"):
        assert differ(both[name], alone[name]) < 1e-3
        assert differ(both[name], free[name]) > 0.1
    second = next(name for name in both if name.endswith("second"))
    assert differ(both[second], free[second]) == 0


def test_a_gradient_limit_of_no_head_is_refused() -> None:
    with pytest.raises(ValueError, match="gradient_limits names masks, the heads are box"):
        jax.eval_shape(lambda: TINY.clone(gradient_limits={"masks": 1.0}).init(KEY, IMAGE, train=False))
