"""Compiles the COCO training step of Ylosia n for a pod, without a pod, and writes results.csv beside this file.

pip install -e '.[tpu]'
JAX_PLATFORMS=cpu python experiments/plan/run.py
"""

import csv
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from ylosia_jax.files import write_atomically

HERE = Path(__file__).parent
COMMAND = ("plan", "configs/ylosia_n_coco.py", "--topology", "v5e:16x16", "--data.batch_size", "8192")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "plan.json"
        subprocess.run(
            [sys.executable, "-m", "ylosia_jax", *COMMAND, "--json", str(out)], check=True, cwd=HERE.parents[1]
        )
        plan = json.loads(out.read_text())
    row = {"command": "ylosia " + " ".join(COMMAND), **{k: v for k, v in plan.items() if k != "collectives"}}
    for collective in plan["collectives"]:
        kind = collective["kind"].replace("-", "_")
        row |= {f"{kind}_bytes": collective["bytes"], f"{kind}_count": collective["count"]}
    text = io.StringIO()
    writer = csv.DictWriter(text, list(row), lineterminator="\n")
    writer.writeheader()
    writer.writerow(row)
    write_atomically(HERE / "results.csv", text.getvalue())


if __name__ == "__main__":
    main()
