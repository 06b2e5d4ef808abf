"""What the layers of Ylosia's detector are called where networks of its widths are published in PyTorch.

There the network is one list of layers, `model.0` to `model.22`, those without parameters counted too.
"""

from ylosia_jax.convert.layout import Layout

_CONVS = {
    "backbone/stem": 0,
    "backbone/down2": 1,
    "backbone/down3": 3,
    "backbone/down4": 5,
    "backbone/down5": 7,
    "neck/down4": 16,
    "neck/down5": 19,
}
_STAGES = {
    "backbone/stage2": 2,
    "backbone/stage3": 4,
    "backbone/stage4": 6,
    "backbone/stage5": 8,
    "neck/top4": 12,
    "neck/top3": 15,
    "neck/bottom4": 18,
    "neck/bottom5": 21,
}


def _conv_norm(ours: str, theirs: str) -> tuple[tuple[str, str], ...]:
    return (f"{ours}/conv", f"{theirs}.conv"), (f"{ours}/norm", f"{theirs}.bn")


def _rules() -> tuple[tuple[str, str], ...]:
    rules = [rule for ours, i in _CONVS.items() for rule in _conv_norm(ours, f"model.{i}")]
    for ours, i in _STAGES.items():
        rules += _conv_norm(f"{ours}/split", f"model.{i}.cv1")
        rules += _conv_norm(rf"{ours}/block(\d+)/conv(\d)", rf"model.{i}.m.\1.cv\2")
        rules += _conv_norm(f"{ours}/fuse", f"model.{i}.cv2")
    rules += _conv_norm("backbone/sppf/reduce", "model.9.cv1") + _conv_norm("backbone/sppf/fuse", "model.9.cv2")
    for i, level in enumerate(("p3", "p4", "p5")):
        for branch, name in (("box", "cv2"), ("class", "cv3")):
            rules += _conv_norm(rf"heads_box/{branch}_{level}_(\d)", rf"model.22.{name}.{i}.\1")
            rules.append((f"heads_box/{branch}_{level}_out", f"model.22.{name}.{i}.2"))
    return tuple(rules)


# The one tensor without a place here is the numbers 0 to 15, over which a side's distribution is averaged.
YLOSIA = Layout("ylosia", _rules(), ignored=r".*num_batches_tracked|model\.22\.dfl\.conv\.weight")
