"""What torchvision calls the layers of its VGGs."""

from collections.abc import Sequence


def vgg(depths: Sequence[int] = (2, 2, 3, 3, 3), *, batch_norm: bool = False) -> tuple[tuple[str, str], ...]:
    """Rules of `backbones.vgg`'s stages, whose layers torchvision counts through, ReLUs and pools included."""
    rules: list[tuple[str, str]] = []
    place = 0
    for stage, depth in enumerate(depths, start=1):
        for i in range(1, depth + 1):
            name = f"conv{stage}_{i}"
            if batch_norm:
                rules += [(f"{name}/conv", f"features.{place}"), (f"{name}/norm", f"features.{place + 1}")]
            else:
                rules.append((name, f"features.{place}"))
            place += 3 if batch_norm else 2
        place += 1
    return tuple(rules)
