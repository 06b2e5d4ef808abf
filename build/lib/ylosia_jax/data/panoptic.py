"""Reads COCO's panoptic JSON with its PNGs (cocodataset.org, "Data format", 4): one file is one split.

A PNG's pixel has the number of its segment, R + 256 G + 65536 B; 0 belongs to none. Segments of things become objects
with masks, all segments together the semantic map, in which pixels of none are void.
"""

import os
from pathlib import Path
from reprlib import repr as brief
from typing import Any

import cv2
import numpy as np

from ylosia_jax import rle
from ylosia_jax.data import coco, records
from ylosia_jax.data.images import read_numbers
from ylosia_jax.types import VOID, UserError


def read(
    json_file: str | os.PathLike[str],
    *,
    split: str,
    images: str | os.PathLike[str] | None = None,
    skip_bad: bool = False,
) -> records.Imported:
    """Reads and checks one annotation file; see `records.gather` for what is checked.

    Beyond that it is bad if a PNG is missing or of another size than its image, has a number that the JSON has no
    segment for, or if the JSON has an image or a segment twice, a segment without a pixel or an annotation of no
    image.

    Args:
      json_file: with `images`, `annotations` and `categories`; its PNGs lie in the folder of its name without `.json`.
      split: the file's name among the set's splits.
      images: the folder that its image paths start from; by default the file's own.
      skip_bad: leave out images with anything wrong and import the rest; see `bad` of the result.

    Raises:
      UserError: if the file is not COCO's panoptic JSON, or if anything is wrong, listing the first ten things.
    """
    path = Path(json_file)
    folder, maps = (path.parent if images is None else Path(images)), path.with_suffix("")
    content = coco.load(path)
    if not maps.is_dir():
        raise UserError(f"{maps} is missing: the PNGs of {path.name} lie in the folder of its name without .json")
    all_names = coco.read_categories(path, content["categories"])
    for item in content["categories"]:
        if item.get("isthing") not in (0, 1):
            what = f"the isthing of category {item['id']} is {brief(item.get('isthing'))}"
            raise UserError(f"{path}: {what}, not 0 or 1: say of each whether it can be counted")
    things = sorted(item["id"] for item in content["categories"] if item["isthing"])
    names = {category: all_names[category] for category in [*things, *sorted(all_names.keys() - set(things))]}
    labels = {category: label for label, category in enumerate(names)}
    if len(labels) > VOID:
        raise UserError(f"{path}: {len(labels)} categories are more than the {VOID} that a map of bytes tells apart")
    annotations: dict[int, list[dict[str, Any]]] = {}
    bad: list[str] = []
    for number, item in enumerate(content["annotations"]):
        try:
            annotations.setdefault(coco.whole(item, "image_id"), []).append(item)
        except ValueError as error:
            bad.append(f"{path}: annotation number {number}: {error}")
    entries: list[records.Entry] = []
    for number, (image, repeats) in enumerate(zip(content["images"], coco.repeated(content["images"]), strict=True)):
        where = f"{path}: image {brief(image['id']) if 'id' in image else f'number {number}'}"
        try:
            image_id, file = coco.whole(image, "id"), coco.file_name(image)
            size = coco.whole(image, "width"), coco.whole(image, "height")
            if repeats:
                raise ValueError(repeats[0])
            mine = annotations.get(image_id, [])
            if len(mine) != 1:
                raise ValueError(f"it has {len(mine)} annotations, not one")
            png = maps / coco.file_name(mine[0])
            objects, table = _segments(mine[0], png, (size[1], size[0]), labels, names, set(things))
        except (OSError, ValueError) as error:
            entries.append(records.Entry(where, None, "", bad=[str(error)]))
            continue

        def semantic(png: Path = png, table: dict[int, int] = table) -> np.ndarray:
            numbers = _numbers(png)
            found, places = np.unique(numbers, return_inverse=True)
            return np.array([table.get(n, VOID) for n in found.tolist()], np.uint8)[places].reshape(numbers.shape)

        entries.append(records.Entry(where, folder / file, file, objects, size, image_id, semantic=semantic))
    ids = {image.get("id") for image in content["images"] if type(image.get("id")) is int}
    bad += [f"{path}: there is no image with the image_id {image_id}" for image_id in sorted(annotations.keys() - ids)]
    coco.check_folder(path, folder, entries)
    return records.gather(
        {split: entries},
        [names[category] for category in things],
        source=path,
        skip_bad=skip_bad,
        bad=bad,
        category_ids=tuple(things),
        stuff=[name for category, name in names.items() if category not in set(things)],
    )


def _segments(
    annotation: dict[str, Any],
    png: Path,
    size: tuple[int, int],
    labels: dict[int, int],
    names: dict[int, str],
    things: set[int],
) -> tuple[list[records.Object], dict[int, int]]:
    """The things among an image's segments, and segment's number -> semantic class."""
    numbers = _numbers(png)
    if numbers.shape != size:
        raise ValueError(f"{png} is {numbers.shape[1]}x{numbers.shape[0]}, its image {size[1]}x{size[0]}")
    there = set(np.unique(numbers).tolist()) - {0}
    objects: list[records.Object] = []
    table: dict[int, int] = {}
    segments = annotation.get("segments_info")
    if not isinstance(segments, list) or not all(isinstance(segment, dict) for segment in segments):
        raise ValueError(f"its segments_info {brief(segments)} is no list of segments")
    for segment in segments:
        number, category = coco.whole(segment, "id"), coco.whole(segment, "category_id")
        what = f"segment {number}"
        if segment.get("iscrowd", 0) not in (0, 1):
            raise ValueError(f"{what}: iscrowd {brief(segment['iscrowd'])} is not 0 or 1")
        if category not in labels:
            raise ValueError(f"{what}: its category_id {category} is not among the file's categories")
        if number in table:
            raise ValueError(f"{what}: another segment has the same id")
        if number not in there:
            raise ValueError(f"{what}: no pixel of {png} has its id")
        table[number] = labels[category]
        if category in things:
            mask = numbers == number
            x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
            objects.append(
                records.Object(
                    what=f"{what} ({names[category]})",
                    name=names[category],
                    box=(x, y, x + w, y + h),
                    area=int(mask.sum()),
                    crowd=bool(segment.get("iscrowd", 0)),
                    id=number,
                    segmentation={"size": list(size), "counts": rle.encode(mask)},
                )
            )
    if unknown := sorted(there - table.keys()):
        raise ValueError(f"{png} has pixels of segment {unknown[0]}, which the JSON does not list")
    return objects, table


def _numbers(png: Path) -> np.ndarray:
    """[H, W] the segment of each pixel."""
    coded = read_numbers(png)
    if coded.ndim != 3 or coded.shape[2] < 3 or coded.dtype != np.uint8:
        raise ValueError(f"{png}: it is no PNG of three channels of bytes")
    blue, green, red = (coded[..., channel].astype(np.int32) for channel in range(3))
    return red + 256 * green + 65536 * blue
