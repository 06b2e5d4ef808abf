"""Trains a config with several seeds, and in several variants, and keeps their scores in results.csv.

Each experiment's run.py says what it trains; this file does it. A finished run is not trained again; a run that was
stopped resumes. Rows of other variants and seeds stay.
"""

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ylosia_jax import config
from ylosia_jax.data import store
from ylosia_jax.data.datasets import Dataset, Imported, Mixture
from ylosia_jax.files import write_atomically
from ylosia_jax.types import UserError

ROOT = Path(__file__).parents[1]
# The buffers of a training step on CPU live in large pages and are kept from step to step, as in the Makefile.
KEEP = "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1"
KEEP += ":glibc.malloc.mmap_threshold=40000000000:glibc.malloc.trim_threshold=40000000000"
FAST = {"GLIBC_TUNABLES": KEEP}

Measure = Callable[[Path, Path], Mapping[str, float]]
# (workdir, seed, args, scores) -> the row, as `train` has it.
Trainer = Callable[[Path, int, Sequence[str], Sequence[str]], dict[str, str]]


def reproduce(
    folder: Path,
    variants: Mapping[str, Sequence[str]],
    scores: Sequence[str],
    imports: Mapping[str, Sequence[Sequence[str]]] | None = None,
    measure: Measure | None = None,
    trainer: Trainer | None = None,
) -> None:
    """Reads the command line and runs what it asks for.

    Args:
      folder: of the experiment; `results.csv` is written there.
      variants: by name, the arguments of `ylosia train`: a config and what is changed in it.
      scores: columns, each a path in metrics.json such as `box/AP`; empty in a row whose run has no such score.
      imports: by name of a set that the variants' configs name, the arguments of `ylosia data import` for each split,
        in which `{source}` stands for the folder given on the command line.
      measure: further scores by name, of a finished run's folder and the data root.
      trainer: in the place of `train`, for what is not trained by `ylosia train`.
    """
    parser = argparse.ArgumentParser(description=f"Runs experiments/{folder.name} and writes its results.csv.")
    if imports:
        parser.add_argument("source", type=Path, nargs="?", help="the data, as its README describes it")
    parser.add_argument("--variants", choices=list(variants), nargs="+", default=list(variants))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--root", type=Path, default=ROOT, help="where data/ and runs/ are made")
    options = parser.parse_args()
    root: Path = options.root.resolve()
    data = root / "data"
    os.environ["YLOSIA_DATA_DIR"] = str(data)
    named = {name for variant in options.variants for name in sets(config.load(variants[variant][0]).data.train)}
    for name, commands in (imports or {}).items():
        for command in commands if name in named else ():
            if imported(data / name, command):
                continue
            if options.source is None:
                parser.error(f"the data set {name!r} is not imported yet: give the folder of its source")
            args = [part.format(source=options.source.resolve()) for part in command]
            ylosia("data", "import", *args, "--name", name, "--out", str(data))
    table = folder / "results.csv"
    for seed in options.seeds:
        for variant in options.variants:
            workdir = root / "runs" / folder.name / f"{variant}-{seed}"
            row = {
                "variant": variant,
                "seed": str(seed),
                **(trainer or train)(workdir, seed, variants[variant], scores),
            }
            if measure is not None:
                row |= {name: f"{value:.4f}" for name, value in measure(workdir, data).items()}
            row |= {"processor": processor(), "cores": str(len(os.sched_getaffinity(0)))}
            write_row(table, row, list(variants))


def imported(folder: Path, command: Sequence[str]) -> bool:
    """Whether an import command was run already: without `--split` it makes the whole set."""
    if "--split" not in command or not folder.exists():
        return folder.exists()
    try:
        store.open(folder, command[command.index("--split") + 1])
    except UserError:
        return False
    return True


def sets(dataset: Dataset) -> set[str]:
    """Names of the imported sets in a dataset."""
    if isinstance(dataset, Mixture):
        return set().union(*map(sets, dataset.parts))
    return {dataset.name} if isinstance(dataset, Imported) else set()


def ylosia(*args: str) -> None:
    """Runs a command of this checkout."""
    subprocess.run([sys.executable, "-m", "ylosia_jax", *args], check=True, cwd=ROOT, env={**FAST, **os.environ})


def train(workdir: Path, seed: int, args: Sequence[str], scores: Sequence[str]) -> dict[str, str]:
    """One training, its final scores, and how long it took over all its starts."""
    minutes = workdir / "minutes.txt"
    finished = (workdir / "metrics.json").exists()
    before = float(minutes.read_text()) if minutes.exists() else 0.0
    start = time.monotonic()
    try:
        ylosia("train", *args, "--workdir", str(workdir), "--seed", str(seed))
    finally:
        if workdir.exists() and not finished:
            minutes.write_text(f"{before + (time.monotonic() - start) / 60:.2f}")
    metrics = json.loads((workdir / "metrics.json").read_text())
    with (workdir / "metrics.csv").open() as file:
        steps = list(csv.DictReader(file))[-1]["step"]
    took = minutes.read_text() if minutes.exists() else ""
    return {**{name: score(metrics, name) for name in scores}, "steps": steps, "minutes": took}


def score(metrics: Any, path: str) -> str:
    """A number out of metrics.json; empty where there is none."""
    for part in path.split("/"):
        metrics = metrics.get(part) if isinstance(metrics, dict) else None
    return "" if metrics is None else f"{metrics:.4f}"


def write_row(table: Path, row: Mapping[str, str], order: Sequence[str]) -> None:
    """Puts a row into its place in the table."""
    rows: list[Mapping[str, str]] = []
    if table.exists():
        with table.open() as file:
            rows = list(csv.DictReader(file))
    key = (row["variant"], row["seed"])
    rows = [*(r for r in rows if (r["variant"], r["seed"]) != key), row]
    rows.sort(key=lambda r: (order.index(r["variant"]) if r["variant"] in order else -1, int(r["seed"])))
    columns = list(dict.fromkeys(name for r in rows for name in r))
    lines = [",".join(columns), *(",".join(r.get(name, "") for name in columns) for r in rows)]
    write_atomically(table, "\n".join(lines) + "\n")
    print(",".join(row.values()), flush=True)


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return name.replace(",", " ")
