"""Ylosia's detector against the network of its widths as PyTorch has it, built here from its published structure."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity.record import record
from parity.reference import exact, numpy, randomise, state_of, torch

from ylosia_jax.convert.layout import path_of, to_torch, to_variables
from ylosia_jax.convert.layouts import LAYOUTS, choose
from ylosia_jax.convert.ylosia import YLOSIA
from ylosia_jax.ops import points
from ylosia_jax.systems.ylosia import SCALES, ylosia
from ylosia_jax.types import UserError

nn: Any = torch.nn
BINS = 16
PARAMETERS = {"n": 3_157_184, "s": 11_166_544, "m": 25_902_624, "l": 43_691_504, "x": 68_229_632}


class ConvBn(nn.Module):
    def __init__(self, inputs, outputs, kernel=1, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x):
        return nn.functional.silu(self.bn(self.conv(x)))


class Pair(nn.Module):
    def __init__(self, width, added):
        super().__init__()
        self.cv1, self.cv2, self.added = ConvBn(width, width, 3), ConvBn(width, width, 3), added

    def forward(self, x):
        y = self.cv2(self.cv1(x))
        return x + y if self.added else y


class Stage(nn.Module):
    def __init__(self, inputs, outputs, depth, added):
        super().__init__()
        half = outputs // 2
        self.cv1, self.cv2 = ConvBn(inputs, outputs), ConvBn((2 + depth) * half, outputs)
        self.m = nn.ModuleList(Pair(half, added) for _ in range(depth))

    def forward(self, x):
        seen = list(torch.chunk(self.cv1(x), 2, dim=1))
        for pair in self.m:
            seen.append(pair(seen[-1]))
        return self.cv2(torch.cat(seen, dim=1))


class Pooling(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.cv1, self.cv2 = ConvBn(width, width // 2), ConvBn(2 * width, width)

    def forward(self, x):
        seen = [self.cv1(x)]
        for _ in range(3):
            seen.append(nn.functional.max_pool2d(seen[-1], 5, 1, 2))
        return self.cv2(torch.cat(seen, dim=1))


class Detect(nn.Module):
    """Boxes in pixels and class logits of all points; a side's distance is in strides: left, top, right, bottom."""

    def __init__(self, widths, num_classes):
        super().__init__()
        box, of_class = max(16, widths[0] // 4, 4 * BINS), max(widths[0], min(num_classes, 100))

        def branch(inputs, width, outputs):
            return nn.Sequential(ConvBn(inputs, width, 3), ConvBn(width, width, 3), nn.Conv2d(width, outputs, 1))

        self.cv2 = nn.ModuleList(branch(width, box, 4 * BINS) for width in widths)
        self.cv3 = nn.ModuleList(branch(width, of_class, num_classes) for width in widths)
        self.dfl = nn.Module()
        self.dfl.conv = nn.Conv2d(BINS, 1, 1, bias=False)
        self.dfl.conv.weight.data[:] = torch.arange(float(BINS)).reshape(1, BINS, 1, 1)

    def forward(self, levels):
        raw = [torch.cat((b(x), c(x)), 1).flatten(2) for b, c, x in zip(self.cv2, self.cv3, levels, strict=True)]
        boxes, logits = torch.cat(raw, 2).split((4 * BINS, raw[0].shape[1] - 4 * BINS), dim=1)
        batch, _, count = boxes.shape
        shares = boxes.reshape(batch, 4, BINS, count).permute(0, 2, 1, 3).softmax(1)
        left_top, right_bottom = self.dfl.conv(shares).reshape(batch, 4, count).chunk(2, dim=1)
        centres, strides = [], []
        for stride, x in zip((8, 16, 32), levels, strict=True):
            y, x = torch.meshgrid(*(torch.arange(size) + 0.5 for size in x.shape[2:]), indexing="ij")
            centres.append(torch.stack((x, y)).flatten(1))
            strides += [stride] * y.numel()
        centre = torch.cat(centres, dim=1)
        return torch.cat((centre - left_top, centre + right_bottom), 1) * torch.tensor(strides), logits


class Nothing(nn.Module):
    """Enlarging and concatenating count as layers."""


class Twin(nn.Module):
    def __init__(self, scale, num_classes):
        super().__init__()
        deep, wide, most = SCALES[scale]
        a, b, c, d, e = (round(min(width, most) * wide) for width in (64, 128, 256, 512, 1024))
        short, long = max(round(3 * deep), 1), max(round(6 * deep), 1)
        backbone = [ConvBn(3, a, 3, 2), ConvBn(a, b, 3, 2), Stage(b, b, short, True)]
        backbone += [ConvBn(b, c, 3, 2), Stage(c, c, long, True), ConvBn(c, d, 3, 2), Stage(d, d, long, True)]
        backbone += [ConvBn(d, e, 3, 2), Stage(e, e, short, True), Pooling(e)]
        neck = [Nothing(), Nothing(), Stage(e + d, d, short, False), Nothing(), Nothing()]
        neck += [Stage(d + c, c, short, False), ConvBn(c, c, 3, 2), Nothing(), Stage(c + d, d, short, False)]
        neck += [ConvBn(d, d, 3, 2), Nothing(), Stage(d + e, e, short, False)]
        self.model = nn.ModuleList([*backbone, *neck, Detect((c, d, e), num_classes)])

    def forward(self, x):
        def larger(x):
            return nn.functional.interpolate(x, scale_factor=2, mode="nearest")

        layers, seen = self.model, []
        for layer in layers[:10]:
            x = layer(x)
            seen.append(x)
        middle = layers[12](torch.cat((larger(x), seen[6]), 1))
        fine = layers[15](torch.cat((larger(middle), seen[4]), 1))
        middle = layers[18](torch.cat((layers[16](fine), middle), 1))
        coarse = layers[21](torch.cat((layers[19](middle), x), 1))
        return layers[22]((fine, middle, coarse))


def form_of(network, size=64):
    return jax.eval_shape(lambda key: network.init(key, jnp.zeros((1, size, size, 3)), train=False), jax.random.key(0))


def leaves_of(form):
    return [path_of(path).partition("/")[2] for path, _ in jax.tree_util.tree_leaves_with_path(form)]


@pytest.mark.parametrize("scale", SCALES)
def test_every_tensor_of_every_scale_has_its_place(scale):
    network, _ = ylosia(scale, num_classes=80)
    form = form_of(network)
    with torch.device("meta"):
        twin = Twin(scale, 80)
    state = twin.state_dict()
    learned = {name: p for name, p in twin.named_parameters() if "dfl" not in name}
    assert sum(p.numel() for p in learned.values()) == PARAMETERS[scale]
    assert state["model.22.dfl.conv.weight"].shape == (1, 16, 1, 1)
    wanted = {
        YLOSIA.name_of(path_of(path).partition("/")[2]): to_torch(np.empty(leaf.shape, bool), path_of(path).split("/")[-1])
        for path, leaf in jax.tree_util.tree_leaves_with_path(form)
    }
    held = {name: tuple(t.shape) for name, t in state.items() if "num_batches" not in name and "dfl" not in name}
    assert {name: value.shape for name, value in wanted.items()} == held


def test_it_is_the_same_network():
    network, _ = ylosia("n", num_classes=7)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        twin = randomise(Twin("n", 7)).eval()
    state = state_of(twin)
    form = form_of(network)
    assert choose(state, leaves_of(form)) is YLOSIA
    variables = to_variables(state, YLOSIA, form)
    image = np.random.default_rng(0).random((2, 96, 128, 3), np.float32)
    options = {"xla_backend_optimization_level": 0}

    def forward(variables, image):
        dense = network.apply(variables, image, train=False)["box"]
        distances = points.expect_distances(points.flatten_levels(dense.deltas), BINS)
        place = points.anchor_points({level: x.shape[1:3] for level, x in dense.logits.items()})
        return points.decode_distances(distances, *place), points.flatten_levels(dense.logits)

    with exact():
        with torch.no_grad():
            theirs = [numpy(y).transpose(0, 2, 1) for y in twin(torch.from_numpy(image.transpose(0, 3, 1, 2)))]
        ours = jax.jit(forward, compiler_options=options)(variables, image)
    boxes, logits = (np.abs(a - b).max() for a, b in zip(ours, theirs, strict=True))
    # Sides and classes are not all alike, or it would prove nothing.
    assert np.abs(np.diff(theirs[0][..., 2:] + theirs[0][..., :2], axis=-1)).min() > 0
    assert theirs[1].std(axis=-1).min() > 1e-2
    record("ylosia (n)", "forward", float(logits), 1e-4)
    record("ylosia (n)", "boxes (px)", float(boxes), 0.01)


def test_another_number_of_classes_is_named():
    form = form_of(ylosia("n", num_classes=3)[0])
    state = state_of(Twin("n", 80))
    with pytest.raises(UserError, match=r"36 misshapen: model\.22\.cv3\.0\.0\.bn\.running_mean is \[80\]"):
        to_variables(state, YLOSIA, form)


def test_the_names_of_layouts_are_their_own():
    names = [layout.name for layout in LAYOUTS]
    assert len(set(names)) == len(names)
