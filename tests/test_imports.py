"""The one direction of imports: a room is handed what stands before it and knows nothing of what comes after."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import ylosia_jax

PACKAGE = Path(ylosia_jax.__file__).parent

# Room -> the rooms that it may import besides itself.
ALLOWED: dict[str, set[str]] = {
    "types": set(),
    "files": set(),
    "rle": set(),
    "config": {"types"},
    "convert": {"types", "files"},
    "ops": {"types"},
    "nn": {"types", "ops"},
    "models": {"types", "ops", "nn"},
    "tasks": {"types", "ops"},
    "systems": {"types", "ops", "nn", "models", "tasks"},
    "data": {"types", "files", "rle", "config", "ops"},
    "metrics": {"types", "rle"},
    "visualize": {"types"},
    "train": {"types", "files", "config"},
    "answers": {"types", "rle", "data", "metrics"},
    "evaluate": {"types", "ops", "data", "metrics", "train", "answers"},
    "experiment": {"types", "data", "train", "evaluate"},
    "compiled": {"types", "data", "train", "experiment"},
    "fitting": {"types", "ops", "data", "train", "experiment"},
    "runs": {"types", "files", "config", "data", "train", "evaluate", "experiment", "compiled", "fitting"},
    "weights": {"types", "config", "convert", "data", "train", "experiment", "runs"},
    "predict": {
        "types",
        "files",
        "config",
        "rle",
        "data",
        "metrics",
        "visualize",
        "train",
        "answers",
        "evaluate",
        "experiment",
        "runs",
    },
    "report": {"types", "files", "visualize", "train"},
    "plan": {"types", "train", "experiment", "compiled"},
}
# The outermost rooms import any other, but nothing imports them.
ALLOWED["__init__"] = {"predict"}
ALLOWED["cli"] = set(ALLOWED)
ALLOWED["__main__"] = {"cli"}


def room_of(name: str) -> str:
    """`ops` for `ylosia_jax.ops.boxes`; the package itself is the room `__init__`."""
    return (*name.split("."), "__init__")[1]


def imported(source: str, module: str, is_package: bool) -> Iterator[str]:
    """Every name of the package that the source imports, inside functions and `if TYPE_CHECKING` too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: len(module.split(".")) - node.level + is_package] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            # `from ylosia_jax import ops` imports a room, `from ylosia_jax import __version__` the package.
            names = [f"{base}.{alias.name}" if base == "ylosia_jax" else base for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "ylosia_jax":
                yield name if room_of(name) in ALLOWED else "ylosia_jax"


def wrong_imports(source: str, module: str, is_package: bool = False) -> list[str]:
    """The imports of a module that run against the arrow."""
    room = room_of(module)
    if room not in ALLOWED:
        return [f"{module} is in no known room; decide what `{room}` may import, here and in docs/design.md"]
    names = sorted(set(imported(source, module, is_package)))
    return [f"{module} imports {name}" for name in names if room_of(name) not in ALLOWED[room] | {room}]


def test_every_import_runs_the_right_way():
    wrong: list[str] = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        module = ".".join(parts[:-1] if is_package else parts)
        wrong += wrong_imports(path.read_text(encoding="utf-8"), module, is_package)
    assert wrong == []


def test_the_arrows_have_one_direction():
    before: set[str] = set()
    for room, rooms in ALLOWED.items():
        # `__init__` is the door that users come in by; `cli` and `__main__` stand outside of it.
        assert rooms <= before, room
        before.add(room)
    assert not {"models", "nn"} & ALLOWED["tasks"]
    assert not {"models", "nn", "tasks", "systems"} & ALLOWED["train"]


@pytest.mark.parametrize(
    ("module", "source", "name"),
    [
        ("ylosia_jax.tasks.dense", "from ylosia_jax.models.network import Network", "ylosia_jax.models.network"),
        ("ylosia_jax.tasks.dense", "def f():\n    import ylosia_jax.nn.conv as conv", "ylosia_jax.nn.conv"),
        ("ylosia_jax.train.loop", "from ylosia_jax import systems", "ylosia_jax.systems"),
        ("ylosia_jax.train.loop", "from ..tasks.dense import DenseBoxes", "ylosia_jax.tasks.dense"),
        ("ylosia_jax.types", "from . import ops", "ylosia_jax.ops"),
        ("ylosia_jax.types", "if TYPE_CHECKING:\n    from .ops import boxes", "ylosia_jax.ops"),
        ("ylosia_jax.ops", "from ..config import load", "ylosia_jax.config"),
        ("ylosia_jax.ops.boxes", "import ylosia_jax", "ylosia_jax"),
        ("ylosia_jax.ops.boxes", "from ylosia_jax import __version__", "ylosia_jax"),
        ("ylosia_jax.systems.ylosia", "import json, ylosia_jax.cli", "ylosia_jax.cli"),
    ],
)
def test_a_wrong_import_is_caught(module, source, name):
    assert wrong_imports(source, module, is_package=module == "ylosia_jax.ops") == [f"{module} imports {name}"]


def test_a_right_import_is_let_through():
    source = "import json\nimport jax.numpy as jnp\nfrom ylosia_jax.ops import boxes\nfrom .dense import DenseBoxes\n"
    assert wrong_imports(source, "ylosia_jax.tasks.pose") == []


def test_an_unknown_room_is_caught():
    assert "no known room" in wrong_imports("", "ylosia_jax.utils.misc")[0]
