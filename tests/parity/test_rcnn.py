"""Faster, Mask and Keypoint R-CNN against torchvision's: one set of tests over all systems, at two sizes."""

import contextlib
import dataclasses
import functools
import re
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from optimised import LOOPS
from parity.record import record
from parity.reference import exact, numpy, quick_regions, randomise, settle, state_of, torch, torchvision
from parity.training import compare_gradients, restored
from scipy.optimize import linear_sum_assignment

from ylosia_jax.convert.layout import Layout, to_variables
from ylosia_jax.convert.two_stage import RCNN, RCNN_2019, RCNN_V2
from ylosia_jax.models.backbones.resnet import ResNet
from ylosia_jax.models.heads.roi_box import RoiBoxHead
from ylosia_jax.models.heads.roi_keypoint import RoiKeypointHead
from ylosia_jax.models.heads.roi_mask import RoiMaskHead
from ylosia_jax.models.necks.fpn import FPN
from ylosia_jax.ops.sample import luck, sample_balanced
from ylosia_jax.systems.rcnn import faster_rcnn, keypoint_rcnn, mask_rcnn
from ylosia_jax.train.questions import cast_floats, decode_tasks, selection, task_losses
from ylosia_jax.types import Batch, Objects, Rois

CLASSES, POINTS, ROWS = 4, 5, 8
SYSTEMS = ("faster_rcnn", "mask_rcnn", "keypoint_rcnn", "faster_rcnn v2", "mask_rcnn v2")
# Whose loss each of torchvision's is.
LOSSES = {
    "loss_objectness": ("rpn", "object"),
    "loss_rpn_box_reg": ("rpn", "box"),
    "loss_classifier": ("box", "class"),
    "loss_box_reg": ("box", "box"),
    "loss_mask": ("mask", None),
    "loss_keypoint": ("keypoint", None),
}
# The first version with frozen norms, as it is published.
NETWORKS: dict[str, Any] = {
    "faster_rcnn": lambda version: faster_rcnn(CLASSES, version=version, norm="frozen" if version == 1 else "batch"),
    "mask_rcnn": lambda version: mask_rcnn(CLASSES, version=version, norm="frozen" if version == 1 else "batch"),
    "keypoint_rcnn": lambda version: keypoint_rcnn(CLASSES, points=POINTS, norm="frozen"),
}


# Mask R-CNN is all of Faster R-CNN and a head more: in CI it stands for both.
IN_CI = ("mask_rcnn", "keypoint_rcnn", "mask_rcnn v2")


def cases(*in_ci: str) -> Any:
    """Every system at both sizes, those that CI has no time for marked."""
    return pytest.mark.parametrize(
        ("system", "size"),
        [
            pytest.param(system, size, marks=() if size == "small" and system in in_ci else pytest.mark.full)
            for system in SYSTEMS
            for size in ("small", "full")
        ],
    )


@dataclasses.dataclass
class Pair:
    """A system of ours and torchvision's, with the same weights."""

    name: str
    network: Any
    tasks: dict[str, Any]
    model: Any
    layout: Layout
    variables: Any
    batch: Batch

    @property
    def images(self) -> list[Any]:
        return [torch.tensor(np.array(image)).permute(2, 0, 1) for image in self.batch.image]


@functools.cache
def pair(system: str, size: str) -> Pair:
    kind, _, second = system.partition(" ")
    version = 2 if second else 1
    small = size == "small"
    torch.manual_seed(0)
    model = small_model(kind, version) if small else full_model(kind, version)
    prepare(model, kind)
    network, tasks = NETWORKS[kind](version)
    if small:
        network, tasks = shrink(network, tasks, version)
    batch = make_batch((96, 128), grain=1) if small else make_batch((256, 320), grain=8)
    if not small:
        images = [torch.tensor(np.array(image)).permute(2, 0, 1) for image in batch.image]
        with quick_regions():
            # `prepare` has the first version's at 0.4.
            settle(model, lambda: model.eval()(images), branch=0.3 if version == 1 else 0.12)
        temper(model, images)
    layout = RCNN_V2 if version == 2 else RCNN
    form = jax.eval_shape(lambda: network.init(jax.random.key(0), batch.image, train=False))
    variables = to_variables(state_of(model), layout, form)
    name = system if small else f"{system} (ResNet-50)"
    return Pair(name, network, tasks, model, layout, variables, batch)


