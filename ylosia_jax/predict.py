"""A trained run as a function: images in, answers in their own pixels out."""

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
from tqdm import tqdm

from ylosia_jax import config as configs
from ylosia_jax.data.datasets import open_dataset
from ylosia_jax.data.images import verify
from ylosia_jax.data.pipeline import prepare
from ylosia_jax.evaluate import letterbox_of, make_predict, unpad
from ylosia_jax.experiment import load_run, restore_average
from ylosia_jax.files import write_atomically
from ylosia_jax.metrics.boxes import ImageDetections, coco_results
from ylosia_jax.train.sharding import make_mesh
from ylosia_jax.types import Example, UserError
from ylosia_jax.visualize import draw_boxes

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})

Image = np.ndarray | str | Path


@dataclasses.dataclass(frozen=True)
class Result:
    """The answer for one image, best first, in pixels of that image.

    Attributes:
      image: uint8 RGB, as it was given.
      name: the file's name; empty for an array.
      boxes: [N, 4] xyxy.
      scores: [N] in [0, 1].
      labels: [N] class index.
      classes: every class's name, by label.
    """

    image: np.ndarray
    name: str
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """The class name of each detection."""
        return [self.classes[label] for label in self.labels]

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score: float) -> "Result":
        """The detections with at least that score."""
        keep = self.scores >= score
        return dataclasses.replace(self, boxes=self.boxes[keep], scores=self.scores[keep], labels=self.labels[keep])

    def draw(self, score: float = 0.3) -> np.ndarray:
        """The image, uint8 RGB, with the detections of at least that score drawn on it."""
        shown = self.above(score)
        return draw_boxes(self.image, shown.boxes, shown.scores, shown.labels, self.classes)

    def save(self, path: str | Path, score: float = 0.3) -> Path:
        """Writes the drawn image; its suffix chooses the format."""
        path = Path(path)
        done, data = cv2.imencode(path.suffix or ".png", cv2.cvtColor(self.draw(score), cv2.COLOR_RGB2BGR))
        if not done:
            raise UserError(f"{path}: cannot write this format; use .png or .jpg")
        write_atomically(path, data.tobytes())
        return path

    def to_coco(self) -> list[dict[str, Any]]:
        """Entries of a COCO results list, with `image_id` the file's name."""
        return coco_results(self.name, ImageDetections(self.boxes, self.scores, self.labels), self.classes)

    def to_supervision(self) -> Any:
        """The same as `supervision.Detections`; the package `supervision` must be installed."""
        try:
            import supervision  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise UserError("to_supervision() needs the package supervision: pip install supervision") from error
        return supervision.Detections(
            xyxy=self.boxes, confidence=self.scores, class_id=self.labels, data={"class_name": np.array(self.names)}
        )


@dataclasses.dataclass(frozen=True)
class Model:
    """A network with its weights, called on images.

    Attributes:
      apply: compiled `(variables, image) -> {head: answer}`.
      canvas: (height, width) of the network's input.
    """

    apply: Callable[[Any, Any], dict[str, Any]]
    variables: Any
    classes: tuple[str, ...]
    canvas: tuple[int, int]

    def __call__(self, images: Image | Sequence[Image]) -> Any:
        """Predicts one image (a path or a uint8 RGB array) to a `Result`, or a list of them to a list.

        Images of any size; they go through the network one by one, so one program serves all.
        """
        if isinstance(images, np.ndarray | str | Path):
            return self._one(images)
        return [self._one(image) for image in images]

    def _one(self, image: Image) -> Result:
        name = "" if isinstance(image, np.ndarray) else Path(image).name
        pixels = image if isinstance(image, np.ndarray) else read_image(Path(image))
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
            raise UserError(f"expected a uint8 RGB image [H, W, 3], got {pixels.dtype} {list(pixels.shape)}")
        nothing = np.zeros(0)
        example = Example(
            image=pixels,
            name=name,
            boxes=np.zeros((0, 4), np.float32),
            labels=nothing.astype(np.int32),
            crowd=nothing.astype(bool),
            area=nothing.astype(np.float32),
        )
        batch = jax.tree.map(lambda x: np.asarray(x)[None], prepare(example, 0, 0, self.canvas, 1))
        found = jax.device_get(self.apply(self.variables, batch.image)["box"])
        detections = unpad(found, 0, letterbox_of(batch, 0))
        return Result(pixels, name, detections.boxes, detections.scores, detections.labels, self.classes)


