"""Classifiers against torchvision's: forward, loss, gradient of one step and the losses of twenty.

Dropout is off on both sides: nobody draws the same numbers. One image of each batch has no label.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity.record import record
from parity.reference import exact, narrowed, numpy, randomise, settle, state_of, torch, torchvision
from parity.training import compare_gradients, compare_steps, loss_and_gradients, restored

from ylosia_jax.convert import classifiers as layouts
from ylosia_jax.convert.layout import Layout, to_variables
from ylosia_jax.models.backbones.alexnet import AlexNet
from ylosia_jax.models.backbones.densenet import DenseNet
from ylosia_jax.models.backbones.mobilenet import MobileNetV2
from ylosia_jax.models.backbones.resnet import ResNet
from ylosia_jax.models.backbones.vgg import VGG
from ylosia_jax.models.heads.classify import ClassifyHead, DenseClassifyHead
from ylosia_jax.nn.pixels import IMAGENET
from ylosia_jax.systems import classifiers as systems
from ylosia_jax.tasks.classify import Classify
from ylosia_jax.train.questions import task_losses
from ylosia_jax.types import Batch, Objects

CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Case:
    """The same network twice.

    Attributes:
      learns: whether loss, gradient and steps are compared too.
    """

    theirs: Callable[[], Any]
    ours: Callable[[], systems.System]
    layout: Layout
    size: tuple[int, int] = (64, 96)
    lr: float = 0.01
    learns: bool = True


def models() -> Any:
    return torchvision().models


def of(backbone: Any, head: Any) -> systems.System:
    network = systems.Network(backbone=backbone, neck=None, heads={"classification": head}, pixels=IMAGENET)
    return network, {"classification": Classify(CLASSES)}


def narrow_head(pool: int) -> DenseClassifyHead:
    return DenseClassifyHead(CLASSES, pool=pool, hidden=(256, 256), dropout=(0.0, 0.0, 0.0))


def narrow_vgg(batch_norm: bool) -> Case:
    name = "vgg16_bn" if batch_norm else "vgg16"
    return Case(
        theirs=lambda: narrowed(getattr(models(), name)(num_classes=CLASSES), 16, keep=CLASSES),
        ours=lambda: of(VGG(widths=(4, 8, 16, 32, 32), batch_norm=batch_norm), narrow_head(7)),
        layout=layouts.VGG16_BN if batch_norm else layouts.VGG16,
        lr=0.001,
    )


def short_resnet(bottleneck: bool) -> Case:
    kind = "Bottleneck" if bottleneck else "BasicBlock"
    return Case(
        theirs=lambda: narrowed(
            models().ResNet(getattr(models().resnet, kind), [1, 1, 1, 1], num_classes=CLASSES), 8, keep=CLASSES
        ),
        ours=lambda: of(ResNet((1, 1, 1, 1), bottleneck, width=8), ClassifyHead(CLASSES)),
        layout=layouts.RESNET_CLASSIFIER,
    )


STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 1, 2), (6, 96, 2, 2), (6, 160, 1, 2))

# Their code, in bodies that compile and run in seconds.
SMALL = {
    "alexnet (narrow)": Case(
        theirs=lambda: narrowed(models().alexnet(num_classes=CLASSES), 16, keep=CLASSES),
        ours=lambda: of(AlexNet((4, 12, 24, 16, 16)), narrow_head(6)),
        layout=layouts.ALEXNET,
    ),
    "vgg16 (narrow)": narrow_vgg(False),
    "vgg16_bn (narrow)": narrow_vgg(True),
    "resnet (basic, short)": short_resnet(False),
    "resnet (bottleneck, short)": short_resnet(True),
    "densenet (short)": Case(
        theirs=lambda: models().DenseNet(8, (2, 2, 3, 2), 32, num_classes=CLASSES),
        ours=lambda: of(DenseNet((2, 2, 3, 2), 8, 32), ClassifyHead(CLASSES)),
        layout=layouts.densenet(),
    ),
    "mobilenet_v2 (short)": Case(
        theirs=lambda: models().MobileNetV2(CLASSES, 0.35, [list(stage) for stage in STAGES]),
        ours=lambda: of(MobileNetV2(0.35, STAGES), ClassifyHead(CLASSES)),
        layout=layouts.mobilenet_v2(7),
    ),
}


def full(name: str, ours: Callable[[], systems.System], layout: Layout, lr: float = 1e-3) -> Case:
    """`lr`: less where steps would overshoot, which makes much of rounding."""
    # As it is where published weights are asked for.
    extra = {"init_weights": True, "transform_input": True} if name == "googlenet" else {}
    return Case(lambda: getattr(models(), name)(num_classes=CLASSES, **extra), ours, layout, (96, 128), lr)


FULL = {
    "alexnet": full("alexnet", lambda: systems.alexnet(CLASSES, dropout=0.0), layouts.ALEXNET, 1e-5),
    "vgg16": full("vgg16", lambda: systems.vgg16(CLASSES, dropout=0.0), layouts.VGG16, 2e-6),
    "vgg16(batch_norm=True)": full(
        "vgg16_bn", lambda: systems.vgg16(CLASSES, batch_norm=True, dropout=0.0), layouts.VGG16_BN
    ),
    "googlenet": full(
        "googlenet",
        lambda: systems.googlenet(CLASSES, dropout=0.0, auxiliary_dropout=0.0),
        layouts.googlenet(),
        2e-5,
    ),
    "resnet(18)": full("resnet18", lambda: systems.resnet(18, CLASSES), layouts.RESNET_CLASSIFIER),
    "resnet(34)": full("resnet34", lambda: systems.resnet(34, CLASSES), layouts.RESNET_CLASSIFIER),
    "resnet(50)": full("resnet50", lambda: systems.resnet(50, CLASSES), layouts.RESNET_CLASSIFIER),
    "resnet(101)": full("resnet101", lambda: systems.resnet(101, CLASSES), layouts.RESNET_CLASSIFIER),
    "densenet121": full("densenet121", lambda: systems.densenet121(CLASSES), layouts.densenet()),
    "mobilenet_v2": full(
        "mobilenet_v2", lambda: systems.mobilenet_v2(CLASSES, dropout=0.0), layouts.mobilenet_v2(), 1e-4
    ),
}
# It cannot be made shorter, and takes long to compile: here forward alone.
SMALL["googlenet (forward)"] = dataclasses.replace(FULL["googlenet"], size=(64, 80), learns=False)


def prepared(model: Any) -> Any:
    """Without dropout, and with weights and statistics from which logits of about 1 come."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(module.weight)
    return randomise(model)