def full_model(kind: str, version: int) -> Any:
    """torchvision's own, with ResNet-50; the first version with frozen norms, as it is published."""
    found = torchvision().models.detection
    if version == 2:
        make = {"faster_rcnn": found.fasterrcnn_resnet50_fpn_v2, "mask_rcnn": found.maskrcnn_resnet50_fpn_v2}[kind]
        return make(weights=None, weights_backbone=None, num_classes=CLASSES + 1)
    resnet = torchvision().models.resnet50(weights=None, norm_layer=torchvision().ops.FrozenBatchNorm2d)
    body = found.backbone_utils._resnet_fpn_extractor(resnet, 5)
    match kind:
        case "faster_rcnn":
            return found.FasterRCNN(body, CLASSES + 1)
        case "mask_rcnn":
            return found.MaskRCNN(body, CLASSES + 1)
    return found.KeypointRCNN(body, CLASSES + 1, num_keypoints=POINTS)


def small_model(kind: str, version: int) -> Any:
    """torchvision's classes around a ResNet of four blocks and a narrow pyramid."""
    found, models = torchvision().models.detection, torchvision().models
    frozen = torchvision().ops.FrozenBatchNorm2d
    normed = torch.nn.BatchNorm2d if version == 2 else None
    resnet = models.resnet.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], norm_layer=normed or frozen)
    body = found.backbone_utils.BackboneWithFPN(
        resnet, {f"layer{i}": str(i - 1) for i in range(1, 5)}, [64, 128, 256, 512], 32, norm_layer=normed
    )
    rcnn, mask, keypoint = found.faster_rcnn, found.mask_rcnn, found.keypoint_rcnn
    options: dict[str, Any] = {
        "rpn_head": found.rpn.RPNHead(32, 3, conv_depth=version),
        "box_head": rcnn.FastRCNNConvFCHead((32, 7, 7), [8] * 4, [64], norm_layer=normed)
        if version == 2
        else rcnn.TwoMLPHead(32 * 49, 64),
        "box_predictor": rcnn.FastRCNNPredictor(64, CLASSES + 1),
        "rpn_pre_nms_top_n_train": 200,
        "rpn_post_nms_top_n_train": 200,
        "rpn_pre_nms_top_n_test": 100,
        "rpn_post_nms_top_n_test": 100,
        "box_batch_size_per_image": 64,
        "rpn_batch_size_per_image": 64,
        "box_detections_per_img": 30,
    }
    match kind:
        case "faster_rcnn":
            return found.FasterRCNN(body, **options)
        case "mask_rcnn":
            options["mask_head"] = mask.MaskRCNNHeads(32, [16, 16], 1, norm_layer=normed)
            options["mask_predictor"] = mask.MaskRCNNPredictor(16, 16, CLASSES + 1)
            return found.MaskRCNN(body, **options)
    options["keypoint_head"] = keypoint.KeypointRCNNHeads(32, (16, 16))
    options["keypoint_predictor"] = keypoint.KeypointRCNNPredictor(16, POINTS)
    return found.KeypointRCNN(body, **options)


def shrink(network: Any, tasks: dict[str, Any], version: int) -> tuple[Any, dict[str, Any]]:
    """The same of ours."""
    normed = "batch" if version == 2 else None
    heads: dict[str, nn.Module] = {
        "box": RoiBoxHead(CLASSES, convs=(8,) * 4 if version == 2 else (), dense=(64,) * (3 - version)),
        "mask": RoiMaskHead(CLASSES, convs=(16, 16), width=16, norm=normed),
        "keypoint": RoiKeypointHead(POINTS, convs=(16, 16)),
    }
    network = network.clone(
        backbone=ResNet((1, 1, 1, 1), bottleneck=False, norm=normed or "frozen"),
        neck=FPN(features=32, norm=normed),
        heads={name: heads[name] for name in network.heads},
    )
    changed = {
        "rpn": {"pre_nms": (200, 100), "post_nms": (200, 100), "samples": 64},
        "box": {"samples": 64, "max_detections": 30},
        "mask": {"regions": 16},
        "keypoint": {"regions": 16},
    }
    return network, {name: dataclasses.replace(task, **changed[name]) for name, task in tasks.items()}


