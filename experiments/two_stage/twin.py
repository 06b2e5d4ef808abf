"""torchvision's Faster and Mask R-CNN, trained as a config of ours says: the same batches, optimiser and average."""

import csv
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from parity.reference import quick_regions, torch, torchvision

from ylosia_jax import config
from ylosia_jax.compiled import transform
from ylosia_jax.data.pipeline import train_batches
from ylosia_jax.evaluate import evaluate
from ylosia_jax.experiment import Experiment, open_scored, open_source
from ylosia_jax.files import write_atomically
from ylosia_jax.train.optim import learning_rate
from ylosia_jax.train.sharding import make_mesh
from ylosia_jax.types import Batch, BoxMasks, Detections


def train_twin(workdir: Path, seed: int, args: Sequence[str], scores: Sequence[str]) -> dict[str, str]:
    """Trains what `args`, a config's path and what is changed in it, says; scores the average of weights as ours is."""
    experiment = config.override(config.load(args[0]), [*args[1:], "--seed", str(seed)])
    done = workdir / "metrics.json"
    if not done.exists():
        workdir.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        with quick_regions():
            metrics, steps = run(experiment, seed, workdir)
        metrics["twin"] = {"steps": steps, "minutes": (time.monotonic() - began) / 60}
        write_atomically(done, json.dumps(metrics, indent=2))
    found = json.loads(done.read_text())
    row = {path: read(found, path) for path in scores}
    return {**row, "steps": str(found["twin"]["steps"]), "minutes": f"{found['twin']['minutes']:.2f}"}


def save_start(path: Path, seed: int, args: Sequence[str]) -> None:
    """Writes the weights that `train_twin` begins with, a state dict for `ylosia weights import`."""
    torch.save(start(config.override(config.load(args[0]), args[1:]), seed).state_dict(), path)


def start(experiment: Experiment, seed: int) -> Any:
    """The model before its first step."""
    torch.manual_seed(seed)
    return build(experiment)


def read(metrics: Any, path: str) -> str:
    for part in path.split("/"):
        metrics = metrics.get(part) if isinstance(metrics, dict) else None
    return "" if metrics is None else f"{metrics:.4f}"


def build(experiment: Experiment) -> Any:
    """The same system, its constants those of the tasks, images as they come."""
    found, tasks = torchvision().models.detection, experiment.tasks
    resnet = {18: torchvision().models.resnet18, 50: torchvision().models.resnet50}[depth_of(experiment)]
    body = found.backbone_utils._resnet_fpn_extractor(resnet(weights=None), 5)
    rpn, box = tasks["rpn"], tasks["box"]
    make = found.MaskRCNN if "mask" in tasks else found.FasterRCNN
    model = make(
        body,
        box.num_classes + 1,
        rpn_pre_nms_top_n_train=rpn.pre_nms[0],
        rpn_pre_nms_top_n_test=rpn.pre_nms[1],
        rpn_post_nms_top_n_train=rpn.post_nms[0],
        rpn_post_nms_top_n_test=rpn.post_nms[1],
        box_batch_size_per_image=box.samples,
        box_detections_per_img=box.max_detections,
    )
    model.transform.resize = lambda image, target: (image, target)
    model.transform.postprocess = lambda result, *sizes: result
    return model


def depth_of(experiment: Experiment) -> int:
    return 50 if experiment.network.backbone.bottleneck else 18


