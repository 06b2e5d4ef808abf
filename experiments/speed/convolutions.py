"""Convolutions there and back as `ops.conv` has them, beside XLA's own in turns: `python …/speed/convolutions.py`.

Adds to `convolutions.csv` for each layer the medians of both in seconds, and their ratio; above 1, ours is faster. Rows
of the same version of jax are replaced.
"""

import argparse
import csv
import os
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import lax

from ylosia_jax.ops.conv import conv_general_dilated

# name: images, height, width, channels in, channels out, kernel, stride
LAYERS = {
    "pyramid p2": (4, 64, 80, 256, 256, 3, 1),
    "pyramid p3": (4, 32, 40, 256, 256, 3, 1),
    "mask head": (128, 14, 14, 256, 256, 3, 1),
    "ResNet-18 c3": (4, 32, 40, 128, 128, 3, 1),
    "ResNet-18 c4": (4, 16, 20, 256, 256, 3, 1),
    "ResNet-18 c5": (4, 8, 10, 512, 512, 3, 1),
    "n scale, p4": (16, 20, 20, 128, 128, 3, 1),
    "crops of 64 px, to c5": (128, 4, 4, 256, 512, 3, 2),
    "crops of 64 px, c5": (128, 2, 2, 512, 512, 3, 1),
}


def step(conv: Callable[..., Any], stride: int, pad: int) -> Callable[..., Any]:
    """The layer's output and both of its gradients."""

    def run(x: Any, kernel: Any, grad: Any) -> Any:
        def forward(x: Any, kernel: Any) -> Any:
            pads = ((pad, pad), (pad, pad))
            return conv(x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))

        y, back = jax.vjp(forward, x, kernel)
        return (y, *back(grad))

    return jax.jit(run)


def main() -> None:
    """Measures all layers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    rng, rows = np.random.default_rng(0), []
    for name, (count, height, width, features, out, size, stride) in LAYERS.items():
        x = rng.standard_normal((count, height, width, features), np.float32)
        kernel = rng.standard_normal((size, size, features, out), np.float32)
        grad = rng.standard_normal((count, -(-height // stride), -(-width // stride), out), np.float32)
        taken: dict[Any, list[float]] = {}
        runs = [step(conv, stride, size // 2) for conv in (lax.conv_general_dilated, conv_general_dilated)]
        for turn in range(rounds + 1):
            for run in runs:
                started = time.perf_counter()
                jax.block_until_ready(run(x, kernel, grad))
                if turn:  # the first compiles
                    taken.setdefault(run, []).append(time.perf_counter() - started)
        theirs, ours = (statistics.median(taken[run]) for run in runs)
        rows.append([name, f"{theirs:.4f}", f"{ours:.4f}", f"{theirs / ours:.2f}", version("jax"), os.cpu_count()])
        print(*rows[-1], sep=",", flush=True)
    table = Path(__file__).with_name("convolutions.csv")
    before = list(csv.reader(table.read_text().splitlines()))[1:] if table.exists() else []
    others = [row for row in before if row[4] != version("jax")]
    with table.open("w", newline="") as file:
        header = ["layer", "lax_seconds", "ours_seconds", "ratio", "jax", "cores"]
        csv.writer(file, lineterminator="\n").writerows([header, *others, *rows])


if __name__ == "__main__":
    main()
