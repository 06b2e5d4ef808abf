"""One side's turn: trains one system on one accelerator for some steps and prints the seconds of each as JSON.

python experiments/throughput/turn.py ours|torchvision mask_rcnn --batch 16 --height 800 --width 1333 --steps 20

Random pictures with 20 ellipses each lie on the device already: the step alone is measured, forward, backward and SGD
with momentum, in bfloat16. Both sides freeze norms, stem and first stage, as they are trained from trained weights.
"""

import argparse
import contextlib
import dataclasses
import importlib.metadata
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
SYSTEMS = {
    "faster_rcnn": "configs/faster_rcnn_resnet50_fpn_coco.py",
    "mask_rcnn": "configs/mask_rcnn_resnet50_fpn_coco.py",
    "retinanet": "configs/retinanet_resnet50_fpn_coco.py",
}
OBJECTS, CLASSES = 20, 80
Turn = tuple[str, Callable[[], float]]  # the device, and a step, which returns its loss when it is done


def ellipses(height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes [N, 4], classes [N], and at each pixel the number of what is seen there, from 1, or 0."""
    rng = np.random.default_rng(0)
    size = np.exp(rng.uniform(np.log(0.03), np.log(0.6), (OBJECTS, 2))) * [width, height]
    low = rng.uniform(size=(OBJECTS, 2)) * ([width, height] - size)
    boxes = np.concatenate([low, low + size], axis=1).astype(np.float32)
    numbers = np.zeros((height, width), np.uint8)
    y, x = np.mgrid[:height, :width] + 0.5
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        inside = ((2 * x - x0 - x1) / (x1 - x0)) ** 2 + ((2 * y - y0 - y1) / (y1 - y0)) ** 2 <= 1
        numbers[inside] = i + 1
    return boxes, rng.integers(0, CLASSES, OBJECTS), numbers


def ours(system: str, batch: int, height: int, width: int) -> Turn:
    """The config's own step, on the canvas that the pictures fit."""
    import jax

    from ylosia_jax import config
    from ylosia_jax.compiled import compile_step
    from ylosia_jax.train.sharding import make_mesh, place_batch
    from ylosia_jax.types import Batch, Objects

    canvas = tuple(-(-side // 32) * 32 for side in (height, width))
    experiment = config.load(ROOT / SYSTEMS[system])
    data = dataclasses.replace(experiment.data, batch_size=batch, image_size=canvas, aspect_grouping=False)
    experiment = dataclasses.replace(experiment, data=data)
    mesh = make_mesh(jax.devices()[:1])
    compiled = compile_step(experiment, mesh, 10_000)
    boxes, labels, numbers = ellipses(height, width)
    rows = data.max_objects

    def padded(values: np.ndarray, dtype: Any) -> np.ndarray:
        full = np.zeros((batch, rows, *values.shape[1:]), dtype)
        full[:, :OBJECTS] = values
        return full

    valid = padded(np.ones(OBJECTS, bool), bool)
    pixels = np.random.default_rng(1).integers(0, 256, (batch, *canvas, 3), np.uint8)
    instances = np.zeros((batch, *canvas), np.uint8)
    instances[:, :height, :width] = numbers
    masks = experiment.needs.masks
    seen = Batch(
        image=pixels,
        extent=np.full((batch, 2), [height, width], np.float32),
        size=np.full((batch, 2), [height, width], np.float32),
        index=np.arange(batch, dtype=np.int32),
        epoch=np.zeros(batch, np.int32),
        objects=Objects(
            boxes=padded(boxes, np.float32),
            labels=padded(labels, np.int32),
            valid=valid,
            crowd=np.zeros((batch, rows), bool),
            masked=valid if masks else None,
        ),
        instances=instances if masks else None,
    )
    placed = place_batch(mesh, seen)
    held = [compiled.init()]

    def step() -> float:
        held[0], metrics = compiled.step(held[0], placed)
        return float(metrics["loss"])

    return jax.devices()[0].device_kind, step


def theirs(system: str, batch: int, height: int, width: int) -> Turn:
    """torchvision's model under autocast; its pictures are as large as they are, its own transform pads them."""
    import torch

    sys.path.insert(0, str(ROOT / "tests"))
    from parity.reference import quick_regions, torchvision  # also where its compiled operators do not load

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    found = torchvision().models.detection
    norm = torchvision().ops.misc.FrozenBatchNorm2d
    body = torchvision().models.resnet50(weights=None, norm_layer=norm)
    extract = found.backbone_utils._resnet_fpn_extractor
    if system == "retinanet":
        levels = torchvision().ops.feature_pyramid_network.LastLevelP6P7(256, 256)
        model = found.RetinaNet(extract(body, 3, returned_layers=[2, 3, 4], extra_blocks=levels), CLASSES + 1)
    else:
        model = {"faster_rcnn": found.FasterRCNN, "mask_rcnn": found.MaskRCNN}[system](extract(body, 3), CLASSES + 1)
    model.transform.resize = lambda image, target: (image, target)
    model = model.to(device).train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, weight_decay=1e-4)
    boxes, labels, numbers = ellipses(height, width)
    target = {"boxes": torch.tensor(boxes, device=device), "labels": torch.tensor(labels + 1, device=device)}
    if system == "mask_rcnn":
        masks = numbers == np.arange(1, OBJECTS + 1)[:, None, None]
        target["masks"] = torch.tensor(masks.astype(np.uint8), device=device)
    regions = contextlib.nullcontext if device == "cuda" else quick_regions
    images = [torch.rand(3, height, width, device=device) for _ in range(batch)]

    def step() -> float:
        with regions(), torch.autocast(device, torch.bfloat16):
            loss = sum(model(images, [target] * batch).values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    return torch.cuda.get_device_name() if device == "cuda" else "cpu", step


def main() -> None:
    """Prints {"device": …, "versions": …, "seconds": […]}."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=["ours", "torchvision"])
    parser.add_argument("system", choices=list(SYSTEMS))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1333)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    make = ours if args.side == "ours" else theirs
    device, step = make(args.system, args.batch, args.height, args.width)
    seconds = []
    for i in range(args.steps + 3):
        start = time.perf_counter()
        loss = step()
        if not np.isfinite(loss):
            sys.exit(f"{args.side} {args.system}: the loss is {loss} in step {i}")
        seconds.append(time.perf_counter() - start)
    packages = ("jax", "jaxlib") if args.side == "ours" else ("torch", "torchvision")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    # The first steps compile, and look for the fastest convolutions.
    print(json.dumps({"device": device, "versions": versions, "seconds": seconds[3:]}))


if __name__ == "__main__":
    main()
