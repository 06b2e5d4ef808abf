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
from ylosia_jax import rle
from ylosia_jax.answers import ImageAnswer, unpad
from ylosia_jax.data.images import MAX_IMAGE_BYTES, decode_whole, verify
from ylosia_jax.data.order import assign_buckets
from ylosia_jax.data.pipeline import PLAIN, Needs, Style, prepare
from ylosia_jax.data.regions import SelectiveSearch
from ylosia_jax.evaluate import letterbox_of, make_predict
from ylosia_jax.experiment import Experiment
from ylosia_jax.files import write_atomically
from ylosia_jax.metrics.classification import BEST, order_of
from ylosia_jax.metrics.instances import ImageDetections, coco_results
from ylosia_jax.runs import load_run, restore_average
from ylosia_jax.train.sharding import make_mesh
from ylosia_jax.types import Example, Skeleton, UserError
from ylosia_jax.visualize.boxes import contact_sheet, palette
from ylosia_jax.visualize.categories import draw_category
from ylosia_jax.visualize.maps import draw_map
from ylosia_jax.visualize.objects import draw_objects

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp"})
STDIN = Path("-")

Image = np.ndarray | str | Path


@dataclasses.dataclass(frozen=True)
class Labels:
    """What a network's numbers mean.

    Attributes:
      classes: names of the things, or of the images' categories, by label.
      stuff: names of the semantic classes beyond them.
      skeleton: of the poses, if it finds any.
    """

    classes: tuple[str, ...]
    stuff: tuple[str, ...] = ()
    skeleton: Skeleton | None = None

    @property
    def semantic(self) -> tuple[str, ...]:
        """Names of the semantic classes."""
        return (*self.classes, *self.stuff)


@dataclasses.dataclass(frozen=True)
class Segments:
    """A panoptic map.

    Attributes:
      map: [H, W] int32, the number of each pixel's segment; 0 where there is none.
      labels: number -> semantic class; a thing's number is 1 + its row in the `Result`.
    """

    map: np.ndarray
    labels: dict[int, int]


