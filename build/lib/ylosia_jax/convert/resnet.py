"""What torchvision calls the parts of its ResNets, and of the pyramids on them."""

# torchvision's pyramid counts its levels from 0: c2's is 0 where it begins with c2.
RESNET = (
    (r"stem/conv", r"conv1"),
    (r"stem/norm", r"bn1"),
    (r"layer(\d)_(\d+)/conv(\d)/conv", r"layer\1.\2.conv\3"),
    (r"layer(\d)_(\d+)/conv(\d)/norm", r"layer\1.\2.bn\3"),
    (r"layer(\d)_(\d+)/project/conv", r"layer\1.\2.downsample.0"),
    (r"layer(\d)_(\d+)/project/norm", r"layer\1.\2.downsample.1"),
)


def fpn(first: int) -> tuple[tuple[str, str], ...]:
    """Rules of `necks.fpn.FPN`, whose finest level is `first`: 2 for c2."""
    rules = [
        (rf"{part}_c{first + i}{suffix}", rf"{block}_blocks.{i}.{number}")
        for i in range(6 - first)
        for part, block in (("lateral", "inner"), ("out", "layer"))
        for suffix, number in (("", "0"), ("/conv", "0"), ("/norm", "1"))
    ]
    return (*rules, (r"extra(\d)", r"extra_blocks.p\1"))
