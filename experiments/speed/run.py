"""Measures the n-scale detector against its PyTorch twin on this machine's CPU, in alternation.

Forward pass (evaluation mode) at batch 1 and 16, and a train step (forward, backward, a plain gradient step on the sum
of squares of all outputs) at batch 16. The two sides take turns, so that whatever else the machine does hits both.
"""

import argparse
import csv
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from ylosia_jax.systems.ylosia import ylosia

HERE = Path(__file__).parent
CASES = (("forward", 1, 20), ("forward", 16, 6), ("train", 16, 4))  # measure, batch, calls in a turn


def hardware() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def ours(size: int) -> dict[tuple[str, int], Callable[[], object]]:
    """The compiled calls to time, warmed up, by measure and batch."""
    network, _ = ylosia(scale="n", num_classes=80)
    image = jax.random.uniform(jax.random.key(0), (16, size, size, 3))
    variables = jax.jit(network.init, static_argnames="train")(jax.random.key(1), image[:1], train=False)

    @jax.jit
    def forward(variables, image):
        return network.apply(variables, image, train=False)

    @jax.jit
    def train(variables, image):
        def loss(params):
            outputs, updates = network.apply(
                {**variables, "params": params}, image, train=True, mutable=["batch_stats"]
            )
            return sum(jnp.sum(y**2) for y in jax.tree.leaves(outputs)), updates

        grads, updates = jax.grad(loss, has_aux=True)(variables["params"])
        return {"params": jax.tree.map(lambda p, g: p - 1e-6 * g, variables["params"], grads), **updates}

    calls = {}
    for measure, batch, _ in CASES:
        function = (forward if measure == "forward" else train).lower(variables, image[:batch]).compile()
        calls[measure, batch] = lambda function=function, image=image[:batch]: function(variables, image)
        jax.block_until_ready(calls[measure, batch]())
    return calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch-python", default=sys.executable, help="interpreter that has torch")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side")
    parser.add_argument("--size", type=int, default=320, help="side of the square image in pixels")
    parser.add_argument("--out", type=Path, default=HERE / "results.csv")
    args = parser.parse_args()

    twin = subprocess.Popen(
        [args.torch_python, str(HERE / "torch_twin.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    about = json.loads(twin.stdout.readline())

    def our_turn(measure: str, batch: int, calls: int) -> list[float]:
        seconds = []
        for _ in range(calls + 1):
            start = time.perf_counter()
            jax.block_until_ready(functions[measure, batch]())
            seconds.append(time.perf_counter() - start)
        return seconds[1:]  # the first finds the caches as the other side left them, on both sides

    def torch_turn(layout: str, measure: str, batch: int, calls: int) -> list[float]:
        ask = {"layout": layout, "measure": measure, "batch": batch, "calls": calls, "size": args.size}
        twin.stdin.write(json.dumps(ask) + "\n")
        twin.stdin.flush()
        return json.loads(twin.stdout.readline())

    functions = ours(args.size)
    seconds: dict[tuple[str, str, int], list[float]] = {}
    for _ in range(args.rounds):
        for measure, batch, calls in CASES:
            turns = {"ylosia_jax": lambda m=measure, b=batch, c=calls: our_turn(m, b, c)}
            for layout in ("contiguous", "channels_last"):
                turns[f"torch {layout}"] = lambda n=layout, m=measure, b=batch, c=calls: torch_turn(n, m, b, c)
            for side, turn in turns.items():
                time.sleep(0.5)  # until the other side's threads have stopped waiting busily for more
                seconds.setdefault((side, measure, batch), []).append(statistics.median(turn()))
    twin.stdin.close()
    twin.wait()

    versions = f"jax {importlib.metadata.version('jax')}, flax {importlib.metadata.version('flax')}"
    versions += f", torch {about['version']}, python {platform.python_version()}"
    rows = []
    for (side, measure, batch), times in seconds.items():
        ratios = [theirs / mine for theirs, mine in zip(times, seconds["ylosia_jax", measure, batch], strict=True)]
        rows.append(
            {
                "side": side,
                "measure": measure,
                "batch": batch,
                "images_per_second": f"{batch / statistics.median(times):.1f}",
                "seconds_median": f"{statistics.median(times):.4f}",
                "seconds_best": f"{min(times):.4f}",
                "ylosia_jax_speed_against_it": f"{statistics.median(ratios):.2f}",
                "rounds": args.rounds,
                "command": shlex.join(["python", *sys.argv]).replace(args.torch_python, ".torch/bin/python"),
                "hardware": hardware(),
                "versions": versions,
                "environment": " ".join(
                    f"{k}={v}"
                    for k, v in os.environ.items()
                    if k in ("GLIBC_TUNABLES", "XLA_FLAGS", "JAX_CPU_ENABLE_ASYNC_DISPATCH")
                ),
            }
        )
        print({k: rows[-1][k] for k in list(rows[-1])[:7]})
    temporary = args.out.with_name(args.out.name + ".tmp")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, args.out)


if __name__ == "__main__":
    main()
