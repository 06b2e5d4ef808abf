"""Ylosia n on BCCD at two budgets: `python experiments/bccd/run.py PATH/TO/bccd [--variants 40-epochs]`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from seeds import reproduce

CONFIG = "configs/ylosia_n_bccd.py"

if __name__ == "__main__":
    reproduce(
        Path(__file__).parent,
        variants={
            "40-epochs": [CONFIG],
            # The picture's own shape, larger; more steps, a longer average, and more change to see in them.
            "one-hour": [
                *(CONFIG, "--data.image_size", "384", "512", "--train.epochs", "100", "--train.evaluate_every", "20"),
                *("--augment.scale", "0.7", "1.4", "--augment.contrast", "0.2", "--augment.brightness", "0.3"),
                *("--optim.ema_decay", "0.995"),
            ],
        },
        scores=[
            *("box/AP", "box/AP50", "box/AP75", "box/APm", "box/APl"),
            *(f"box/per_class/{name}" for name in ("Platelets", "RBC", "WBC")),
        ],
        imports={"bccd": [["voc", "{source}"]]},
    )