def prepare(model: Any, kind: str) -> None:
    """Weights whose answers are worth comparing, images as they are, and the choices of ours."""
    randomise(model)
    generator = torch.Generator().manual_seed(1)

    def fill(tensor: Any, std: float) -> None:
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * std)

    with torch.no_grad():
        for name, buffer in model.named_buffers():
            # Frozen norms; small where a block's branch ends, or activations double with every block.
            last = name.endswith(("bn3.weight", "bn2.weight"))
            match name.rpartition(".")[2]:
                case "weight":
                    buffer.copy_((0.7 + 0.6 * torch.rand(buffer.shape, generator=generator)) * (0.4 if last else 1))
                case "bias" | "running_mean" if buffer.ndim:
                    buffer.copy_(0.4 * torch.rand(buffer.shape, generator=generator) - 0.2)
                case "running_var":
                    buffer.copy_(0.6 + 0.8 * torch.rand(buffer.shape, generator=generator))
        fill(model.rpn.head.cls_logits.weight, 0.3)
        fill(model.rpn.head.bbox_pred.weight, 0.05)
        for layer in model.rpn.head.conv:
            torch.nn.init.kaiming_normal_(layer[0].weight, generator=generator)
        fill(model.roi_heads.box_predictor.cls_score.weight, 0.3)
        fill(model.roi_heads.box_predictor.bbox_pred.weight, 0.1)
        for name, parameter in model.named_parameters():
            if name.endswith("bias") and "bn" not in name:
                fill(parameter, 0.05)
    model.transform.resize = lambda image, target: (image, target)


def temper(model: Any, images: list[Any]) -> None:
    """Gives outputs the spread of a trained network's: where it is four times that, so are their rounding errors.

    Logits of classes and masks less: of a spread of two the scores of torchvision's second version, in single
    precision, are farther from its own in double than 1e-5.
    """
    heads, seen = model.roi_heads, {}
    layers = {
        model.rpn.head.cls_logits: 2.0,
        model.rpn.head.bbox_pred: 0.3,
        heads.box_predictor.cls_score: 0.5,
        heads.box_predictor.bbox_pred: 0.3,
    }
    if heads.has_mask():
        layers[heads.mask_predictor.mask_fcn_logits] = 0.7

    def note(layer: Any, images: Any, output: Any) -> None:
        # The region proposals' layer is asked level by level, the finest first.
        seen.setdefault(layer, output.std())

    hooks = [layer.register_forward_hook(note) for layer in layers]
    with torch.no_grad(), quick_regions():
        model.eval()(images)
        for hook, (layer, spread) in zip(hooks, layers.items(), strict=True):
            hook.remove()
            layer.weight.mul_(spread / seen[layer])
            layer.bias.mul_(spread / seen[layer])


