"""Training images a second of two-stage detectors and RetinaNet on one accelerator, ours and torchvision's in turns.

python experiments/throughput/run.py --rounds 3     # with requirements-parity.txt and builds for the accelerator
"""

import argparse
import csv
import io
import json
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from turn import SYSTEMS

from ylosia_jax.files import write_atomically

HERE = Path(__file__).parent


def turn(side: str, system: str, sizes: list[str]) -> dict[str, Any]:
    """A process of its own, that leaves the device's memory to the other side."""
    command = [sys.executable, str(HERE / "turn.py"), side, system, *sizes]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{shlex.join(command)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Writes results.csv, and prints each row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1333)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, default=HERE / "results.csv")
    args = parser.parse_args()
    sizes = [f"--{name}={getattr(args, name)}" for name in ("batch", "height", "width", "steps")]
    rows: list[dict[str, str]] = []
    for system in args.systems:
        medians: dict[str, list[float]] = {"ours": [], "torchvision": []}
        about: dict[str, dict[str, Any]] = {}
        for _ in range(args.rounds):
            for side, times in medians.items():
                about[side] = turn(side, system, sizes)
                times.append(statistics.median(about[side]["seconds"]))
        ratio = statistics.median(b / a for a, b in zip(medians["ours"], medians["torchvision"], strict=True))
        for side, times in medians.items():
            rows.append(
                {
                    "system": system,
                    "side": side,
                    "images_per_second": f"{args.batch / statistics.median(times):.2f}",
                    "ours_against_torchvision": f"{ratio:.2f}",
                    "batch": str(args.batch),
                    "picture": f"{args.height}x{args.width}",
                    "rounds": str(args.rounds),
                    "device": about[side]["device"],
                    "versions": about[side]["versions"],
                }
            )
            print(rows[-1], flush=True)
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(args.out, text.getvalue())


if __name__ == "__main__":
    main()