@dataclasses.dataclass(frozen=True)
class Result:
    """The answer for one image, best first, in pixels of that image; None for what the network has no head for.

    Attributes:
      image: uint8 RGB, as it was given.
      name: the file's name; empty for an array.
      boxes: [N, 4] xyxy.
      scores: [N] in [0, 1].
      labels: [N] class index.
      meaning: of the numbers.
      rles: N masks as COCO's compressed run lengths.
      keypoints: [N, J, 3] x, y, and the score of being there; zeros for classes that have no poses.
      semantic: [H, W] uint8 semantic class.
      panoptic: segments.
      categories: [K] score of each class for the image as a whole, see `top`.
    """

    image: np.ndarray
    name: str
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    meaning: Labels
    rles: tuple[bytes, ...] | None = None
    keypoints: np.ndarray | None = None
    semantic: np.ndarray | None = None
    panoptic: Segments | None = None
    categories: np.ndarray | None = None

    @property
    def names(self) -> list[str]:
        """The class name of each detection."""
        return [self.meaning.classes[label] for label in self.labels]

    @property
    def masks(self) -> np.ndarray | None:
        """[N, H, W] bool."""
        if self.rles is None:
            return None
        size = (self.image.shape[0], self.image.shape[1])
        rows = [rle.decode(counts, size) for counts in self.rles]
        return np.stack(rows) if rows else np.zeros((0, *size), bool)

    def __len__(self) -> int:
        return len(self.scores)

    def top(self, k: int = BEST) -> list[tuple[str, float]]:
        """Names and scores of the k categories that the image shows most likely; none without such an answer."""
        if self.categories is None:
            return []
        return [(self.meaning.classes[label], float(self.categories[label])) for label in order_of(self.categories)[:k]]

    def above(self, score: float) -> "Result":
        """The detections with at least that score; the maps stay."""
        keep = self.scores >= score
        return dataclasses.replace(
            self,
            boxes=self.boxes[keep],
            scores=self.scores[keep],
            labels=self.labels[keep],
            rles=None if self.rles is None else tuple(r for r, k in zip(self.rles, keep, strict=True) if k),
            keypoints=None if self.keypoints is None else self.keypoints[keep],
        )

    def draw(self, score: float = 0.3) -> np.ndarray:
        """The image, uint8 RGB, with the detections of at least that score, and its best category with its score.

        Beside it are the maps, if there are any.
        """
        shown, names = self.above(score), self.meaning.semantic
        skeleton = self.meaning.skeleton
        panels = [
            draw_objects(
                self.image,
                shown.boxes,
                shown.scores,
                shown.labels,
                self.meaning.classes,
                masks=shown.masks,
                keypoints=shown.keypoints,
                edges=skeleton.edges if skeleton else (),
            )
        ]
        for name, best in self.top(1):
            colours = palette(len(self.meaning.classes))
            draw_category(panels[0], name, best, colours[self.meaning.classes.index(name)])
        if self.panoptic is not None:
            panels.append(draw_map(self.image, self.panoptic.map, self.panoptic.labels, names))
        elif self.semantic is not None:
            panels.append(draw_map(self.image, self.semantic, dict(enumerate(range(len(names)))), names))
        return panels[0] if len(panels) == 1 else contact_sheet(panels, len(panels))

    def save(self, path: str | Path, score: float = 0.3) -> Path:
        """Writes the drawn image; its suffix chooses the format."""
        path = Path(path)
        if path.suffix.lower() not in ("", *IMAGE_SUFFIXES):
            raise UserError(f"{path}: cannot write this format; use .png or .jpg")
        _, data = cv2.imencode(path.suffix or ".png", cv2.cvtColor(self.draw(score), cv2.COLOR_RGB2BGR))
        write_atomically(path, data.tobytes())
        return path

    def to_coco(self) -> list[dict[str, Any]]:
        """Entries of a COCO results list, with `image_id` the file's name."""
        found = ImageDetections(self.boxes, self.scores, self.labels, self.rles, self.keypoints)
        size = (self.image.shape[0], self.image.shape[1])
        return coco_results(self.name, found, self.meaning.classes, size)

    def to_category(self) -> dict[str, Any] | None:
        """The image's category as `categories.json` has it, with the best five; None without such an answer."""
        top = [{"category": name, "score": score} for name, score in self.top()]
        return {"image_id": self.name, **top[0], "top": top} if top else None

    def to_supervision(self) -> Any:
        """The same as `supervision.Detections`; the package `supervision` must be installed."""
        try:
            import supervision  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise UserError("to_supervision() needs the package supervision: pip install supervision") from error
        return supervision.Detections(
            xyxy=self.boxes,
            mask=self.masks,
            confidence=self.scores,
            class_id=self.labels,
            data={"class_name": np.array(self.names)},
        )


@dataclasses.dataclass(frozen=True)
class Model:
    """A network with its weights, called on images.

    Attributes:
      apply: compiled `(variables, image, known, regions) -> {head: answer}`.
      canvases: (height, width) of the network's inputs; an image is shown on the one that it is largest on.
      style: how images are drawn on it.
      regions: how regions are found for a network that does not propose its own.
    """

    apply: Callable[..., dict[str, Any]]
    variables: Any
    meaning: Labels
    canvases: tuple[tuple[int, int], ...]
    style: Style = PLAIN
    regions: SelectiveSearch | None = None

    def __call__(self, images: Image | Sequence[Image]) -> Any:
        """Predicts one image (a path or a uint8 RGB array) to a `Result`, or a list of them to a list.

        Images of any size; they go through the network one by one, so one program a canvas serves all.
        """
        if isinstance(images, np.ndarray | str | Path):
            return self._one(images)
        return [self._one(image) for image in images]

    def _one(self, image: Image) -> Result:
        name = "" if isinstance(image, np.ndarray) else name_of(Path(image))
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
        canvas = self.canvases[int(assign_buckets(np.array([pixels.shape[:2]]), self.canvases)[0])]
        ready = prepare(example, 0, 0, canvas, 1, Needs(regions=self.regions), self.style)
        batch = jax.tree.map(lambda x: np.asarray(x)[None], ready)
        found = jax.device_get(self.apply(self.variables, batch.image, None, batch.regions))
        return result_of(example, unpad(found, 0, letterbox_of(batch, 0, self.style), canvas), self.meaning)


