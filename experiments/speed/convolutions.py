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
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import lax

from ylosia_jax.ops.conv import conv_general_dilated, conv_transpose

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
# Transposed ones.
ENLARGED = {"mask head, enlarged": (32, 14, 14, 256, 256, 2, 2)}
SIDES = (lax.conv_general_dilated, conv_general_dilated)


def step(forward: Callable[..., Any]) -> Callable[..., Any]:
    """The layer's output and both of its gradients."""

    def run(x: Any, kernel: Any, grad: Any) -> Any:
        y, back = jax.vjp(forward, x, kernel)
        return (y, *back(grad))

    return jax.jit(run)


def plain(conv: Callable[..., Any], size: int, stride: int) -> Callable[..., Any]:
    """A convolution that keeps the map's size, but for its stride."""
    pads = ((size // 2, size // 2),) * 2
    return lambda x, kernel: conv(x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def dilated(x: Any, kernel: Any, size: int, stride: int) -> Any:
    """A transposed convolution as one of a map filled up with zeros."""
    return lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1],
        (1, 1),
        ((size - 1, size - 1),) * 2,
        lhs_dilation=(stride, stride),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def main() -> None:
    """Measures all layers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    rng, rows = np.random.default_rng(0), []
    for name, (count, height, width, features, out, size, stride) in (LAYERS | ENLARGED).items():
        x = rng.standard_normal((count, height, width, features), np.float32)
        kernel = rng.standard_normal((size, size, features, out), np.float32)
        sides = [plain(conv, size, stride) for conv in SIDES]
        if name in ENLARGED:
            sides = [partial(dilated, size=size, stride=stride), partial(conv_transpose, stride=stride)]
        grad = rng.standard_normal(jax.eval_shape(sides[0], x, kernel).shape, np.float32)
        taken: dict[Any, list[float]] = {}
        runs = [step(forward) for forward in sides]
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