def make_batch(canvas: tuple[int, int], grain: int, images: int = 2) -> Batch:
    """Objects on a grid, so that no two overlap.

    Args:
      grain: of the noise, in pixels. What a deep network sees in a grain of one changes within a hundredth of a pixel,
        so that torchvision's scores in single precision are farther from its own in double than 1e-5.
    """
    rng = np.random.default_rng(3)
    height, width = canvas
    image = rng.uniform(size=(images, height // grain, width // grain, 3)).astype(np.float32)
    image = np.stack([cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR) for noise in image])
    boxes, labels = np.zeros((images, ROWS, 4), np.float32), np.zeros((images, ROWS), np.int32)
    valid, keypoints = np.zeros((images, ROWS), bool), np.zeros((images, ROWS, POINTS, 3), np.float32)
    instances = np.zeros((images, *canvas), np.uint8)
    for b, count in zip(range(images), (5, 3), strict=True):
        for n, cell in enumerate(rng.permutation(6)[:count]):
            y, x = (cell // 3) * height / 2, (cell % 3) * width / 3
            low = np.array([x, y]) + rng.uniform(0, 0.2, 2) * [width / 3, height / 2]
            high = np.array([x, y]) + rng.uniform(0.6, 0.98, 2) * [width / 3, height / 2]
            boxes[b, n], labels[b, n], valid[b, n] = [*low, *high], rng.integers(CLASSES), True
            centre, half = (low + high) / 2, (high - low) / 2
            rows, columns = np.mgrid[:height, :width] + 0.5
            inside = ((columns - centre[0]) / half[0]) ** 2 + ((rows - centre[1]) / half[1]) ** 2 <= 1
            instances[b][inside] = n + 1
            keypoints[b, n, :, :2] = rng.uniform(low, high, (POINTS, 2))
            keypoints[b, n, :, 2] = rng.integers(0, 3, POINTS)
            # Smooth shapes on the noise give anchors and regions something to differ by.
            image[b][inside] = 0.5 * image[b][inside] + 0.5 * rng.uniform(size=3)
    extent = np.broadcast_to(np.array(canvas, np.float32), (images, 2))
    return Batch(
        image=jnp.asarray(image),
        extent=jnp.asarray(extent),
        size=jnp.asarray(extent),
        index=jnp.arange(images),
        epoch=jnp.zeros(images, jnp.int32),
        objects=Objects(
            boxes=jnp.asarray(boxes),
            labels=jnp.asarray(labels),
            valid=jnp.asarray(valid),
            crowd=jnp.zeros((images, ROWS), bool),
            masked=jnp.asarray(valid),
            keypoints=jnp.asarray(keypoints),
        ),
        instances=jnp.asarray(instances),
    )


def without_objects(batch: Batch) -> Batch:
    """The same pictures, the last of them with nothing on it that is known."""
    valid = batch.objects.valid.at[-1].set(False)
    return batch.replace(objects=batch.objects.replace(valid=valid, masked=valid))  # type: ignore[attr-defined]


def targets_of(batch: Batch) -> list[dict[str, Any]]:
    """The batch's truth as torchvision wants it, whose class 0 is the background."""
    found = []
    objects = batch.objects
    for b in range(len(batch.image)):
        keep = np.array(objects.valid[b])
        numbers = np.flatnonzero(keep) + 1
        found.append(
            {
                "boxes": torch.tensor(np.array(objects.boxes[b])[keep]),
                "labels": torch.tensor(np.array(objects.labels[b])[keep]).long() + 1,
                "masks": torch.tensor(np.array(batch.instances[b]) == numbers[:, None, None]).to(torch.uint8),
                "keypoints": torch.tensor(np.array(objects.keypoints[b])[keep]),
            }
        )
    return found


class Chosen:
    """In the place of torchvision's sampler: the anchors or regions that ours would choose, of its own labels."""

    def __init__(self, count: int, share: float, proposals: int | None, objects: list[int], epoch: int = 0) -> None:
        self.count, self.share, self.proposals, self.objects, self.epoch = count, share, proposals, objects, epoch

    def __call__(self, labels: list[Any]) -> tuple[list[Any], list[Any]]:
        positive, negative = [], []
        for index, label in enumerate(labels):
            kind = np.clip(numpy(label), -1, 1).astype(np.int32)
            place = np.arange(len(kind))
            if self.proposals is not None:
                # Ours are padded to as many as there can be, before the objects' own boxes.
                truth = self.objects[index]
                place[len(kind) - truth :] = self.proposals + np.arange(truth)
            lucky = luck(jnp.full(len(kind), index), jnp.full(len(kind), self.epoch), jnp.asarray(place))
            found = sample_balanced(jnp.asarray(kind), lucky, count=self.count, positive_share=self.share)
            for masks, wanted in ((positive, found.positive), (negative, ~found.positive)):
                mask = torch.zeros(len(kind), dtype=torch.uint8)
                mask[torch.tensor(np.array(found.index)[np.array(found.valid & wanted)])] = 1
                masks.append(mask)
        return positive, negative


def inject(found: Pair, epoch: int = 0) -> None:
    rpn, box = found.tasks["rpn"], found.tasks["box"]
    objects = np.array(found.batch.objects.valid).sum(axis=1).tolist()
    found.model.rpn.fg_bg_sampler = Chosen(rpn.samples, rpn.positive_share, None, objects, epoch)
    found.model.roi_heads.fg_bg_sampler = Chosen(box.samples, box.positive_share, rpn.post_nms[0], objects, epoch)


def loss_of(found: Pair, batch: Batch) -> Any:
    """The loss, its parts by torchvision's names, and the other variables as they are after."""

    def loss(params: Any, others: Any, epoch: Any, shown: Any, injected: Any, boxes: Any, valid: Any) -> Any:
        """As function of the parameters; where `injected`, with these proposals in the place of its own.

        Of the batch's objects those are there that are `shown`.
        """
        objects = batch.objects.replace(valid=shown, masked=shown)  # type: ignore[attr-defined]
        seen = batch.replace(epoch=jnp.full(len(batch.image), epoch), objects=objects)  # type: ignore[attr-defined]
        own = selection(found.tasks, {}, seen)["select"]

        def select(name: str, outputs: Any) -> Rois:
            rois = own(name, outputs)
            if name != "rpn":
                return rois
            return rois.replace(
                boxes=jnp.where(injected, boxes, rois.boxes), valid=jnp.where(injected, valid, rois.valid)
            )

        outputs, updated = found.network.apply(
            {"params": params, **others},
            seen.image,
            train=True,
            mutable=list(others),
            select=select,
        )
        parts = task_losses(found.tasks, outputs, seen)
        named = {
            name: parts[task][1][part] if part else parts[task][0]
            for name, (task, part) in LOSSES.items()
            if task in parts
        }
        return sum(named.values(), start=jnp.zeros(())), (named, updated)

    return loss


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_full_network_has_the_same_tensors(system: str) -> None:
    kind, _, second = system.partition(" ")
    network = NETWORKS[kind](2 if second else 1)[0]
    with torch.device("meta"):
        model = full_model(kind, 2 if second else 1)
    form = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False))
    count = sum(x.size for x in jax.tree.leaves(form["params"]))
    record(f"{system} (ResNet-50)", "parameters", abs(count - sum(p.numel() for p in model.parameters())), 0)
    state = {name: np.broadcast_to(np.float32(0), value.shape) for name, value in model.state_dict().items()}
    to_variables(state, RCNN_V2 if second else RCNN, form)
    if not second:
        # The names of 2019, which torchvision itself turns into those of today when it loads a file.
        old = [
            (r"(inner_blocks|layer_blocks)\.(\d)\.0", r"\1.\2"),
            (r"rpn\.head\.conv\.0\.0", "rpn.head.conv"),
            *((rf"mask_head\.{i}\.0", f"mask_head.mask_fcn{i + 1}") for i in range(4)),
        ]
        renamed = {functools.reduce(lambda name, rule: re.sub(*rule, name), old, name): x for name, x in state.items()}
        assert renamed.keys() != state.keys()
        to_variables(renamed, RCNN_2019, form)


