"""Reads COCO's JSON for objects and keypoints (cocodataset.org, "Data format", 1 and 2): one file is one split.

Boxes come as `[x, y, width, height]` in pixels; `area` is that of the segmentation; `iscrowd` marks groups. Category
ids have gaps: labels count the categories in the order of their ids, and the ids are kept beside the names.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from pathlib import Path, PureWindowsPath
from reprlib import repr as brief
from typing import Any

from ylosia_jax.data import records
from ylosia_jax.data.skeletons import COCO_PERSON, mirror_of
from ylosia_jax.files import read_bytes
from ylosia_jax.types import Skeleton, UserError

MAX_JSON_BYTES = 2 << 30
SIGMA = 0.05  # of the points of a skeleton that is not COCO's person, whose annotators nobody has measured


def read(
    json_file: str | os.PathLike[str],
    *,
    split: str,
    images: str | os.PathLike[str] | None = None,
    skip_bad: bool = False,
) -> records.Imported:
    """Reads and checks one annotation file; see `records.gather` for what is checked.

    Args:
      json_file: with `images`, `annotations` and `categories`.
      split: the file's name among the set's splits.
      images: the folder that its image paths start from; by default the file's own.
      skip_bad: leave out images with anything wrong and import the rest; see `bad` of the result.

    Raises:
      UserError: if the file is not COCO's JSON, or if anything is wrong, listing the first ten things.
    """
    path = Path(json_file)
    folder = path.parent if images is None else Path(images)
    content = load(path)
    categories = read_categories(path, content["categories"])
    posed = {item["id"] for item in content["categories"] if item.get("keypoints")}
    objects, troubles, bad = _objects(path, content, categories, posed)
    entries = []
    for number, (image, repeats) in enumerate(zip(content["images"], repeated(content["images"]), strict=True)):
        where = f"{path}: image {brief(image['id']) if 'id' in image else f'number {number}'}"
        try:
            image_id, file = whole(image, "id"), file_name(image)
            size = (whole(image, "width"), whole(image, "height")) if {"width", "height"} & image.keys() else None
        except ValueError as error:
            entries.append(records.Entry(where, None, "", bad=[str(error)]))
            continue
        wrong = [*troubles.get(image_id, []), *repeats]
        entries.append(records.Entry(where, folder / file, file, objects.get(image_id, ()), size, image_id, wrong))
    check_folder(path, folder, entries)
    skeleton = _skeleton(path, content["categories"])
    order = tuple(sorted(categories))
    return records.gather(
        {split: entries},
        [categories[category] for category in order],
        source=path,
        skip_bad=skip_bad,
        bad=bad,
        notes=[*_mirrored(path, skeleton), *_left_out(path, content["annotations"], categories, posed)],
        category_ids=order,
        skeleton=skeleton,
    )


def repeated(images: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Of each image of a file what it shares with another one although it must not: its id, its file_name."""
    seen = {key: Counter(repr(image.get(key)) for image in images) for key in ("id", "file_name")}
    return [
        [
            f"another image has the same {key} {brief(image.get(key))}"
            for key, count in seen.items()
            if count[repr(image.get(key))] > 1
        ]
        for image in images
    ]


def check_folder(file: Path, folder: Path, entries: Sequence[records.Entry]) -> None:
    """Tells a wrong folder, which is one mistake, from images that are missing in the right one.

    Args:
      file: of the annotations.
      folder: that the images are looked for in.
      entries: of all images; those that could not be read have no path and are not counted.

    Raises:
      UserError: if the file lists no images, or none of them is in the folder.
    """
    if not entries:
        raise UserError(f"{file}: its list of images is empty")
    paths = [entry.image for entry in entries if isinstance(entry.image, Path)]
    if paths and not any(map(os.path.exists, paths)):
        raise UserError(f"none of the {len(paths)} images of {file} is in {folder}; name their folder with --images")


