"""All tasks in one run, on scenes and on a mixture in which images know different things."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ylosia_jax import config
from ylosia_jax.data import coco, store
from ylosia_jax.data.datasets import Imported, Mixture, open_dataset
from ylosia_jax.data.scenes import CLASSES, Scenes
from ylosia_jax.data.scenes_grounds import STUFF
from ylosia_jax.data.skeletons import COCO_PERSON
from ylosia_jax.experiment import Experiment
from ylosia_jax.models.heads.decoupled import DecoupledHead
from ylosia_jax.models.heads.pose import PoseHead
from ylosia_jax.models.heads.prototypes import PrototypeHead
from ylosia_jax.models.heads.semantic import SemanticHead
from ylosia_jax.predict import load, predict_files
from ylosia_jax.runs import evaluate_run, train
from ylosia_jax.tasks.masks import PrototypeMasks
from ylosia_jax.tasks.panoptic import Panoptic
from ylosia_jax.tasks.poses import DensePoses
from ylosia_jax.tasks.semantic import Semantic
from ylosia_jax.train.log import read_rows
from ylosia_jax.types import UserError

pytestmark = pytest.mark.slow

SEMANTIC = len(CLASSES) + len(STUFF)


def tiny(workdir: Path) -> Experiment:
    """The tests' small run, with all heads."""
    base: Experiment = config.load(Path(__file__).parents[1] / "tiny.py")
    heads = {
        "mask": PrototypeHead(prototypes=8, branch=8),
        "keypoint": PoseHead(points=17, branch=8),
        "semantic": SemanticHead(num_classes=SEMANTIC),
    }
    tasks = {
        "mask": PrototypeMasks(points=16),
        "keypoint": DensePoses(sigmas=COCO_PERSON.sigmas, points=16),
        "semantic": Semantic(SEMANTIC),
        "panoptic": Panoptic(things=len(CLASSES), classes=SEMANTIC, score_threshold=0.0),
    }
    network: Any = base.network
    network = network.clone(neck=network.neck.clone(fine=8), heads={**network.heads, **heads})
    return dataclasses.replace(
        base,
        network=network,
        tasks=base.tasks | tasks,
        data=dataclasses.replace(base.data, stuff=STUFF, skeleton=COCO_PERSON),
        train=dataclasses.replace(base.train, steps=6),
        workdir=str(workdir),
    )


def test_all_tasks_train_score_and_predict(tmp_path: Path) -> None:
    experiment = tiny(tmp_path / "run")
    scores = train(experiment)
    assert set(scores) == {"box", "mask", "keypoint", "semantic", "panoptic"}
    rows = read_rows(tmp_path / "run" / "metrics.csv")
    assert all(row["compiles"] == "1" for row in rows)
    assert all(np.isfinite(float(value)) for row in rows for name, value in row.items() if name.startswith("loss"))
    assert {"loss/box", "loss/mask", "loss/keypoint", "loss/semantic"} <= rows[0].keys()

    model = load(tmp_path / "run")
    result = model(Scenes("test", size=1, image_size=(72, 96))[0].image)
    assert result.masks is not None
    assert result.masks.shape == (len(result), 72, 96)
    assert result.keypoints is not None
    assert result.keypoints.shape == (len(result), 17, 3)
    assert result.semantic is not None
    assert result.semantic.shape == (72, 96)
    assert result.panoptic is not None
    assert set(np.unique(result.panoptic.map)) - {0} == set(result.panoptic.labels)
    posed = result.keypoints.any(axis=(1, 2))
    assert not posed[result.labels != CLASSES.index("person")].any()

    picture = result.save(tmp_path / "a.png", score=0.0)
    assert predict_files(model, [picture], tmp_path / "out") == []
    entries = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert all("segmentation" in entry for entry in entries)
    assert (tmp_path / "out" / "semantic" / "a.png").exists()
    assert json.loads((tmp_path / "out" / "panoptic.json").read_text())["annotations"][0]["image_id"] == "a.png"