def read_image(path: Path) -> np.ndarray:
    """Decodes an image file to uint8 RGB, pixels as stored (an EXIF turn is not applied, as in COCO's tools).

    Raises:
      UserError: if there is no such file or it is no whole image.
    """
    try:
        return verify(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def find_images(sources: Sequence[str]) -> list[Path]:
    """The image files that a command line names: files, folders (their images, sorted), globs.

    Raises:
      UserError: if a source is not there or holds no image.
    """
    found: list[Path] = []
    for source in sources:
        path = Path(source)
        if path.is_file():
            matches = [path]
        elif path.is_dir():
            matches = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        else:
            parent = Path(path.anchor) if path.is_absolute() else Path()
            pattern = str(path.relative_to(path.anchor)) if path.is_absolute() else source
            globbed = any(c in source for c in "*?[")
            matches = sorted(p for p in parent.glob(pattern) if p.is_file()) if globbed else []
            if not globbed:
                near = (
                    configs.nearest(path.name, [p.name for p in path.parent.iterdir()])
                    if path.parent.is_dir()
                    else None
                )
                raise UserError(
                    f"{source}: no such file or folder" + (f"; did you mean {path.parent / near}?" if near else "")
                )
        if not matches:
            raise UserError(f"{source}: no image in it ({', '.join(sorted(IMAGE_SUFFIXES))})")
        found += matches
    return list(dict.fromkeys(found))


def load(workdir: str | Path, checkpoint: str = "best") -> Model:
    """The network of a run, with the averaged weights of a checkpoint.

    Args:
      checkpoint: `best`, `last`, or a step.

    Raises:
      UserError: if the folder is no run, or has no such checkpoint.
    """
    experiment = load_run(Path(workdir))
    predict = make_predict(experiment.network, experiment.tasks, experiment.train.precision)
    variables = restore_average(experiment, Path(workdir), make_mesh(jax.local_devices()[:1]), checkpoint)
    return Model(jax.jit(predict), variables, experiment.data.classes, experiment.canvas)


def predict_files(
    model: Model, paths: Sequence[Path], out: Path, *, score: float = 0.3, skip_bad: bool = False
) -> list[str]:
    """Predicts files into a folder: a drawn picture each, and `predictions.json`, a COCO results list.

    Args:
      out: made if missing; earlier predictions of the same names are replaced.
      score: detections below this are not drawn; `predictions.json` has them all.
      skip_bad: go on past files that cannot be read.

    Returns:
      What was skipped, one line a file.

    Raises:
      UserError: for the first unreadable file, unless `skip_bad`; for two inputs of one name.
    """
    names = [path.name for path in paths]
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice:
        raise UserError(f"two inputs are called {twice}: predict their folders into different --out folders")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be made a folder ({error.strerror})") from error
    bad: list[str] = []
    entries: list[dict[str, Any]] = []
    for path in tqdm(paths, unit="image", disable=not sys.stderr.isatty()):
        try:
            result = model(path)
        except UserError as error:
            if not skip_bad:
                raise
            bad.append(str(error))
            continue
        entries += result.to_coco()
        drawn = out / path.name
        if drawn.resolve() == path.resolve():
            raise UserError(f"{drawn} would be overwritten by its own picture: give another --out")
        result.save(drawn if drawn.suffix.lower() in (".jpg", ".jpeg", ".png") else drawn.with_suffix(".png"), score)
    write_atomically(out / "predictions.json", json.dumps(entries) + "\n")
    return bad


def draw_samples(workdir: Path, count: int = 8) -> list[Path]:
    """Draws the best checkpoint's predictions on a run's first validation images into `predictions/`.

    Args:
      count: images at most.
    """
    model, source = load(workdir), open_dataset(load_run(workdir).data.valid)
    out = workdir / "predictions"
    out.mkdir(exist_ok=True)
    examples = [source[i] for i in range(min(count, len(source)))]
    return [model(example.image).save(out / f"{Path(example.name).stem}.jpg") for example in examples]
