"""Drawing all that is known of the objects in an image."""

from collections.abc import Sequence

import numpy as np

from ylosia_jax.visualize.boxes import Colour, draw_boxes, palette
from ylosia_jax.visualize.maps import paint_masks, paint_poses, shade


def draw_objects(
    image: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray | None,
    labels: np.ndarray,
    names: Sequence[str],
    *,
    masks: np.ndarray | None = None,
    keypoints: np.ndarray | None = None,
    edges: Sequence[tuple[int, int]] = (),
) -> np.ndarray:
    """Boxes with their class and score, over masks and poses where those are given.

    Args:
      image: uint8 RGB [H, W, 3].
      boxes, scores, labels, names: as `draw_boxes` takes them.
      masks: [n, H, W] bool; those of one class differ in shade.
      keypoints: [n, J, 3] x, y in pixels of `image`, and a score or v.
      edges: pairs of points that lines connect.

    Returns:
      A new image, enlarged.
    """
    colours = palette(len(names))
    seen: dict[int, int] = {}
    tints: list[Colour] = []
    for label in np.asarray(labels).tolist():
        tints.append(shade(colours[label], seen.get(label, 0)))
        seen[label] = seen.get(label, 0) + 1

    def before(canvas: np.ndarray, order: np.ndarray) -> None:
        shades = [tints[i] for i in order]
        if masks is not None and len(masks):
            paint_masks(canvas, masks[order], shades)
        if keypoints is not None and len(keypoints):
            scale = np.array([canvas.shape[0] / image.shape[0]] * 2 + [1])
            paint_poses(canvas, keypoints[order] * scale, edges, shades)

    return draw_boxes(image, boxes, scores, labels, names, before=before)