@cases(*IN_CI)
def test_the_answers_are_the_same(system: str, size: str) -> None:
    found = pair(system, size)
    model, network, batch = found.model.eval(), found.network, found.batch
    seen: dict[str, Any] = {}
    heads = model.roi_heads
    hooks = [
        model.rpn.head.register_forward_hook(lambda m, i, o: seen.update(rpn=o)),
        model.rpn.register_forward_hook(lambda m, i, o: seen.update(proposals=o[0])),
        heads.box_predictor.register_forward_hook(lambda m, i, o: seen.update(box=o)),
    ]
    for name, layer in (("mask", heads.mask_predictor), ("keypoint", heads.keypoint_predictor)):
        if layer is not None:
            hooks.append(layer.register_forward_hook(lambda m, i, o, name=name: seen.update({name: o})))
    with exact():
        # A region that ends at the map's edge and is narrower than a cell reaches beyond it. What it sees there is
        # nothing, as in torchvision's compiled operator and `quick_roi_align`; its Python repeats the edge.
        with torch.no_grad(), quick_regions() if size == "full" else contextlib.nullcontext():
            wanted = model(found.images)
        for hook in hooks:
            hook.remove()
        count = found.tasks["rpn"].post_nms[1]

        def regions(boxes: list[Any], rows: int) -> Rois:
            full, valid = padded(boxes, rows)
            zeros = jnp.zeros(valid.shape, jnp.int32)
            return Rois(full, valid, zeros, zeros, batch.image.shape[1:3])

        proposals = regions(seen["proposals"], count)
        detections = regions([each["boxes"] for each in wanted], found.tasks["box"].max_detections)

        @jax.jit
        def run(variables: Any, image: Any, proposals: Rois, detections: Rois) -> Any:
            given = {"rpn": proposals, "box": proposals, "mask": detections, "keypoint": detections}
            on_same = network.apply(variables, image, train=False, select=lambda name, outputs: given[name])
            answers: dict[str, Any] = {}
            outputs = network.apply(variables, image, train=False, **selection(found.tasks, answers, None))
            decode_tasks(found.tasks, cast_floats(outputs, jnp.dtype("float32")), answers)
            return on_same, outputs["proposals"], answers

        same, proposed, answers = jax.device_get(run(found.variables, batch.image, proposals, detections))
    errors = [
        np.abs(np.array(ours).transpose(0, 3, 1, 2) - numpy(theirs)).max()
        for maps, theirs_of in ((same["rpn"].logits, seen["rpn"][0]), (same["rpn"].deltas, seen["rpn"][1]))
        for ours, theirs in zip(maps.values(), theirs_of, strict=True)
    ]
    valid = np.array(proposals.valid)
    logits, deltas = (numpy(x) for x in seen["box"])
    errors.append(np.abs(same["box"].logits[valid] - logits).max())
    errors.append(np.abs(same["box"].deltas[valid].reshape(len(deltas), -1) - deltas).max())
    for name in ("mask", "keypoint"):
        if name in seen:
            ours = same[name].logits[np.array(detections.valid)].transpose(0, 3, 1, 2)
            errors.append(np.abs(ours - numpy(seen[name])).max())
    record(found.name, "forward", max(errors), 1e-4)
    np.testing.assert_array_equal(np.array(proposed.valid), valid)
    for ours, theirs, rows in zip(proposed.boxes, np.array(proposals.boxes), valid, strict=True):
        far = np.abs(ours[rows, None] - theirs[rows]).max(axis=-1)
        record(found.name, "proposals (px)", far[np.arange(len(far)), twins(far, size)].max(), 0.01)
    box = answers["box"]
    for b, each in enumerate(wanted):
        rows = box.valid[b]
        assert len(each["boxes"]) == rows.sum() >= 10
        assert (np.diff(box.scores[b][rows]) <= 0).all()
        far = np.abs(box.boxes[b][rows][:, None] - numpy(each["boxes"])).max(axis=-1)
        pairs = np.arange(len(far)), twins(far, size)
        np.testing.assert_array_equal(box.labels[b][rows], numpy(each["labels"])[pairs[1]] - 1)
        record(found.name, "boxes (px)", far[pairs].max(), 0.01)
        record(found.name, "scores", np.abs(box.scores[b][rows] - numpy(each["scores"])[pairs[1]]).max(), 1e-5)
        if "masks" in each:
            probability = 1 / (1 + np.exp(-answers["mask"].logits[b][rows]))
            assert probability.std() > 0.05
            # torchvision pastes its masks into the image in the end; what it pastes are these.
            first = sum(len(w["boxes"]) for w in wanted[:b])
            theirs = numpy(seen["mask"].sigmoid())[first : first + len(probability)]
            theirs = theirs[np.arange(len(theirs)), numpy(each["labels"])]
            record(found.name, "masks", np.abs(probability - theirs[pairs[1]]).max(), 1e-4)
        if "keypoints" in each:
            points, theirs = answers["keypoint"].keypoints[b][rows], numpy(each["keypoints"])[pairs[1]]
            record(found.name, "keypoints (px)", np.abs(points[..., :2] - theirs[..., :2]).max(), 0.01)


