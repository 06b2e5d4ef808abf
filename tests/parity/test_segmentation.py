"""FCN and DeepLabv3 against torchvision's, DeepLabv3+ against a twin made of torch's layers, at two sizes."""

import copy
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity.record import record
from parity.reference import exact, narrowed, numpy, randomise, settle, state_of, torch, torchvision
from parity.training import compare_gradients, compare_steps, loss_and_gradients

from ylosia_jax.convert.layout import Layout, to_variables, within
from ylosia_jax.convert.resnet import RESNET
from ylosia_jax.convert.segmentation import DEEPLABV3, FCN
from ylosia_jax.models.backbones.resnet import ResNet
from ylosia_jax.systems.segmentation import deeplabv3, deeplabv3_plus, fcn
from ylosia_jax.train.questions import task_losses
from ylosia_jax.types import VOID, Batch, Objects

CLASSES = 5
SEPARABLE = {"depthwise/conv": "0", "depthwise/norm": "1", "mix/conv": "3", "mix/norm": "4"}
PLUS_HEAD = (
    *((rf"(aspp/)?{name}/conv", f"{name}.0") for name in ("point", "project", "low")),
    *((rf"(aspp/)?{name}/norm", f"{name}.1") for name in ("point", "project", "low")),
    ("aspp/pool/conv", "pool.1"),
    ("aspp/pool/norm", "pool.2"),
    *((f"aspp/rate{i + 1}/{ours}", f"rates.{i}.{number}") for i in range(3) for ours, number in SEPARABLE.items()),
    *((f"hidden{i + 1}/{ours}", f"decoder.{i}.{number}") for i in range(2) for ours, number in SEPARABLE.items()),
    ("out", "out"),
)
PLUS = Layout("twin", (*within("backbone/", "backbone.", RESNET), *within("heads_semantic/", "", PLUS_HEAD)))
SYSTEMS = {"fcn": FCN, "deeplabv3": DEEPLABV3, "deeplabv3_plus": PLUS}
SIZES = ("small", pytest.param("full", marks=pytest.mark.full))
NARROW = 16  # the width of the small networks' first stage
SLIM = 8  # and how many times slimmer their DeepLab heads are
RATES = {"small": 2e-4, "full": 2e-5}  # of the twenty steps
# Height and width of the images of which answers are compared, and of those that are learned. The dilations of the
# first reach into the picture; on the second the small networks' twenty steps take seconds.
CANVASES = {"small": ((96, 128), (64, 64)), "full": ((256, 320), (128, 160))}


@dataclasses.dataclass
class Pair:
    """A system of ours and its reference, with the same weights."""

    name: str
    network: Any
    tasks: dict[str, Any]
    model: Any
    layout: Layout
    variables: Any

    def images(self, batch: Batch, kind: Any = None) -> Any:
        """Scaled in double precision: rounded before, they would be other pixels than ours."""
        scale = self.network.pixels
        pixels = (np.asarray(batch.image, np.float64) - scale.mean) / scale.std
        return torch.tensor(pixels).permute(0, 3, 1, 2).contiguous().to(kind or torch.float32)


@functools.cache
def pair(system: str, size: str) -> Pair:
    torch.manual_seed(0)
    make = {"fcn": fcn, "deeplabv3": deeplabv3, "deeplabv3_plus": deeplabv3_plus}[system]
    network, tasks = make(CLASSES)
    # Dropout would draw other numbers in torch.
    heads = {name: head.clone(dropout=0.0) for name, head in network.heads.items()}
    if size == "small":
        body = ResNet((1, 1, 2, 2), width=NARROW, output_stride=network.backbone.output_stride)
        if system != "fcn":
            heads["semantic"] = heads["semantic"].clone(width=256 // SLIM)
        network = network.clone(backbone=body, heads=heads)
    else:
        network = network.clone(heads=heads)
    model = randomise(reference(system, network.backbone))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(module, torch.nn.Conv2d) and module.out_channels == CLASSES:
            # As they are drawn, logits hardly differ. In full size float32 itself, torch's own too, is up to 3e-4 from
            # float64 where they reach 16.
            module.weight.data *= 8 if size == "small" else 2
    if size == "full":
        # Colours less their mean, over their spread.
        pixels = (np.asarray(make_batch(2, CANVASES[size][0]).image) - 0.45) / 0.23
        settle(model, lambda: model.eval()(torch.tensor(pixels).permute(0, 3, 1, 2).contiguous()))
    form = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False))
    variables = to_variables(state_of(model), SYSTEMS[system], form)
    name = system if size == "small" else f"{system} (ResNet-50)"
    return Pair(name, network, tasks, model, SYSTEMS[system], variables)