def their_image(image: np.ndarray) -> Any:
    """As torchvision's networks want it."""
    scaled = (image - np.array(IMAGENET.mean, image.dtype)) / np.array(IMAGENET.std, image.dtype)
    return torch.from_numpy(scaled.transpose(0, 3, 1, 2).copy())


def batch_of(image: np.ndarray, category: np.ndarray) -> Batch:
    count = len(image)
    size = jnp.full((count, 2), 64.0)
    nothing = jnp.zeros((count, 0), jnp.int32)
    objects = Objects(jnp.zeros((count, 0, 4)), nothing, nothing > 0, nothing > 0)
    index = jnp.arange(count)
    return Batch(jnp.asarray(image), size, size, index, index, objects, category=jnp.asarray(category))


def their_loss(found: Any, labels: Any) -> Any:
    """GoogLeNet answers thrice in training."""
    cross = torch.nn.CrossEntropyLoss(ignore_index=-1)
    if not isinstance(found, tuple):
        return cross(found, labels)
    return cross(found.logits, labels) + 0.3 * (cross(found.aux_logits1, labels) + cross(found.aux_logits2, labels))


def compare(name: str, case: Case, *, small: bool) -> None:
    rng = np.random.default_rng(0)
    image = rng.uniform(size=(4, *case.size, 3)).astype(np.float32)
    batch = batch_of(image, np.array([3, -1, 7, 0]))
    torch.manual_seed(0)
    model = prepared(case.theirs()).eval()
    if not small:
        settle(model, lambda: model(their_image(image)))
    network, tasks = case.ours()
    form: Any = jax.eval_shape(lambda: network.init(jax.random.key(0), batch.image, train=False))
    variables = to_variables(state_of(model), case.layout, form)
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == sum(x.numel() for x in model.parameters())

    @jax.jit
    def forward(variables: Any, image: Any) -> Any:
        return network.apply(variables, image, train=False)["classification"]

    def answer(params: Any, others: Any, batch: Batch) -> tuple[Any, Any]:
        outputs, updated = network.apply({"params": params, **others}, batch.image, train=True, mutable=list(others))
        return sum(value for value, _ in task_losses(tasks, outputs, batch).values()), (outputs, updated)

    def ours(params: Any, others: Any, batch: Batch) -> tuple[Any, Any]:
        loss, (_, updated) = answer(params, others, batch)
        return loss, updated

    def theirs(model: Any, kind: Any) -> Any:
        # Scaled in that type: rounded before, they would be other pixels than ours.
        pixels = their_image(image.astype(np.float64)).to(kind)
        return their_loss(model(pixels), torch.tensor(batch.category.tolist()))

    with exact():
        with torch.no_grad():
            wanted = numpy(model(their_image(image)))
        assert np.abs(wanted).max() > 0.3
        record(name, "forward", np.abs(forward(variables, image) - wanted).max(), 1e-4)
        if not case.learns:
            return
        model.train()
        params = variables["params"]
        others = {name: value for name, value in variables.items() if name != "params"}
        run = jax.jit(jax.value_and_grad(answer, has_aux=True))
        (loss, (outputs, _)), grads = jax.device_get(run(params, others, batch))
        if "aux1" in outputs:
            with restored(model), torch.no_grad():
                found = model(their_image(image))
            pairs = (("aux1", found.aux_logits1), ("aux2", found.aux_logits2))
            off = max(np.abs(outputs[head] - numpy(logits)).max() for head, logits in pairs)
            record(name, "forward", off, 1e-4)
        wanted, _ = loss_and_gradients(model, theirs, torch.float32)
        record(name, "loss", abs(loss / wanted - 1), 1e-5)
        # A bias before a batch norm, or a scale that all readers divide by, has a gradient of rounding errors, about
        # 1e-7 of the whole gradient's norm: at the bound of 1e-3 such a one may be off by a millionth of the whole.
        floor = 1e-3
        compare_gradients(name, grads, model, theirs, case.layout, floor=floor, rounding=not small)
        compare_steps(name, ours, variables, batch, model, theirs, case.layout, lr=case.lr, small=small, floor=floor)


