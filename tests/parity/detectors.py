"""A dense detector of torchvision's and its twin here, side by side: outputs, detections, loss, gradient, training.

Both have the same random weights, made such that scores and boxes are all but trivial.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from parity.record import record
from parity.reference import numpy, state_of, torch, torchvision
from parity.training import compare_gradients, compare_steps, restored

from ylosia_jax.convert.layout import Layout, to_variables
from ylosia_jax.types import Batch, DenseOutputs, Objects

ROWS = 8  # objects an image is padded to


@dataclasses.dataclass
class Pair:
    """A system twice.

    Attributes:
      name: for the table.
      model: torchvision's, in training mode when it is built.
      num_classes: K of our task.
      first: torchvision's label of our class 0.
      canvas: (height, width).
    """

    name: str
    model: Any
    network: Any
    tasks: dict[str, Any]
    layout: Layout
    num_classes: int
    first: int
    canvas: tuple[int, int]

    def images(self, count: int, seed: int = 0) -> np.ndarray:
        """Smooth colours and noise, [B, H, W, 3] in [0, 1]."""
        rng = np.random.default_rng(seed)
        coarse = rng.uniform(size=(count, 4, 4, 3))
        smooth = jax.image.resize(jnp.asarray(coarse), (count, *self.canvas, 3), "linear")
        noise = rng.uniform(-0.2, 0.2, (count, *self.canvas, 3))
        return np.clip(np.asarray(smooth) + noise, 0, 1).astype(np.float32)

    def batch(self, images: np.ndarray, counts: tuple[int, ...], seed: int = 1) -> Batch:
        """Random objects, so many in each image."""
        rng = np.random.default_rng(seed)
        height, width = self.canvas
        boxes, labels, valid = np.zeros((len(counts), ROWS, 4)), np.zeros((len(counts), ROWS), int), []
        for i, count in enumerate(counts):
            size = np.exp(rng.uniform(np.log(12), np.log(0.8 * min(height, width)), (count, 2)))
            corner = rng.uniform(size=(count, 2)) * (np.array([width, height]) - size)
            boxes[i, :count] = np.concatenate([corner, corner + size], axis=1)
            labels[i, :count] = rng.integers(0, self.num_classes, count)
            valid.append(np.arange(ROWS) < count)
        return Batch(
            image=jnp.asarray(images),
            extent=jnp.full((len(counts), 2), jnp.array(self.canvas, jnp.float32)),
            size=jnp.full((len(counts), 2), jnp.array(self.canvas, jnp.float32)),
            index=jnp.arange(len(counts)),
            epoch=jnp.zeros(len(counts), int),
            objects=Objects(
                boxes=jnp.asarray(boxes, jnp.float32),
                labels=jnp.asarray(labels),
                valid=jnp.asarray(valid),
                crowd=jnp.zeros((len(counts), ROWS), bool),
            ),
        )

    def targets(self, batch: Batch) -> list[dict[str, Any]]:
        """The truth as torchvision takes it."""
        objects = jax.tree.map(np.asarray, batch.objects)
        return [
            {
                "boxes": torch.from_numpy(objects.boxes[i][valid]),
                "labels": torch.from_numpy(objects.labels[i][valid].astype(np.int64)) + self.first,
            }
            for i, valid in enumerate(objects.valid)
        ]

    def variables(self, images: np.ndarray) -> Any:
        """The model's weights as ours."""
        form = jax.eval_shape(lambda x: self.network.init(jax.random.key(0), x, train=False), jnp.asarray(images[:1]))
        return to_variables(state_of(self.model), self.layout, form)

    def total(self, model: Any, images: np.ndarray, batch: Batch, kind: Any) -> Any:
        """torchvision's loss, in numbers of a type."""
        truth = [{**each, "boxes": each["boxes"].to(kind)} for each in self.targets(batch)]
        return sum(model([image.to(kind) for image in tensors(images)], truth).values())