def load(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The lists `images`, `annotations` and `categories` of a file. UserError if it has them not."""
    try:
        data = read_bytes(path, MAX_JSON_BYTES)
        if not data.strip():
            raise ValueError("it is empty")
        content = json.loads(data)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as COCO's JSON: {error}") from error
    keys = ("images", "annotations", "categories")
    for key in keys:
        value = content.get(key) if isinstance(content, dict) else None
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise UserError(f"{path} is not COCO's JSON for object detection: it has no list of {key}")
    return {key: content[key] for key in keys}


def read_categories(path: Path, items: list[dict[str, Any]]) -> dict[int, str]:
    """Id -> name."""
    categories: dict[int, str] = {}
    for item in items:
        try:
            category, name = whole(item, "id"), item.get("name")
            if not isinstance(name, str):
                raise ValueError(f"name {brief(name)} is not a text")
            if category in categories:
                raise ValueError(f"{categories[category]!r} has the same id {category}")
        except ValueError as error:
            raise UserError(f"{path}: category {brief(item.get('name'))}: {error}") from error
        categories[category] = name.strip()
    return categories


def _skeleton(path: Path, items: list[dict[str, Any]]) -> Skeleton | None:
    """That of the categories that have one; they must agree."""
    posed = [item for item in items if item.get("keypoints")]
    if not posed:
        return None
    names, edges = posed[0]["keypoints"], posed[0].get("skeleton", [])
    if any(item["keypoints"] != names for item in posed):
        raise UserError(
            f"{path}: its categories have different keypoints; import those of each kind as a set of its own"
        )
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: the keypoints {brief(names)} are no list of names")
    names = tuple(names)
    known = COCO_PERSON if names == COCO_PERSON.names else None
    try:
        return Skeleton(
            names=names,
            mirror=mirror_of(names),
            edges=tuple((int(a) - 1, int(b) - 1) for a, b in edges),
            sigmas=known.sigmas if known else (SIGMA,) * len(names),
            classes=tuple(item["name"].strip() for item in posed),
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: the skeleton {brief(edges)} cannot be one: {error}") from error


def _mirrored(path: Path, skeleton: Skeleton | None) -> list[str]:
    """A note of the points that change places in a mirror, which only their names tell."""
    if skeleton is None or skeleton.names == COCO_PERSON.names:
        return []
    pairs = [(a, b) for a, b in enumerate(skeleton.mirror) if a < b]
    texts = ", ".join(f"{skeleton.names[a]} and {skeleton.names[b]}" for a, b in pairs)
    return [f"{path}: {texts or 'no two points'} change places in a mirror, as their names say"]


def _left_out(
    path: Path, annotations: list[dict[str, Any]], categories: Mapping[int, str], posed: Set[int]
) -> list[str]:
    """Notes of keypoints that cannot be kept, for their categories name none."""
    found = Counter(
        item["category_id"] for item in annotations if item.get("keypoints") and _is_whole(item, "category_id")
    )
    return [
        f"{path}: the keypoints of {records.count(number, 'object')} of {categories[category]!r} are left out, for the "
        "category names none"
        for category, number in found.items()
        if category in categories.keys() - posed
    ]


def _objects(
    path: Path, content: dict[str, list[dict[str, Any]]], categories: Mapping[int, str], posed: Set[int]
) -> tuple[dict[int, list[records.Object]], dict[int, list[str]], list[str]]:
    """Image id -> its objects, image id -> what is wrong with the others, and what belongs to no image."""
    objects: dict[int, list[records.Object]] = {
        image["id"]: [] for image in content["images"] if _is_whole(image, "id")
    }
    troubles: dict[int, list[str]] = {}
    bad: list[str] = []
    seen: set[int] = set()
    for number, annotation in enumerate(content["annotations"]):
        what = f"annotation {brief(annotation['id']) if 'id' in annotation else f'number {number}'}"
        if not _is_whole(annotation, "image_id") or annotation["image_id"] not in objects:
            bad.append(f"{path}: {what}: there is no image with its image_id {brief(annotation.get('image_id'))}")
            continue
        try:
            item = _object(annotation, what, categories, posed)
            if item.id in seen:
                raise ValueError("another annotation has the same id")
            objects[annotation["image_id"]].append(item)
            seen |= {item.id} - {-1}
        except ValueError as error:
            troubles.setdefault(annotation["image_id"], []).append(f"{what}: {error}")
    return objects, troubles, bad


def _object(annotation: dict[str, Any], what: str, categories: Mapping[int, str], posed: Set[int]) -> records.Object:
    category = whole(annotation, "category_id")
    if category not in categories:
        raise ValueError(f"its category_id {category} is not among the file's categories")
    box, area, crowd = annotation.get("bbox"), annotation.get("area"), annotation.get("iscrowd", 0)
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError(f"bbox {brief(box)} is not [x, y, width, height]")
    if crowd not in (0, 1):
        raise ValueError(f"iscrowd {brief(crowd)} is not 0 or 1")
    x, y, width, height = (_number("bbox", value) for value in box)
    return records.Object(
        what=f"{what} ({categories[category]})",
        name=categories[category],
        box=(x, y, x + width, y + height),
        area=None if area is None else _number("area", area),
        crowd=bool(crowd),
        id=whole(annotation, "id") if "id" in annotation else -1,
        segmentation=annotation.get("segmentation"),
        # An empty list, like one of polygons, says that nobody looked.
        keypoints=None if category not in posed or annotation.get("keypoints") == [] else annotation.get("keypoints"),
    )


def file_name(image: dict[str, Any]) -> str:
    """A relative path that stays in its folder. ValueError if it is none."""
    name = image.get("file_name")
    if not isinstance(name, str) or not name:
        raise ValueError(f"file_name {brief(name)} is not a text")
    windows = PureWindowsPath(name)
    if windows.drive or windows.root or ".." in windows.parts:
        raise ValueError(f"file_name {brief(name)} leads out of the folder of the images")
    return name


def _is_whole(item: dict[str, Any], key: str) -> bool:
    value = item.get(key)
    return type(value) is int and -(2**63) <= value < 2**63


def whole(item: dict[str, Any], key: str) -> int:
    """A field that is a whole number. ValueError if it is not."""
    if not _is_whole(item, key):
        raise ValueError(f"{key} {brief(item.get(key))} is not a whole number")
    return item[key]


def _number(key: str, value: Any) -> float:
    if type(value) not in (int, float):
        raise ValueError(f"{key} {brief(value)} is not a number")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{key} {brief(value)} is not finite") from None