def twins(far: np.ndarray, size: str) -> np.ndarray:
    """Which of theirs each of ours is, of their distances: the one in its place.

    In full size the nearest, each taken once: of hundreds in order of their scores, two whose scores are equal but for
    rounding may stand the other way round.
    """
    return linear_sum_assignment(far)[1] if size == "full" else np.arange(len(far))


@cases(*IN_CI)
def test_the_losses_and_the_gradient_are_the_same(system: str, size: str) -> None:
    found = pair(system, size)
    model = found.model.train()
    batches = found.batch, without_objects(found.batch)

    def theirs(model: Any, kind: Any) -> Any:
        return sum(model(*in_type(found, kind)).values())

    with exact(), quick_regions():
        params, others = split(found.variables)
        rows, seen = found.tasks["rpn"].post_nms[0], {}
        hook = model.rpn.register_forward_hook(lambda m, i, o: seen.update(proposals=o[0]))
        # Of 2,000 proposals rounding swaps some, and chance takes others from there on: torchvision's are injected.
        injected = size == "full"
        gradient = jax.jit(jax.grad(loss_of(found, found.batch), has_aux=True))
        for batch in reversed(batches):
            found = dataclasses.replace(found, batch=batch)
            inject(found)
            with restored(model), torch.no_grad():
                wanted = {name: x.item() for name, x in model.double()(*in_type(found, torch.float64)).items()}
            proposals = padded(seen["proposals"] if injected else [], rows)
            grads, (losses, _) = jax.device_get(gradient(params, others, 0, batch.objects.valid, injected, *proposals))
            assert losses.keys() == wanted.keys()
            error = max(abs(float(losses[name]) / wanted[name] - 1) for name in losses)
            record(found.name, "loss", error, 1e-5)
        hook.remove()
        # All cells of a softmax alike.
        vanishing = ("roi_heads.keypoint_predictor.kps_score_lowres.bias",)
        compare_gradients(found.name, grads, model, theirs, found.layout, vanishing=vanishing, rounding=size == "full")


