"""Faster R-CNN on BCCD and Mask R-CNN on nuclei, ours and torchvision's own, trained on the same batches.

python experiments/two_stage/run.py ours DATA        # DATA holds bccd/ and nuclei-dsb2018/
python experiments/two_stage/run.py torchvision DATA  # with requirements-parity.txt
python experiments/two_stage/run.py same-start DATA   # ours, from the weights that torchvision's begins with
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from seeds import reproduce, train, ylosia

HERE = Path(__file__).parent
CONFIGS = {
    "bccd": ["configs/faster_rcnn_resnet18_fpn_bccd.py"],
    # As many as two cores can afford.
    "nuclei": ["configs/mask_rcnn_resnet50_fpn_nuclei.py", "--train.epochs", "12", "--train.evaluate_every", "12"],
}
SCORES = ["box/AP", "box/AP50", "mask/AP", "mask/AP50"]
NUCLEI = "{source}/nuclei-dsb2018/instances_"
IMPORTS = {
    "bccd": [["voc", "{source}/bccd"]],
    "nuclei": [["coco", f"{NUCLEI}{split}.json", "--split", split] for split in ("train", "val")],
}


def train_from_same_start(workdir: Path, seed: int, args: Sequence[str], scores: Sequence[str]) -> dict[str, str]:
    """Ours, from the initial weights of the twin with the same seed."""
    from twin import save_start

    if not workdir.exists():
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "start.pth"
            save_start(file, seed, args)
            run = ["--config", *args, "--seed", str(seed), "--workdir", str(workdir)]
            ylosia("weights", "import", str(file), *run)
    return train(workdir, seed, args, scores)


def main() -> None:
    side = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    match side:
        case "ours":
            trainer = train
        case "torchvision":
            from twin import train_twin as trainer
        case "same-start":
            trainer = train_from_same_start
        case _:
            sys.exit(f"say what is trained first: ours, torchvision or same-start, not {side!r}")
    variants = {f"{name}-{side}": args for name, args in CONFIGS.items()}
    reproduce(HERE, variants, SCORES, imports=IMPORTS, trainer=trainer)


if __name__ == "__main__":
    main()
