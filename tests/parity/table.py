"""Makes docs/parity.md of what the parity tests measured: python tests/parity/table.py MEASURED.csv docs/parity.md."""

import csv
import math
import sys
from pathlib import Path

HEAD = """# Parity

The same weights, images and truth in both: how far these systems are from torchvision's, or from what is named instead.
Each number is the worst of all tests of that name, and in brackets is what a test may not exceed. Networks compute in
float32 with the highest precision of products.

- forward: absolute, of any output; boxes: in pixels, and scores: of the best 100 detections
- loss: relative
- gradient: of one step, of the worst parameter, its distance in norm from torch's in float64, relative. In float32
  rounding decides for one in a million units whether its ReLU is on, which in some networks moves gradients by more
  than the 1e-3 that is asked for. There, torch's own gradient in float32 was taken eight times, every weight off by a
  rounding error, and ours may be three times as far as the farthest of those: the second table has how far that was.
  In classifiers a parameter's gradient counts as no smaller than a thousandth of the whole gradient; the bias before
  Keypoint R-CNN's softmax has none, and may have 1e-5
- gradient (float64): the same with both sides in float64
- 20 steps: of gradient descent, the difference of the losses, as a share of the first. Small networks are trained in
  float64 on both sides; those in full size, but for R-CNNs, in float32

YOLOX's reference is its published ONNX file, which has no loss; R-CNN and Fast R-CNN have none for the whole network.
What they are learned by has NumPy twins (`tests/ops`, `tests/systems`).

`make parity` runs the tests and writes this page.
"""
# What systems are asked; whatever else was measured stands in a list of its own.
COLUMNS = ("forward", "boxes (px)", "scores", "loss", "gradient", "gradient (float64)", "20 steps")

Worst = dict[tuple[str, str], tuple[float, float]]


def worst(rows: list[list[str]]) -> Worst:
    """The largest error, and its bound, of each system and quantity: that which came nearest to its bound."""
    found: Worst = {}
    for system, quantity, error, bound in rows:
        new = float(error), float(bound)
        old = found.get((system, quantity))
        if old is None or _share(new) > _share(old):
            found[system, quantity] = new
    return found


def _share(measured: tuple[float, float]) -> float:
    """How much of its bound an error takes; itself, where there is none."""
    error, bound = measured
    return error / bound if 0 < bound < math.inf else error


def page(found: Worst) -> str:
    """The whole page."""
    systems = sorted({system for system, quantity in found if quantity in COLUMNS})
    lines = [HEAD, f"| system | {' | '.join(COLUMNS)} |", f"|---|{'---|' * len(COLUMNS)}"]
    for system in systems:
        cells = [_cell(found[system, column]) if (system, column) in found else "" for column in COLUMNS]
        lines.append(f"| {system} | {' | '.join(cells)} |")
    others = sorted(key for key in found if key[1] not in COLUMNS)
    if others:
        lines += ["", "| of | what | error (bound) |", "|---|---|---|"]
        lines += [f"| {system} | {quantity} | {_cell(found[system, quantity])} |" for system, quantity in others]
    return "\n".join(lines) + "\n"


def _cell(measured: tuple[float, float]) -> str:
    error, bound = measured
    shown = f"{error:.1e} ({bound:.1e})" if bound else f"{error:g} (0)"
    return shown.removesuffix(" (inf)").replace(".0e", "e")


def main(source: str, target: str) -> None:
    with Path(source).open(newline="") as file:
        Path(target).write_text(page(worst(list(csv.reader(file)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
