"""What the parity tests measured, for the table in the docs.

Each test appends its worst error to the file that $YLOSIA_PARITY names, and nothing without it; `make parity` sets it
and makes docs/parity.md of it.
"""

import csv
import os
from pathlib import Path


def record(system: str, quantity: str, error: float, bound: float) -> None:
    """Notes a measured error and fails where it is above its bound.

    Args:
      system: as its function in `ylosia_jax.systems` is called, with the size in brackets where there are several.
      quantity: what was compared: "forward", "boxes (px)", "scores", "loss", "gradient", "20 steps", …
      bound: infinite where nothing is asked for.
    """
    if path := os.environ.get("YLOSIA_PARITY"):
        with Path(path).open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow([system, quantity, f"{error:.3g}", f"{bound:.3g}"])
    assert error <= bound, f"{system}: {quantity} differs by {error:.3g}, more than {bound:.3g}"