def resnet_fpn(layers: list[int], *, small: bool, frozen: bool, from_c5: bool) -> Any:
    """torchvision's residual network with levels p3 to p7; a small one has simple blocks, and 128 channels a level."""
    tv = torchvision()
    resnet, block = tv.models.resnet, tv.models.resnet.BasicBlock if small else tv.models.resnet.Bottleneck
    norm = tv.ops.misc.FrozenBatchNorm2d if frozen else torch.nn.BatchNorm2d
    width, wide = (128, 512) if small else (256, 2048)
    return tv.models.detection.backbone_utils.BackboneWithFPN(
        resnet.ResNet(block, layers, norm_layer=norm),
        return_layers={f"layer{stage}": str(stage - 2) for stage in (2, 3, 4)},
        in_channels_list=[wide // 4, wide // 2, wide],
        out_channels=width,
        extra_blocks=tv.ops.feature_pyramid_network.LastLevelP6P7(wide if from_c5 else width, width),
    )


def tensors(images: np.ndarray) -> list[Any]:
    """Images as torchvision takes them."""
    return [torch.from_numpy(image.transpose(2, 0, 1).copy()) for image in images]


def head_outputs(model: Any, images: np.ndarray) -> dict[str, Any]:
    """What torchvision's head answers, before it is decoded."""
    return model.head(list(model.backbone(model.transform(tensors(images))[0].tensors).values()))


def enliven(model: Any, images: np.ndarray, last: dict[str, tuple[Any, float, float]]) -> None:
    """Gives the head weights that do not vanish, and outputs of a given spread.

    Args:
      last: name of an output -> its last layers, the spread it shall have, and their bias.
    """
    generator = torch.Generator().manual_seed(0)
    model.eval()
    with torch.no_grad():
        for module in model.head.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                if module.bias is not None:
                    module.bias.uniform_(-0.1, 0.1, generator=generator)
            if isinstance(module, torch.nn.GroupNorm):
                module.weight.uniform_(0.7, 1.3, generator=generator)
                module.bias.uniform_(-0.2, 0.2, generator=generator)
        found = head_outputs(model, images)
        for name, (layers, spread, bias) in last.items():
            for layer in layers:
                layer.weight.mul_(spread / found[name].std())
                layer.bias.fill_(bias)


def compare(pair: Pair, *, lr: float, small: bool, steps: bool = True) -> None:
    """Records how far the two are from each other, and fails where that is too far.

    Args:
      small: see `compare_steps`; in full size rounding decides over gradients, too.
      steps: whether training is compared as well.
    """
    images = pair.images(2)
    variables = pair.variables(images)
    _compare_answers(pair, images, variables)
    model = pair.model.train()

    def loss(params: Any, others: Any, batch: Batch) -> tuple[Any, Any]:
        # Running statistics take no part in it.
        outputs, _ = pair.network.apply({"params": params, **others}, batch.image, train=True, mutable=list(others))
        asked = {name: task.encode(outputs, batch, {}) for name, task in pair.tasks.items()}
        return sum(task.loss(outputs, asked, batch)[0] for task in pair.tasks.values()), others

    params = variables["params"]
    others = {name: value for name, value in variables.items() if name != "params"}
    run = jax.jit(jax.value_and_grad(loss, has_aux=True))

    # One image shows nothing, with the same shapes.
    for counts in ((4, 0), (0, 0), (5, 3)):
        batch = pair.batch(images, counts)
        with restored(model), torch.no_grad():
            wanted = pair.total(model, images, batch, torch.float32).item()
        (found, _), grads = run(params, others, batch)
        record(pair.name, "loss", relative(found, wanted), 1e-5)

    def theirs(model: Any, kind: Any) -> Any:
        return pair.total(model, images, batch, kind)

    compare_gradients(pair.name, jax.device_get(grads), model, theirs, pair.layout, rounding=not small)
    if steps:
        compare_steps(pair.name, loss, variables, batch, model, theirs, pair.layout, lr=lr, small=small)


def relative(found: Any, wanted: float) -> float:
    """Without any object SSD's loss is 0, and has to be."""
    return abs(float(found) - wanted) / max(abs(wanted), 1e-12)


def _compare_answers(pair: Pair, images: np.ndarray, variables: Any) -> None:
    pair.model.eval()

    @jax.jit
    def answer(variables: Any, images: Any) -> Any:
        outputs = pair.network.apply(variables, images, train=False)
        return outputs["box"], pair.tasks["box"].decode(outputs)

    dense, found = answer(variables, images)
    with torch.no_grad():
        wanted = head_outputs(pair.model, images)
        detections = pair.model(tensors(images))
    assert 1 < float(wanted["cls_logits"].std()) < 4, wanted["cls_logits"].std()
    for name, value in flat(dense, wanted).items():
        record(pair.name, "forward", np.abs(value - numpy(wanted[name])).max(), 1e-4)
    found = jax.tree.map(np.asarray, found)
    for i, theirs in enumerate(detections):
        boxes, scores, labels = (numpy(theirs[name])[:100] for name in ("boxes", "scores", "labels"))
        kept = len(scores)
        assert kept > 50, kept
        assert found.valid[i, :kept].all(), kept
        assert min(found.valid[i].sum(), 100) == kept
        record(pair.name, "scores", np.abs(found.scores[i, :kept] - scores).max(), 1e-5)
        # Two of equal score, to the last digits, may stand the other way round.
        far = np.abs(found.boxes[i, :kept, None] - boxes).max(axis=-1)
        other = (found.labels[i, :kept, None] + pair.first != labels) | (
            np.abs(found.scores[i, :kept, None] - scores) > 1e-5
        )
        partner = np.where(other, np.inf, far).argmin(axis=1)
        assert sorted(partner) == list(range(kept)), partner
        record(pair.name, "boxes (px)", np.where(other, np.inf, far).min(axis=1).max(), 0.01)


def flat(dense: DenseOutputs, wanted: dict[str, Any]) -> dict[str, np.ndarray]:
    """Our outputs by torchvision's names, one row an anchor."""
    maps = {"cls_logits": dense.logits, "bbox_regression": dense.deltas, "bbox_ctrness": dense.quality}
    return {
        name: np.concatenate([np.asarray(x).reshape(len(x), -1, value.shape[-1]) for x in maps[name].values()], axis=1)
        for name, value in wanted.items()
    }