def mice(folder: Path) -> Imported:
    """An imported set of boxes and poses, of a class and a skeleton that the scenes have not; no masks, no maps."""
    noise = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), np.uint8)
    for i, pixels in enumerate(noise):
        (folder / f"{i}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    mouse = {"id": 1, "name": "mouse", "keypoints": ["snout", "left_ear", "right_ear"]}
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 64} for i in range(len(noise))],
        "annotations": [
            {
                "id": i,
                "image_id": i,
                "category_id": 1,
                "bbox": [8, 8, 40, 30],
                "keypoints": [9, 9, 2, 20, 9, 2, 9, 30, 1],
            }
            for i in range(len(noise))
        ],
        "categories": [mouse],
    }
    (folder / "mice.json").write_text(json.dumps(content))
    store.write(coco.read(folder / "mice.json", split="train"), name="mice", root=folder / "sets")
    return Imported(str(folder / "sets" / "mice"), "train")


def test_a_mixture_trains_in_one_compilation(tmp_path: Path) -> None:
    """Images that know different things, of different sizes; then the run is scored on each of its sets."""
    parts = Scenes("train", size=12, image_size=(64, 96)), mice(tmp_path)
    data = open_dataset(Mixture(parts))
    classes = len(data.classes) + len(data.stuff)
    assert data.classes == (*CLASSES, "mouse")
    assert data.skeleton is not None
    experiment = tiny(tmp_path / "run")
    network: Any = experiment.network
    heads = {
        "box": DecoupledHead(num_classes=len(data.classes), bins=8),
        "keypoint": PoseHead(points=len(data.skeleton.names), branch=8),
        "semantic": SemanticHead(num_classes=classes),
    }
    tasks = {
        "box": dataclasses.replace(experiment.tasks["box"], num_classes=len(data.classes)),
        "keypoint": DensePoses(sigmas=data.skeleton.sigmas, points=16),
        "semantic": Semantic(classes),
        "panoptic": Panoptic(things=len(data.classes), classes=classes, score_threshold=0.0),
    }
    experiment = dataclasses.replace(
        experiment,
        network=network.clone(heads=network.heads | heads),
        tasks=experiment.tasks | tasks,
        data=dataclasses.replace(
            experiment.data,
            train=Mixture(parts, (1.0, 1.0)),
            valid=Mixture(parts),
            classes=data.classes,
            stuff=data.stuff,
            skeleton=data.skeleton,
        ),
    )
    scores = train(experiment)
    assert set(scores) == {"box", "mask", "keypoint", "semantic", "panoptic"}
    rows = read_rows(tmp_path / "run" / "metrics.csv")
    assert rows[-1]["compiles"] == "1"
    assert all(np.isfinite(float(value)) for row in rows for name, value in row.items() if name.startswith("loss"))

    of_mice = evaluate_run(tmp_path / "run", name=parts[1].name)
    assert set(of_mice) == {"box", "keypoint"}
    assert {name for name, value in of_mice["box"]["per_class"].items() if value is not None} == {"mouse"}
    of_scenes = evaluate_run(tmp_path / "run", name="scenes", split="train")
    assert set(of_scenes) == {"box", "mask", "keypoint", "semantic", "panoptic"}
    assert of_scenes["semantic"]["per_class"]["mouse"] is None
    with pytest.raises(UserError, match="name one of its data sets beside --split"):
        evaluate_run(tmp_path / "run", split="train")


def test_a_task_that_the_data_cannot_supply_is_refused(tmp_path: Path, shared: Path) -> None:
    from ylosia_jax.data import voc

    store.write(voc.read(shared / "data/bccd"), name="bccd", root=tmp_path / "sets")
    experiment = tiny(tmp_path / "run")
    cells = config.load("configs/ylosia_n_bccd.py").data
    folder = str(tmp_path / "sets" / "bccd")
    data = dataclasses.replace(
        cells,
        train=dataclasses.replace(cells.train, name=folder),
        valid=dataclasses.replace(cells.valid, name=folder),
    )
    with pytest.raises(UserError, match=r"the task 'mask' needs mask labels, but .*bccd.* knows only box"):
        train(dataclasses.replace(experiment, data=data))
    assert not (tmp_path / "run").exists()