def run(experiment: Experiment, seed: int, workdir: Path) -> tuple[dict[str, Any], int]:
    model = start(experiment, seed).train()
    source, data, optim = open_source(experiment, experiment.data.train), experiment.data, experiment.optim
    steps = experiment.train.total_steps(len(source), data.batch_size)
    rate = learning_rate(optim, steps)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": optim.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if optim.optimizer != "adamw":
        raise ValueError(f"the twin's optimiser is AdamW, the config's {optim.optimizer}")
    optimizer = torch.optim.AdamW(groups, lr=optim.lr, betas=(optim.momentum, 0.999))
    average = {name: value.clone() for name, value in model.state_dict().items()}
    batches = train_batches(
        source,
        canvases=experiment.canvases,
        batch_size=data.batch_size,
        max_objects=data.max_objects,
        seed=seed,
        needs=experiment.needs,
        style=data.style,
        threads=data.threads,
        steps=steps,
    )
    augmented = jax.jit(lambda batch, progress: transform(experiment, batch, progress))
    with (workdir / "metrics.csv").open("w", newline="") as file:
        log = csv.writer(file)
        log.writerow(["step", "loss"])
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = float(rate(step))
            images, targets = to_torch(jax.device_get(augmented(next(batches), step / steps)))
            loss = sum(model(images, targets).values())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), optim.clip)
            optimizer.step()
            decay = optim.ema_decay * (1 - math.exp(-(step + 1) / optim.ema_warmup))
            for name, value in model.state_dict().items():
                floats = value.is_floating_point()
                average[name] = average[name] * decay + value * (1 - decay) if floats else value.clone()
            if step % 20 == 0:
                log.writerow([step + 1, f"{loss.item():.4f}"])
                file.flush()
    model.load_state_dict(average)
    scores = evaluate(
        predictor(model.eval(), experiment),
        None,
        open_scored(experiment, data.valid),
        make_mesh(jax.devices()[:1]),
        canvases=experiment.canvases,
        batch_size=data.batch_size,
        style=data.style,
    )
    return scores, steps


def to_torch(batch: Batch) -> tuple[list[Any], list[dict[str, Any]]]:
    """Images and truth as torchvision wants them; it refuses objects without area."""
    objects, targets = batch.objects, []
    for b in range(len(batch.image)):
        sides = objects.boxes[b, :, 2:] - objects.boxes[b, :, :2]
        rows = np.flatnonzero(objects.valid[b] & ~objects.crowd[b] & (sides > 0).all(axis=1))
        target = {
            "boxes": torch.tensor(np.array(objects.boxes[b][rows])),
            "labels": torch.tensor(np.array(objects.labels[b][rows])).long() + 1,
        }
        if batch.instances is not None:
            masks = np.array(batch.instances[b]) == rows[:, None, None] + 1
            target["masks"] = torch.tensor(masks.astype(np.uint8))
        targets.append(target)
    return [torch.tensor(np.array(image)).permute(2, 0, 1) for image in batch.image], targets


def predictor(model: Any, experiment: Experiment) -> Any:
    """What `evaluate` calls, with torchvision's answers in the form of ours."""
    rows = experiment.tasks["box"].max_detections

    def predict(variables: Any, image: Any, known: Any = None, regions: Any = None, /) -> dict[str, Any]:
        pixels = np.array(image).astype(np.float32) / 255
        with torch.no_grad():
            found = model([torch.tensor(each).permute(2, 0, 1) for each in pixels])

        def padded(name: str, shape: tuple[int, ...], dtype: Any) -> Any:
            full = np.zeros((len(found), rows, *shape), dtype)
            for b, each in enumerate(found):
                full[b, : len(each["boxes"])] = each[name].numpy()
            return full

        valid = np.arange(rows) < np.array([[len(each["boxes"])] for each in found])
        answers: dict[str, Any] = {
            "box": Detections(
                boxes=jnp.asarray(padded("boxes", (4,), np.float32)),
                scores=jnp.asarray(padded("scores", (), np.float32)),
                labels=jnp.asarray(np.maximum(padded("labels", (), np.int32) - 1, 0)),
                valid=jnp.asarray(valid),
                index=jnp.zeros(valid.shape, jnp.int32),
            )
        }
        if "masks" in found[0]:
            for each in found:
                each["masks"] = each["masks"][:, 0]
            shares = np.clip(padded("masks", (28, 28), np.float32), 1e-6, 1 - 1e-6)
            answers["mask"] = BoxMasks(logits=jnp.asarray(np.log(shares / (1 - shares))))
        return answers

    return predict