def reference(system: str, body: ResNet) -> Any:
    """torchvision's model, or the twin, on a ResNet of bottlenecks."""
    found, last = torchvision().models, 32 * body.width
    dilate = [False, system != "deeplabv3_plus", True]
    make = found.resnet.ResNet if body.width == 64 else narrow_resnet
    resnet = make(found.resnet.Bottleneck, list(body.depths), replace_stride_with_dilation=dilate)
    if system == "deeplabv3_plus":
        return Plus(resnet, last, 256 if body.width == 64 else 256 // SLIM)
    features = found._utils.IntermediateLayerGetter(resnet, {"layer4": "out", "layer3": "aux"})
    auxiliary = found.segmentation.fcn.FCNHead(last // 2, CLASSES)
    if system == "fcn":
        return found.segmentation.fcn.FCN(features, found.segmentation.fcn.FCNHead(last, CLASSES), auxiliary)
    slim = 1 if body.width == 64 else SLIM
    head = narrowed(found.segmentation.deeplabv3.DeepLabHead(slim * last, CLASSES), slim, keep=CLASSES)
    return found.segmentation.deeplabv3.DeepLabV3(features, head, auxiliary)


def narrow_resnet(*args: Any, **options: Any) -> Any:
    """torchvision's, of a quarter of the width."""

    class Narrow(torchvision().models.resnet.ResNet):
        def _make_layer(self, block: Any, planes: int, *args: Any, **options: Any) -> Any:
            if planes == 64:
                self.inplanes = NARROW
            return super()._make_layer(block, planes * NARROW // 64, *args, **options)

    resnet = Narrow(*args, **options)
    resnet.conv1 = torch.nn.Conv2d(3, NARROW, 7, stride=2, padding=3, bias=False)
    resnet.bn1 = torch.nn.BatchNorm2d(NARROW)
    return resnet


def normed(features: int, out: int, kernel: int = 1, dilation: int = 1, groups: int = 1) -> list[Any]:
    nn, pad = torch.nn, dilation * (kernel // 2)
    conv = nn.Conv2d(features, out, kernel, padding=pad, dilation=dilation, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out), nn.ReLU()]


def separable(features: int, out: int, dilation: int = 1) -> Any:
    return torch.nn.Sequential(*normed(features, features, 3, dilation, features), *normed(features, out))


class Plus(torch.nn.Module):
    """DeepLabv3+ as sections 3.1, 3.2 and 4 of arXiv:1802.02611 have it, at output stride 16."""

    def __init__(self, resnet: Any, last: int, width: int) -> None:
        super().__init__()
        nn = torch.nn
        self.backbone = torchvision().models._utils.IntermediateLayerGetter(resnet, {"layer1": "low", "layer4": "out"})
        self.point = nn.Sequential(*normed(last, width))
        self.rates = nn.ModuleList(separable(last, width, rate) for rate in (6, 12, 18))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), *normed(last, width))
        self.project = nn.Sequential(*normed(5 * width, width))
        self.low = nn.Sequential(*normed(last // 8, 48))
        self.decoder = nn.Sequential(separable(width + 48, width), separable(width, width))
        self.out = nn.Conv2d(width, CLASSES, 1)

    def forward(self, image: Any) -> dict[str, Any]:
        features = self.backbone(image)
        x, low = features["out"], features["low"]
        size = {"mode": "bilinear", "align_corners": False}
        views = [self.point(x), *(rate(x) for rate in self.rates)]
        views.append(torch.nn.functional.interpolate(self.pool(x), x.shape[2:], **size))
        x = torch.nn.functional.interpolate(self.project(torch.cat(views, dim=1)), low.shape[2:], **size)
        x = self.out(self.decoder(torch.cat([x, self.low(low)], dim=1)))
        return {"out": torch.nn.functional.interpolate(x, image.shape[2:], **size)}


def make_batch(count: int, canvas: tuple[int, int]) -> Batch:
    """Images whose maps are of blocks, and void in places."""
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 1, (count, *canvas, 3)).astype(np.float32)
    blocks = rng.integers(0, CLASSES + 1, (count, canvas[0] // 16, canvas[1] // 16))
    semantic = np.where(blocks == CLASSES, VOID, blocks).repeat(16, 1).repeat(16, 2).astype(np.uint8)
    none = np.zeros((count, 1), bool)
    return Batch(
        image=jnp.asarray(image),
        extent=jnp.ones((count, 2)) * jnp.array(canvas),
        size=jnp.ones((count, 2)) * jnp.array(canvas),
        index=jnp.arange(count),
        epoch=jnp.zeros(count, int),
        objects=Objects(jnp.zeros((count, 1, 4)), jnp.zeros((count, 1), int), jnp.asarray(none), jnp.asarray(none)),
        semantic=jnp.asarray(semantic),
    )


def torch_loss(pair: Pair, model: Any, batch: Batch, kind: Any) -> Any:
    """What torchvision's reference training minimises, in numbers of a type."""
    truth = torch.tensor(np.array(batch.semantic)).long()
    answers = model(pair.images(batch, kind)).items()
    each = {name: torch.nn.functional.cross_entropy(x, truth, ignore_index=VOID) for name, x in answers}
    return each["out"] + 0.5 * each.get("aux", 0.0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("system", SYSTEMS)
def test_forward(system: str, size: str) -> None:
    found, batch = pair(system, size), make_batch(2, CANVASES[size][0])
    names = {"out": "semantic", "aux": "auxiliary"}

    @jax.jit
    def run(variables: Any, image: Any) -> Any:
        outputs = found.network.apply(variables, image, train=False)
        shape = (*image.shape[:3], CLASSES)
        enlarged = {name: jax.image.resize(x, shape, "linear", antialias=False) for name, x in outputs.items()}
        return enlarged, found.tasks["semantic"].decode(outputs, {}).labels

    with exact(), torch.no_grad():
        ours, labels = run(found.variables, batch.image)
        theirs = {
            names[name]: numpy(x).transpose(0, 2, 3, 1) for name, x in found.model.eval()(found.images(batch)).items()
        }
    assert set(ours) == set(theirs)
    assert min(np.std(x) for x in theirs.values()) > 0.3
    for name, wanted in theirs.items():
        record(found.name, "forward", float(np.abs(ours[name] - wanted).max()), 1e-4)
    best = theirs["semantic"]
    top = np.sort(best, axis=-1)
    sure = top[..., -1] - top[..., -2] > 2e-4  # else rounding decides
    assert sure.mean() > 0.99
    np.testing.assert_array_equal(np.asarray(labels)[sure], best.argmax(axis=-1)[sure])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("system", SYSTEMS)
def test_loss_gradient_and_twenty_steps(system: str, size: str) -> None:
    """Four images: of two, batch norm makes +1 and -1 of the pooled level, whatever it is."""
    found, batch = pair(system, size), make_batch(4, CANVASES[size][1])
    model = copy.deepcopy(found.model).train()

    def ours(params: Any, others: Any, batch: Batch) -> tuple[Any, Any]:
        outputs, updated = found.network.apply(
            {"params": params, **others}, batch.image, train=True, mutable=list(others)
        )
        return task_losses(found.tasks, outputs, batch)["semantic"][0], updated

    def theirs(model: Any, kind: Any) -> Any:
        return torch_loss(found, model, batch, kind)

    with exact():
        params = found.variables["params"]
        others = {name: value for name, value in found.variables.items() if name != "params"}
        (loss, _), grads = jax.device_get(jax.jit(jax.value_and_grad(ours, has_aux=True))(params, others, batch))
        wanted, _ = loss_and_gradients(model, theirs, torch.float32)
        record(found.name, "loss", abs(loss / wanted - 1), 1e-5)
        compare_gradients(found.name, grads, model, theirs, found.layout, rounding=True)
        lr, small = RATES[size], size == "small"
        compare_steps(found.name, ours, found.variables, batch, model, theirs, found.layout, lr=lr, small=small)
