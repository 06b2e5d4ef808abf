"""From sources to batches: letterbox, pad, shuffle, shard, batch. Everything here runs on the host, in threads."""

import dataclasses
import itertools
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import cv2
import grain
import jax
import numpy as np

from ylosia_jax import rle
from ylosia_jax.data.augment import FILL
from ylosia_jax.data.mixture import Mixed
from ylosia_jax.data.order import buckets_of, each_at_first, filled_canvases, shuffled
from ylosia_jax.data.regions import SelectiveSearch
from ylosia_jax.types import VOID, Batch, Example, Objects, Rois, Source

# How a picture gets its size on the canvas. area: sides are rounded, and of one that shrinks each pixel is the mean of
# those that it covers. bilinear: the way of YOLOX and of other detectors that OpenCV feeds. Each pixel lies between the
# four nearest, and what is between those is skipped; sides are rounded down, but boxes scaled as if they were not.
Resize = Literal["area", "bilinear"]


@dataclasses.dataclass(frozen=True)
class Style:
    """How pictures are drawn on their canvas.

    Attributes:
      resize: how they get their size.
      fill: value, from 0 to 255, of the grey where there is no picture.
      stretch: whether they fill the canvas, instead of keeping their shape.
    """

    resize: Resize = "area"
    fill: int = FILL
    stretch: bool = False


PLAIN = Style()


