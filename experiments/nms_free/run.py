"""The twin without suppression against its sibling with it: `python experiments/nms_free/run.py PATH/TO/bccd`.

Both are branches of one head, trained in one run; `box/AP` is the twin's, `nms_AP` its sibling's.
"""

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from seeds import reproduce

from ylosia_jax.evaluate import compile_predict, evaluate
from ylosia_jax.experiment import open_source
from ylosia_jax.runs import load_run, restore_average
from ylosia_jax.train.sharding import make_mesh

HERE = Path(__file__).parent


def with_nms(workdir: Path, data: Path) -> Mapping[str, float]:
    """Scores of the head that finds every object many times, from the same checkpoint."""
    experiment, mesh = load_run(workdir), make_mesh()
    predict = compile_predict(
        experiment.network, {"box": dataclasses.replace(experiment.tasks["box"], nms_free=False)}, mesh
    )
    # The last, which the final scores are of.
    variables = restore_average(experiment, workdir, mesh, "last")
    source = open_source(experiment, experiment.data.valid)
    shown: Any = {"canvases": experiment.canvases, "style": experiment.data.style}
    scores = evaluate(predict, variables, source, mesh, batch_size=experiment.data.batch_size, **shown)
    return {"nms_AP": scores["box"]["AP"], "nms_AP50": scores["box"]["AP50"]}


if __name__ == "__main__":
    reproduce(
        HERE,
        variants={name: [str(HERE / f"{name}.py")] for name in ("scenes", "bccd")},
        scores=["box/AP", "box/AP50"],
        imports={"bccd": [["voc", "{source}"]]},
        measure=with_nms,
    )
