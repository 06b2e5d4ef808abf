"""Writing on an image what it shows as a whole."""

import numpy as np

from ylosia_jax.visualize.boxes import Colour, Plate, draw_plates


def draw_category(canvas: np.ndarray, name: str, score: float, colour: Colour) -> None:
    """Writes a category and its score into the upper left corner, in place.

    Args:
      canvas: an image that is enlarged already, uint8 RGB [H, W, 3].
    """
    height, width = canvas.shape[:2]
    draw_plates(canvas, [Plate(f"{name} {score:.2f}", np.array([0, 0, width, height]), colour)])
