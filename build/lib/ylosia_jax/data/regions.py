"""Regions of an image in which there may be objects, found without a network."""

import contextlib
import dataclasses
import hashlib
import io
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from ylosia_jax.data.store import root
from ylosia_jax.files import write_atomically

_VERSION = 1  # of what is remembered: another number forgets it all


@dataclasses.dataclass(frozen=True)
class SelectiveSearch:
    """Boxes round the parts of an image that a hierarchy of merging finds (Uijlings et al., IJCV 2013).

    Found by OpenCV's contributed module, and remembered beside the data: an image is searched once. The same image
    always gives the same regions.

    Attributes:
      mode: how many colour spaces, similarities and scales take part: "fast" 8 strategies, "quality" 80.
      side: the image's longer side is shrunk to this many pixels first; the time goes with the square.
      count: regions an image at most; where there are more chance decides, the same way every time.
      min_side: regions with a shorter side are left out, in pixels of the image.
    """

    mode: Literal["fast", "quality"] = "fast"
    side: int = 500
    count: int = 2000
    min_side: float = 10.0

    def __post_init__(self) -> None:
        for name in ("side", "count"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give at least 1")

    def __call__(self, image: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "r 4"]:
        """Regions of an RGB image, xyxy in its pixels; at most `count` rows, none where nothing is found."""
        digest = hashlib.sha256(repr((_VERSION, self, image.shape)).encode() + image.tobytes()).hexdigest()
        place = root() / ".regions" / digest[:2] / f"{digest[2:]}.npy"
        found = _remembered(place)
        if found is None:
            found = self._search(image)
            _remember(place, found)
        return found

    def _search(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        scale = min(self.side / max(height, width), 1.0)
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        search: Any = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
        search.setBaseImage(cv2.resize(image[..., ::-1], size, interpolation=cv2.INTER_AREA))
        search.switchToSelectiveSearchFast() if self.mode == "fast" else search.switchToSelectiveSearchQuality()
        # OpenCV returns the same boxes in an order that it draws anew every time.
        boxes = np.unique(np.array(search.process(), np.int32).reshape(-1, 4), axis=0)
        boxes = np.random.default_rng(0).permutation(boxes).astype(np.float32)
        boxes[:, 2:] += boxes[:, :2]
        boxes *= np.array([width / size[0], height / size[1]] * 2, np.float32)
        large = (boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= self.min_side
        return boxes[large][: self.count]


def _remembered(place: Path) -> np.ndarray | None:
    try:
        found = np.load(place, allow_pickle=False)
    except (OSError, ValueError):
        return None  # never searched, or damaged
    return found if found.ndim == 2 and found.shape[1] == 4 and found.dtype == np.float32 else None


def _remember(place: Path, boxes: np.ndarray) -> None:
    """Keeps what was found; where nothing can be written it is searched again the next time."""
    content = io.BytesIO()
    np.save(content, boxes, allow_pickle=False)
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, content.getvalue())