@cases("keypoint_rcnn", "mask_rcnn v2")
def test_twenty_steps_are_the_same(system: str, size: str) -> None:
    """Plain SGD. torchvision's proposals are injected: where rounding swaps two, chance takes others from there on.

    In full size by small steps: of a thousandth, a rounding error grows tenfold with each. And from few regions: five
    hundred an image take 20 GB in double precision.
    """
    found = pair(system, size)
    if size == "full":
        changed = {"box": {"samples": 64}, "mask": {"regions": 16}, "keypoint": {"regions": 16}}
        tasks = {name: dataclasses.replace(task, **changed.get(name, {})) for name, task in found.tasks.items()}
        found = dataclasses.replace(found, tasks=tasks)
    model = found.model.train()
    rate, worst, curve = 1e-3 if size == "small" else 3e-5, 0.0, []
    seen: dict[str, Any] = {}
    hook = model.rpn.register_forward_hook(lambda m, i, o: seen.update(proposals=o[0]))
    with exact(), quick_regions(), restored(model), jax.enable_x64(True):
        # The truth as well: which anchors it matches is decided by IoUs.
        batch: Any = found.batch
        objects = batch.objects.replace(boxes=np.asarray(batch.objects.boxes, np.float64))
        wide = batch.replace(image=np.asarray(batch.image, np.float64), objects=objects)
        gradient = jax.jit(jax.grad(loss_of(found, wide), has_aux=True), compiler_options=LOOPS)
        params, others = split(jax.tree.map(lambda x: np.asarray(x, np.float64), found.variables))
        model.double()
        for step in range(20):
            inject(found, step)
            model.zero_grad()
            wanted = sum(model(*in_type(found, torch.float64)).values())
            wanted.backward()
            proposals = padded(seen["proposals"], found.tasks["rpn"].post_nms[0], np.float64)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= rate * parameter.grad
            grads, (losses, updated) = gradient(params, others, step, wide.objects.valid, True, *proposals)
            params, others = jax.tree.map(lambda p, g: p - rate * g, params, grads), updated
            curve.append(wanted.item())
            worst = max(worst, abs(float(sum(losses.values())) / curve[-1] - 1))
    hook.remove()
    assert curve[-1] < 0.9 * curve[0]
    record(found.name, "20 steps", worst, 1e-5)


def in_type(found: Pair, kind: Any) -> tuple[list[Any], list[dict[str, Any]]]:
    """Images and truth for a model of numbers of a type."""
    truth = [{**each, "boxes": each["boxes"].to(kind)} for each in targets_of(found.batch)]
    return [image.to(kind) for image in found.images], truth


def padded(boxes: list[Any], rows: int, kind: Any = np.float32) -> tuple[Any, Any]:
    """torchvision's lists of boxes as [B, rows, 4], and which of them are some."""
    full, valid = np.zeros((2, rows, 4), kind), np.zeros((2, rows), bool)
    for b, own in enumerate(boxes):
        full[b, : len(own)], valid[b, : len(own)] = numpy(own), True
    return jnp.asarray(full), jnp.asarray(valid)


def split(variables: Any) -> tuple[Any, Any]:
    return variables["params"], {name: value for name, value in variables.items() if name != "params"}