def result_of(example: Example, answer: ImageAnswer, meaning: Labels) -> Result:
    """An answer about an image as what users get."""
    nothing = np.zeros(0)
    none = ImageDetections(np.zeros((0, 4), np.float32), nothing.astype(np.float32), nothing.astype(np.int32))
    detections = answer.detections or none
    return Result(
        image=example.image,
        name=example.name,
        boxes=detections.boxes,
        scores=detections.scores,
        labels=detections.labels,
        meaning=meaning,
        rles=detections.masks,
        keypoints=_posed(detections, meaning),
        semantic=answer.semantic,
        panoptic=None if answer.segments is None else Segments(answer.segments, answer.segment_labels),
        categories=answer.categories,
    )


def _posed(detections: ImageDetections, meaning: Labels) -> np.ndarray | None:
    """The poses without those of classes that have none, of which nobody taught the network anything."""
    if detections.keypoints is None or meaning.skeleton is None:
        return None
    posed = meaning.skeleton.classes or meaning.classes
    keep = np.array([name in posed for name in meaning.classes])
    return detections.keypoints * keep[detections.labels][:, None, None]


def name_of(path: Path) -> str:
    """What outputs call an input."""
    return "stdin.png" if path == STDIN else path.name


def read_image(path: Path) -> np.ndarray:
    """Decodes an image file to uint8 RGB, pixels as stored (an EXIF turn is not applied, as in COCO's tools).

    Args:
      path: `-` for standard input.

    Raises:
      UserError: if there is no such file or it is no whole image.
    """
    try:
        return decode_whole(sys.stdin.buffer.read(MAX_IMAGE_BYTES + 1)) if path == STDIN else verify(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def find_images(sources: Sequence[str]) -> list[Path]:
    """The image files that a command line names: files, folders (their images, sorted), globs, `-`.

    Raises:
      UserError: if a source is not there or holds no image.
    """
    found: list[Path] = []
    for source in sources:
        path = Path(source)
        if path == STDIN or path.is_file():
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
    data = experiment.data
    return Model(jax.jit(predict), variables, meaning_of(experiment), experiment.canvases, data.style, data.regions)


def meaning_of(experiment: Experiment) -> Labels:
    """What the numbers of an experiment's network mean."""
    data = experiment.data
    return Labels(data.classes, data.stuff, data.skeleton if "keypoint" in experiment.labels else None)


def predict_files(
    model: Model, paths: Sequence[Path], out: Path, *, score: float = 0.3, skip_bad: bool = False
) -> list[str]:
    """Predicts files into a folder: a drawn picture each, and `predictions.json`, a COCO results list.

    Categories stand in `categories.json`, an entry an image with the best five. Maps lie in `semantic/` and `panoptic/`
    as PNG, described by `semantic.json` and `panoptic.json`. All outputs have their input's name, with another suffix
    where need be; of inputs that differ in their suffixes alone, it is kept.

    Args:
      out: made if missing; earlier predictions of the same names are replaced.
      score: detections below this are not drawn; `predictions.json` has them all.
      skip_bad: go on past files that cannot be read.

    Returns:
      What was skipped, one line a file.

    Raises:
      UserError: for the first unreadable file, unless `skip_bad`; for two inputs of one name.
    """
    names = [name_of(path) for path in paths]
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice:
        raise UserError(f"two inputs are called {twice}: predict their folders into different --out folders")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be made a folder ({error.strerror})") from error
    stems = [Path(name).stem for name in names]
    bad: list[str] = []
    entries: list[dict[str, Any]] = []
    categories: list[dict[str, Any]] = []
    maps: dict[str, list[dict[str, Any]]] = {"semantic": [], "panoptic": []}
    for path, name, stem in zip(tqdm(paths, unit="image", disable=not sys.stderr.isatty()), names, stems, strict=True):
        try:
            result = model(path)
        except UserError as error:
            if not skip_bad:
                raise
            bad.append(str(error))
            continue
        entries += result.to_coco()
        if (category := result.to_category()) is not None:
            categories.append(category)
        stem = stem if stems.count(stem) == 1 else name
        for kind, entry in write_maps(result, out, stem).items():
            maps[kind].append(entry)
        drawn = out / (name if Path(name).suffix.lower() in (".jpg", ".jpeg", ".png") else f"{stem}.png")
        if drawn.resolve() == path.resolve():
            raise UserError(f"{drawn} would be overwritten by its own picture: give another --out")
        result.save(drawn, score)
    write_atomically(out / "predictions.json", json.dumps(entries) + "\n")
    if categories:
        write_atomically(out / "categories.json", json.dumps(categories) + "\n")
    names, things = model.meaning.semantic, len(model.meaning.classes)
    numbered = [{"id": k, "name": name, "isthing": int(k <= things)} for k, name in enumerate(names, start=1)]
    for kind, annotations in maps.items():
        if annotations:
            content = {"annotations": annotations, "categories": numbered}
            write_atomically(out / f"{kind}.json", json.dumps(content) + "\n")
    return bad


def write_maps(result: Result, out: Path, stem: str) -> dict[str, dict[str, Any]]:
    """Writes `semantic/<stem>.png` and `panoptic/<stem>.png`, as far as there are such maps.

    Both are in COCO's panoptic coding, number = R + 256 G + 65536 B. A semantic class's number is its index plus one.

    Returns:
      By kind of map, its entry in COCO's panoptic JSON; a semantic map has no segments.
    """
    entry = {"image_id": result.name, "file_name": f"{stem}.png"}
    entries: dict[str, dict[str, Any]] = {}
    for folder, numbers in (
        ("semantic", None if result.semantic is None else result.semantic.astype(np.int32) + 1),
        ("panoptic", None if result.panoptic is None else result.panoptic.map),
    ):
        if numbers is not None:
            coded = np.stack([numbers // 65536, numbers // 256 % 256, numbers % 256], axis=-1).astype(np.uint8)
            (out / folder).mkdir(exist_ok=True)
            write_atomically(out / folder / f"{stem}.png", cv2.imencode(".png", coded)[1].tobytes())  # OpenCV: B, G, R
            entries[folder] = entry
    if result.panoptic is None:
        return entries
    segments: list[dict[str, Any]] = []
    for number, label in sorted(result.panoptic.labels.items()):
        mask = (result.panoptic.map == number).astype(np.uint8)
        area, box = int(mask.sum()), [int(x) for x in cv2.boundingRect(mask)]
        segments.append({"id": number, "category_id": label + 1, "area": area, "bbox": box, "iscrowd": 0})
    return entries | {"panoptic": {**entry, "segments_info": segments}}


class Samples:
    """Remembers the latest answers about a few images, spread over a split, and draws them. An `evaluate.Watch`.

    Args:
      size: images of the split.
      count: images to remember, at most.
    """

    def __init__(self, size: int, count: int = 8) -> None:
        self._wanted = frozenset(i * size // count for i in range(count))
        self._seen: dict[int, tuple[Example, ImageAnswer]] = {}

    def __call__(self, index: int, example: Example, answer: ImageAnswer, /) -> None:
        """Looks at one answer."""
        if index in self._wanted:
            self._seen[index] = example, answer

    def draw(self, out: Path, meaning: Labels) -> list[Path]:
        """Draws what was seen into a folder, under the names of the images."""
        out.mkdir(parents=True, exist_ok=True)
        return [
            # A mixture's names begin with the number of the set: two sets may both have an image 1.jpg.
            result_of(example, answer, meaning).save(out / f"{'-'.join(Path(example.name).with_suffix('').parts)}.jpg")
            for _, (example, answer) in sorted(self._seen.items())
        ]