@pytest.mark.parametrize("name", SMALL)
def test_small(name: str) -> None:
    compare(name, SMALL[name], small=True)


@pytest.mark.full
@pytest.mark.parametrize("name", FULL)
def test_full(name: str) -> None:
    compare(name, FULL[name], small=False)


def real_images(shared: Path, side: int) -> np.ndarray:
    paths = sorted((shared / "data/coco-instances").rglob("*.jpg"))[:8]
    assert len(paths) == 8
    return np.stack([cv2.resize(cv2.imread(str(path)), (side, side))[..., ::-1] for path in paths]) / np.float32(255)


def our_logits(system: systems.System, tensors: dict[str, np.ndarray], layout: Layout, image: np.ndarray) -> np.ndarray:
    network, _ = system
    form: Any = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.asarray(image), train=False))
    variables = to_variables(tensors, layout, form)
    forward = jax.jit(lambda v, x: network.apply(v, x, train=False)["classification"])
    return np.asarray(forward(variables, image))


def test_published_mobilenet_v2(shared: Path) -> None:
    path = shared / "weights/mobilenet_v2-torchvision/mobilenet_v2-b0353104.pth"
    model = models().mobilenet_v2()
    model.load_state_dict(torch.load(path, weights_only=True))
    image = real_images(shared, 224)
    with exact(), torch.no_grad():
        wanted = numpy(model.eval()(their_image(image)))
        found = our_logits(systems.mobilenet_v2(1000), state_of(model), layouts.mobilenet_v2(), image)
    record("mobilenet_v2", "published weights, real images", np.abs(found - wanted).max(), 1e-4)


@pytest.mark.parametrize(("layers", "file"), [(20, "resnet20-12fca82f.th"), (56, "resnet56-4bfd9763.th")])
def test_published_resnet_cifar(shared: Path, layers: Any, file: str) -> None:
    path = shared / "weights/resnet-cifar10" / file
    saved = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    tensors = {name.removeprefix("module."): tensor for name, tensor in saved.items()}
    image = real_images(shared, 32)
    with exact(), torch.no_grad():
        wanted = numpy(cifar_logits(tensors, their_image(image), (layers - 2) // 6))
        arrays = {name: numpy(value) for name, value in tensors.items()}
        found = our_logits(systems.resnet_cifar(layers), arrays, layouts.RESNET_CIFAR, image)
    record(f"resnet_cifar({layers})", "published weights, real images", np.abs(found - wanted).max(), 1e-4)


def cifar_logits(tensors: Any, x: Any, blocks: int) -> Any:
    """The network of the ResNet paper's section 4.2 in torch, which no package has: its option A shifts channels up."""
    functional = torch.nn.functional

    def conv_norm(conv: str, norm: str, x: Any, stride: int = 1) -> Any:
        x = functional.conv2d(x, tensors[f"{conv}.weight"], stride=stride, padding=1)
        numbers = (tensors[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, *numbers)

    x = conv_norm("conv1", "bn1", x).relu()
    for stage in (1, 2, 3):
        for block in range(blocks):
            stride = 2 if stage > 1 and block == 0 else 1
            name = f"layer{stage}.{block}"
            y = conv_norm(f"{name}.conv1", f"{name}.bn1", x, stride).relu()
            y = conv_norm(f"{name}.conv2", f"{name}.bn2", y)
            if stride == 2:
                shifted = torch.zeros_like(y)
                quarter = y.shape[1] // 4
                shifted[:, quarter : 3 * quarter] = x[:, :, ::2, ::2]
                x = shifted
            x = (x + y).relu()
    return x.mean((2, 3)) @ tensors["linear.weight"].T + tensors["linear.bias"]