@dataclasses.dataclass(frozen=True)
class Letterbox:
    """Resize into the top left corner of a fixed canvas, aspect-preserving if not asked else, and its exact inverse.

    The picture becomes a whole number of pixels, so width and height may differ in scale by a fraction of a pixel over
    the whole side; `scale` holds both factors, and undoing divides by just them.

    Attributes:
      size: the picture's (height, width).
      extent: its (height, width) on the canvas.
      style: how it gets that, and what is around it.
    """

    size: tuple[int, int]
    extent: tuple[int, int]
    style: Style = PLAIN

    @classmethod
    def fit(cls, size: tuple[int, int], canvas: tuple[int, int], style: Style = PLAIN) -> "Letterbox":
        """The largest picture of `size`'s aspect that fits the canvas, or one stretched to it."""
        if style.stretch:
            return cls(size, canvas, style)
        ratio = min(canvas[0] / size[0], canvas[1] / size[1])
        # The side that fills the canvas may miss it by a rounding error.
        sides = [round(side * ratio) if style.resize == "area" else int(side * ratio + 1e-6) for side in size]
        height, width = (min(max(side, 1), limit) for side, limit in zip(sides, canvas, strict=True))
        return cls(size, (height, width), style)

    @property
    def scale(self) -> np.ndarray:
        """Canvas pixels a picture pixel becomes, as (x, y, x, y)."""
        height, width = (new / old for new, old in zip(self.extent, self.size, strict=True))
        if self.style.resize == "bilinear" and not self.style.stretch:
            # One of them fills the canvas, and was not rounded.
            height = width = max(height, width)
        return np.array([width, height, width, height])

    def apply(self, image: np.ndarray, canvas: tuple[int, int]) -> np.ndarray:
        """Draws the picture on the canvas; the rest is filled. What is enlarged is interpolated."""
        height, width = self.extent
        if self.style.resize == "area":
            # First what shrinks, for OpenCV averages nothing where the other side grows.
            smaller = min(width, self.size[1]), min(height, self.size[0])
            image = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
        page = np.full((*canvas, 3), self.style.fill, np.uint8)
        page[:height, :width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        return page

    def apply_labels(self, labels: np.ndarray, canvas: tuple[int, int], fill: int) -> np.ndarray:
        """Draws a map of numbers [H, W] uint8 on the canvas, each pixel the one nearest to it; the rest is `fill`."""
        height, width = self.extent
        page = np.full(canvas, fill, np.uint8)
        page[:height, :width] = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        return page

    def encode(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes [n, 4] of the picture in pixels of the canvas."""
        return (boxes * self.scale).astype(np.float32)

    def decode(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes [n, 4] of the canvas in pixels of the picture, clipped to it."""
        height, width = self.size
        return np.clip(boxes / self.scale, 0, [width, height, width, height]).astype(np.float32)


def canvas_of(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the canvas that an `image_size` names; one number is a square."""
    return (image_size, image_size) if isinstance(image_size, int) else image_size


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a run's batches hold beside boxes; what no task asks for is neither made nor carried.

    Attributes:
      masks: `Batch.instances` and `Objects.masked`.
      points: J, the points of a pose; 0 for no `Objects.keypoints`.
      semantic: `Batch.semantic`.
      categories: `Batch.category`.
      classes: K for `Batch.known`; 0 where every image has all of its objects labelled.
      sources: S for `Batch.source`; 0 where all images come from one set.
      regions: finds `Batch.regions`; None for none.
    """

    masks: bool = False
    points: int = 0
    semantic: bool = False
    categories: bool = False
    classes: int = 0
    sources: int = 0
    regions: SelectiveSearch | None = None


READY_BYTES = 256 << 20
MOST_MASKS = 254  # objects that a map of bytes tells apart


def instance_map(masks: Sequence[bytes], rows: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """[H, W] uint8: 1 + i where the mask number `rows[i]` is the topmost, 0 where there is none.

    Where masks overlap, the smaller lies on top.
    """
    decoded = [rle.decode(masks[row], size) for row in rows]
    page = np.zeros(size, np.uint8)
    for i in sorted(range(len(rows)), key=lambda i: -int(decoded[i].sum())):
        page[decoded[i]] = i + 1
    return page


def prepare(
    example: Example,
    index: int,
    epoch: int,
    canvas: tuple[int, int],
    max_objects: int,
    needs: Needs | None = None,
    style: Style = PLAIN,
) -> Batch:
    """One example on its canvas, padded: a `Batch` without the batch axis.

    An example with more than `max_objects` objects keeps its largest and warns: a network that is shown no truth for
    the rest learns them as background.

    Args:
      needs: what is prepared beside boxes; what the example does not know is marked as unknown.
      style: how the picture is drawn.
    """
    needs = needs or Needs()
    box = Letterbox.fit((example.image.shape[0], example.image.shape[1]), canvas, style)
    keep = np.arange(len(example.labels))
    if len(keep) > max_objects:
        warnings.warn(
            f"{example.name} has {len(keep)} objects, and data.max_objects is {max_objects}: the smallest are left out",
            stacklevel=2,
        )
        keep = np.sort(np.argsort(-example.area, kind="stable")[:max_objects])

    def pad(values: np.ndarray) -> Any:
        rows = np.zeros((max_objects, *values.shape[1:]), values.dtype)
        rows[: len(keep)] = values[keep]
        return rows

    def array(value: Any, dtype: Any) -> Any:
        return np.array(value, dtype)

    def draw(labels: np.ndarray | None, fill: int) -> Any:
        return np.full(canvas, fill, np.uint8) if labels is None else box.apply_labels(labels, canvas, fill)

    masked = keypoints = known = instances = semantic = category = None
    if needs.masks:
        masks = example.masks or (b"",) * len(example.labels)
        # Crowds go unmasked: nothing is learned from their shape, and they would cover the single objects in them.
        rows = [int(row) for row in keep if masks[row] and not example.crowd[row]]
        places = np.append(0, 1 + np.searchsorted(keep, rows)).astype(np.uint8)
        instances = draw(places[instance_map(masks, rows, box.size)] if rows else None, 0)
        # Of one that lies wholly under others, or that is too small for the canvas, nobody sees the shape.
        masked = array(np.isin(1 + np.arange(max_objects), instances), bool)
    if needs.points:
        points = np.zeros((len(example.labels), needs.points, 3)) if example.keypoints is None else example.keypoints
        seen = points[..., 2:] > 0
        keypoints = pad(np.concatenate([points[..., :2] * box.scale[:2] * seen, points[..., 2:]], -1, dtype=np.float32))
    if needs.semantic:
        semantic = draw(example.semantic, VOID)
    if needs.categories:
        category = array(-1 if example.category is None else example.category, np.int32)
    if needs.classes:
        known = array(np.ones(needs.classes) if example.known is None else example.known, bool)

    regions = None if needs.regions is None else regions_of(example.image, needs.regions, box, canvas)
    image: Any = box.apply(example.image, canvas)
    return Batch(
        image=image,
        extent=array(box.extent, np.float32),
        size=array(box.size, np.float32),
        index=array(index, np.int32),
        epoch=array(epoch, np.int32),
        objects=Objects(
            boxes=pad(box.encode(example.boxes)),
            labels=pad(example.labels.astype(np.int32)),
            valid=pad(np.ones(len(example.labels), bool)),
            crowd=pad(example.crowd),
            masked=masked,
            keypoints=keypoints,
        ),
        known=known,
        source=np.arange(needs.sources) == example.source if needs.sources else None,
        instances=instances,
        semantic=semantic,
        category=category,
        regions=regions,
    )


def regions_of(image: np.ndarray, search: SelectiveSearch, box: Letterbox, canvas: tuple[int, int]) -> Rois:
    """An image's regions in pixels of its canvas, padded to as many as it may have."""
    found = search(image)
    boxes: Any = np.zeros((search.count, 4), np.float32)
    boxes[: len(found)] = box.encode(found)
    valid: Any = np.arange(search.count) < len(found)
    nothing: Any = np.zeros(search.count, np.int32)
    return Rois(boxes=boxes, valid=valid, index=nothing, kind=nothing, canvas=canvas)


def stack(items: list[Batch]) -> Batch:
    """Adds the batch axis."""
    return jax.tree.map(lambda *x: np.stack(x), *items)


def train_batches(
    source: Source,
    *,
    canvases: Sequence[tuple[int, int]],
    batch_size: int,
    max_objects: int,
    seed: int,
    needs: Needs | None = None,
    style: Style = PLAIN,
    process: int = 0,
    processes: int = 1,
    threads: int = 2,
    steps: int = 2**31,
    cache: int = 0,
) -> grain.DatasetIterator:
    """A checkpointable iterator over this host's rows of every global batch.

    Each epoch is shuffled anew from the seed, and batches run across the seam between epochs, so every example is seen
    equally often. The sets of a mixture are shuffled each on its own and take turns, so that every batch has as much of
    each as any other, to one image: batch norm sees the same mixture in every step (of images of one canvas). Global
    batch t holds the shuffled stream's examples t * batch_size and on, in that order, and a host gets a block of rows:
    the global batch is the same for any number of hosts, and the iterator's state is its number of batches, valid for
    any number of hosts too.

    With several canvases each batch is of one: images are sorted by which shows them largest, those of each are
    shuffled on their own, and its batches take turns with the others' in proportion; every canvas has one of the first
    batches, so that all is compiled, and its memory taken, before anything is learned. A canvas that has no batch full
    of images is not used.

    Args:
      canvases: (height, width) of each, see `assign_buckets`.
      batch_size: of the global batch, over all hosts.
      needs: what batches hold beside boxes.
      style: how pictures are drawn.
      threads: that read and decode; batches stay in order. They keep 4 batches ready, or `READY_BYTES` of small ones.
      steps: batches of the whole run, none is read beyond.
      cache: bytes of prepared examples that are kept, so that later epochs need not read them again.
    """
    if batch_size % processes:
        raise ValueError(f"data.batch_size {batch_size} is not divisible by the {processes} hosts")
    rows = batch_size // processes
    canvases = filled_canvases(source, canvases, batch_size)
    item_bytes = max(height * width for height, width in canvases) * 5  # the image and two maps
    kept: dict[int, Batch] = {}
    buckets = buckets_of(source, canvases)
    ends = np.cumsum(source.counts if isinstance(source, Mixed) else (len(source),))
    orders = [shuffled(np.diff(np.searchsorted(own, ends), prepend=0).tolist(), seed) for own in buckets]
    whose = each_at_first([len(own) for own in buckets])

    def load(batch: int) -> Batch:
        number, nth = whose(batch)
        own, order, first = buckets[number], orders[number], nth * batch_size + process * rows
        places = [(int(own[order(i)]), i // len(own)) for i in range(first, first + rows)]
        return stack([item(index, epoch, canvases[number]) for index, epoch in places])

    def item(index: int, epoch: int, canvas: tuple[int, int]) -> Batch:
        if index in kept:
            return kept[index].replace(epoch=np.array(epoch, np.int32))  # type: ignore[attr-defined]
        made = prepare(source[index], index, epoch, canvas, max_objects, needs, style)
        if len(kept) < cache // item_bytes:
            kept[index] = made
        return made

    # What is read while the step compiles takes no time from training.
    ready = max(4, READY_BYTES // (rows * item_bytes))
    batches = grain.MapDataset.range(steps).map(load)
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ready)))


def eval_batches(
    source: Source,
    *,
    canvases: Sequence[tuple[int, int]],
    batch_size: int,
    style: Style = PLAIN,
    regions: SelectiveSearch | None = None,
    process: int = 0,
    processes: int = 1,
) -> Iterator[tuple[Batch, list[Example]]]:
    """This host's share of a split, in order, once, with the examples themselves.

    The images of each canvas come after those of the one before, see `assign_buckets`. Its last batch is filled with
    images of nothing but the grey of `style`, whose `index` is -1. Every host gets the same number of batches, since
    the hosts run the network together.
    """
    rows = batch_size // processes
    for canvas, places in zip(canvases, buckets_of(source, canvases), strict=True):
        blank = Example(
            image=np.full((*canvas, 3), style.fill, np.uint8),
            name="",
            boxes=np.zeros((0, 4), np.float32),
            labels=np.zeros(0, np.int32),
            crowd=np.zeros(0, bool),
            area=np.zeros(0, np.float32),
        )
        indices = iter(places[process::processes])
        for _ in range(-(-len(places[::processes]) // rows)):
            chosen = list(itertools.islice(indices, rows))
            examples = [source[i] for i in chosen]
            needs = Needs(regions=regions)
            items = [
                prepare(e, i, 0, canvas, max(len(e.labels), 1), needs, style)
                for i, e in zip(chosen, examples, strict=True)
            ]
            if len(chosen) < rows:
                items += [prepare(blank, -1, 0, canvas, 1, needs, style)] * (rows - len(chosen))
            # The network needs no truth to predict: none travels to the device.
            items = [item.replace(objects=None) for item in items]
            yield stack(items), examples
