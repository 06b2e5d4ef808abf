"""How much longer all answers take than boxes alone: `python experiments/joint_vs_single/latency.py RUNS`.

RUNS is the folder with `joint-0` and `box-0`, which run.py trained. Both predict the same scenes in turns, from the
letterboxed image to the answers on the canvas; the ratio is the median over the images. Writes latency.csv.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from seeds import processor

from ylosia_jax.data.pipeline import Needs, prepare, stack
from ylosia_jax.data.scenes import Scenes
from ylosia_jax.evaluate import make_predict
from ylosia_jax.files import write_atomically
from ylosia_jax.runs import load_run, restore_average
from ylosia_jax.train.sharding import make_mesh

HERE = Path(__file__).parent


def timed(run: Path, images: list[np.ndarray]) -> Callable[[int], float]:
    """Seconds that a run's prediction takes for one of the images."""
    experiment = load_run(run)
    variables = restore_average(experiment, run, make_mesh(), "last")
    predict = jax.jit(make_predict(experiment.network, experiment.tasks, experiment.train.precision))
    on_device = [jax.device_put(image) for image in images]
    jax.block_until_ready(predict(variables, on_device[0]))

    def once(i: int) -> float:
        start = time.perf_counter()
        jax.block_until_ready(predict(variables, on_device[i]))
        return time.perf_counter() - start

    return once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--sides", type=int, nargs="+", default=[128, 320, 640])
    parser.add_argument("--images", type=int, default=64)
    options = parser.parse_args()
    lines = ["canvas,box_ms,joint_ms,ratio,processor"]
    for side in options.sides:
        scenes = Scenes("validation", size=options.images, image_size=(side, side))
        images = [stack([prepare(scenes[i], i, 0, (side, side), 32, Needs())]).image for i in range(options.images)]
        box, joint = (timed(options.runs / name, images) for name in ("box-0", "joint-0"))
        pairs = [(box(i), joint(i)) for i in range(options.images)]
        medians = [statistics.median(column) * 1e3 for column in zip(*pairs, strict=True)]
        ratio = statistics.median(b / a for a, b in pairs)
        lines.append(f"{side},{medians[0]:.2f},{medians[1]:.2f},{ratio:.3f},{processor()}")
        print(lines[-1], flush=True)
    write_atomically(HERE / "latency.csv", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
