"""Faster R-CNN on BCCD and Mask R-CNN on nuclei, ours and torchvision's own, trained on the same batches.

python experiments/two_stage/run.py ours DATA        # DATA holds bccd/ and nuclei-dsb2018/
python experiments/two_stage/run.py torchvision DATA  # with requirements-parity.txt
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from seeds import reproduce

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

if __name__ == "__main__":
    side = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if side not in ("ours", "torchvision"):
        sys.exit("say which side is trained first: ours or torchvision")
    trainer = None
    if side == "torchvision":
        from twin import train_twin as trainer
    variants = {f"{name}-{side}": args for name, args in CONFIGS.items()}
    reproduce(HERE, variants, SCORES, imports=IMPORTS, trainer=trainer)
