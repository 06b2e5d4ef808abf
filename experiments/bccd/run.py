"""Trains Ylosia n on BCCD with three seeds at two budgets and writes results.csv beside this file.

    python experiments/bccd/run.py PATH/TO/bccd [--budget 40-epochs|one-hour] [--seeds 0 1 2]

A finished run is not trained again; a run that was stopped resumes. Rows of other budgets and seeds stay.
"""

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from ylosia_jax.files import write_atomically

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CONFIG = "configs/ylosia_n_bccd.py"
# The buffers of a training step on CPU live in large pages and are kept from step to step, as in the Makefile.
KEEP = "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1"
KEEP += ":glibc.malloc.mmap_threshold=40000000000:glibc.malloc.trim_threshold=40000000000"
FAST = {"GLIBC_TUNABLES": KEEP, "JAX_PLATFORMS": "cpu"}
# What each budget changes in the config.
BUDGETS: dict[str, list[str]] = {
    "40-epochs": [],
    # The picture's own shape, larger; more steps, a longer average, and more change to see in them.
    "one-hour": [
        *("--data.image_size", "384", "512", "--train.epochs", "100", "--train.evaluate_every", "20"),
        *("--augment.scale", "0.7", "1.4", "--augment.contrast", "0.2", "--augment.brightness", "0.3"),
        *("--optim.ema_decay", "0.995"),
    ],
}
SCORES = ("AP", "AP50", "AP75", "APm", "APl")
COLUMNS = ("budget", "seed", *SCORES, "AP_Platelets", "AP_RBC", "AP_WBC", "steps", "minutes", "processor", "cores")


def ylosia(*args: str, **env: str) -> None:
    subprocess.run([sys.executable, "-m", "ylosia_jax", *args], check=True, cwd=ROOT, env={**FAST, **os.environ, **env})


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def run(budget: str, seed: int, root: Path) -> dict[str, object]:
    """One training and its final scores; the time is that of the steps that were logged."""
    workdir = root / "runs" / "bccd" / f"{budget}-{seed}"
    minutes = workdir / "minutes.txt"
    before = float(minutes.read_text()) if minutes.exists() else 0.0
    start = time.monotonic()
    args = ["--workdir", str(workdir), "--seed", str(seed), *BUDGETS[budget]]
    try:
        ylosia("train", CONFIG, *args, YLOSIA_DATA_DIR=str(root / "data"))
    finally:
        if workdir.exists() and (before == 0 or time.monotonic() - start > 60):
            minutes.write_text(f"{before + (time.monotonic() - start) / 60:.2f}")
    box = json.loads((workdir / "metrics.json").read_text())["box"]
    with (workdir / "metrics.csv").open() as file:
        steps = list(csv.DictReader(file))[-1]["step"]
    return {
        "budget": budget,
        "seed": seed,
        **{name: f"{box[name]:.4f}" for name in SCORES},
        **{f"AP_{name}": f"{value:.4f}" for name, value in box["per_class"].items()},
        "steps": steps,
        "minutes": f"{float(minutes.read_text()):.1f}",
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the BCCD folder, in VOC form")
    parser.add_argument("--budget", choices=BUDGETS, action="append", help="default: both")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--root", type=Path, default=ROOT, help="where data/ and runs/ are made")
    options = parser.parse_args()
    if not (options.root / "data" / "bccd").exists():
        ylosia("data", "import", "voc", str(options.source), "--name", "bccd", "--out", str(options.root / "data"))
    table = HERE / "results.csv"
    for budget in options.budget or BUDGETS:
        for seed in options.seeds:
            row = run(budget, seed, options.root)
            rows = list(csv.DictReader(table.open())) if table.exists() else []
            rows = [r for r in rows if (r["budget"], r["seed"]) != (budget, str(seed))] + [row]
            rows.sort(key=lambda r: (str(r["budget"]), int(r["seed"])))
            lines = [",".join(COLUMNS), *(",".join(f"{r[c]}" for c in COLUMNS) for r in rows)]
            write_atomically(table, "\n".join(lines) + "\n")
            print(lines[rows.index(row) + 1])


if __name__ == "__main__":
    main()
