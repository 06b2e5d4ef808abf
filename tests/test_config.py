import dataclasses
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from ylosia_jax import config
from ylosia_jax.types import UserError


class Head(nn.Module):
    width: int = 8
    act: Literal["relu", "silu"] = "relu"

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.width)(x)


class Neck(nn.Module):
    widths: tuple[int, ...] = (4, 8)
    shared: nn.Module | None = None


class Net(nn.Module):
    backbone: nn.Module
    neck: nn.Module
    heads: Mapping[str, nn.Module]
    stem: tuple[nn.Module, ...] = ()

    def __call__(self, x):
        return {name: head(self.backbone(x)) for name, head in self.heads.items()}


class HasWeight(Protocol):
    weight: float


@dataclasses.dataclass(frozen=True)
class Task:
    weight: float = 1.0
    derived: float = dataclasses.field(init=False, default=2.0)


@dataclasses.dataclass(frozen=True)
class Optim:
    lr: float = 0.1
    floor: float = 0.01
    clip: float | None = None

    def __post_init__(self):
        if self.lr < self.floor:
            raise ValueError(f"lr must not be below floor {self.floor}, got {self.lr}")


@dataclasses.dataclass(frozen=True)
class Root:
    network: Net
    tasks: dict[str, HasWeight]
    stages: tuple[Task, ...]
    optim: Optim = Optim()
    image_size: int | tuple[int, int] = 640
    weights: dict[str, float] = dataclasses.field(default_factory=dict)
    mean: tuple[float, float] = (0.5, 0.25)
    name: str = "set a"
    flip: bool = True
    level: Literal["p3", 4] = "p3"
    seed: int = 0


class NotADataclass:
    pass


def function() -> None:
    raise AssertionError("must not be called")


@pytest.fixture(autouse=True)
def _test_classes_are_the_package(monkeypatch):
    monkeypatch.setattr(config, "_PREFIX", f"{__name__}.")


def root(**changes: Any) -> Root:
    network = Net(backbone=Head(3), neck=Neck(shared=Head()), heads={"box": Head(), "mask": Head(5)}, stem=(Head(1),))
    fields = {"network": network, "tasks": {"box": Task(2.0)}, "stages": (Task(), Task(0.5))}
    return Root(**{**fields, **changes})


# ---- JSON


def test_json_round_trip_is_the_same_tree():
    tree = root(image_size=(320, 480), weights={"a b": 1.5}, seed=2**70)
    again = config.from_json(json.loads(json.dumps(config.to_json(tree), allow_nan=False)))
    assert again == tree
    assert type(again.network.backbone) is Head
    assert again.image_size == (320, 480)
    assert again.seed == 2**70
    assert config.to_json(again) == config.to_json(tree)


def test_json_names_each_class_and_leaves_out_what_is_not_config():
    data = config.to_json(root())
    assert data["_type"] == f"{__name__}.Root"
    assert data["network"]["heads"]["mask"] == {"_type": f"{__name__}.Head", "width": 5, "act": "relu"}
    assert data["stages"] == [{"_type": f"{__name__}.Task", "weight": w} for w in (1.0, 0.5)]


@pytest.mark.parametrize("leaf", [0, -1, 2**200, 0.1, 1e-300, -0.0, True, None, "", "a\nb ü", (), ((1,), ()), {}])
def test_json_round_trip_of_leaves(leaf):
    again = config.from_json(json.loads(json.dumps(config.to_json({"x": leaf}))))["x"]
    assert again == leaf
    assert type(again) is type(leaf)


def test_using_a_network_leaves_its_config_as_it_was():
    tree = root()
    before = config.to_json(tree)
    variables = tree.network.init(jax.random.key(0), jnp.ones((1, 2)))
    tree.network.apply(variables, jnp.ones((1, 2)))
    assert config.to_json(tree) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1.5}, "seed: expected int, got 1.5"),
        ({"seed": True}, "seed: expected int, got True"),
        ({"mean": (0.5,)}, r"mean: expected tuple\[float, float\], got \(0.5,\)"),
        ({"mean": [0.5, 0.5]}, r"mean: a config holds .* not \[0.5, 0.5\] of type list"),
        ({"level": "p4"}, "level: expected one of 'p3', 4, got 'p4'"),
        ({"name": function}, "name: a config holds .* of type function"),
        ({"optim": Task()}, "optim: expected Optim, got Task"),
        ({"stages": (Task(), Optim())}, r"stages: expected .* got \(Task, Optim\)"),
        ({"weights": {"a.b": 1.0}}, "weights: a key is a string .* got 'a.b'"),
        ({"weights": {"_type": 1.0}}, "weights: a key is a string .* got '_type'"),
        ({"weights": {3: 1.0}}, "weights: a key is a string .* got 3"),
        ({"weights": {"a": float("nan")}}, "weights.a: expected a finite number, got nan"),
        ({"weights": {"a": float("-inf")}}, "weights.a: expected a finite number, got -inf"),
        ({"tasks": {"box": UserError}}, "tasks.box: a config holds .* of type type"),
        ({"tasks": {"box": nn.Dense(3)}}, r"tasks.box.\w+: a config holds .* of type \w+$"),
        ({"tasks": {"box": Head(name="x")}}, "tasks.box: a module in a config is unbound and unnamed.* 'x'"),
    ],
)
def test_to_json_refuses_what_it_could_not_rebuild(changes, message):
    with pytest.raises(UserError, match=message):
        config.to_json(root(**changes))


def test_to_json_refuses_a_local_class():
    @dataclasses.dataclass(frozen=True)
    class Local:
        pass

    with pytest.raises(UserError, match=r"tasks.box: '.*<locals>.Local' is no dataclass"):
        config.to_json(root(tasks={"box": Local()}))


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "subprocess.Popen",
        "flax.linen.Dense",
        "{here}x.Head",
        "{here}.function",
        "{here}.NotADataclass",
        "{here}.UserError",
        "{here}.Root.Optim",
        "{here}.Nothing",
        "{here}.nn.Module",
        "{here}..Root",
        "{here}.Root\n",
        "{here}.__class__",
        "{here}",
        "Root",
        "",
        None,
        3,
        ["{here}.Root"],
    ],
)
def test_from_json_imports_dataclasses_of_the_package_alone(name):
    name = name.replace("{here}", __name__) if isinstance(name, str) else name
    with pytest.raises(UserError, match=rf"^stages\.0: {re.escape(repr(name))} is no dataclass"):
        config.from_json({"stages": [{"_type": name}]})


def test_from_json_imports_nothing_from_elsewhere():
    assert "this" not in sys.modules
    with pytest.raises(UserError, match="no dataclass"):
        config.from_json({"_type": "this.Zen"})
    assert "this" not in sys.modules


def test_from_json_imports_only_the_real_package(monkeypatch):
    monkeypatch.undo()
    assert config._PREFIX == "ylosia_jax."
    for name in (
        "ylosia_jax.types.UserError",
        "ylosia_jax.types.Source",
        "ylosia_jax.no_room.Class",
        f"{__name__}.Optim",
    ):
        with pytest.raises(UserError, match="no dataclass"):
            config.from_json({"_type": name})


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("optim.lr", "fast", "^optim.lr: expected float, got 'fast'"),
        ("optim.lr", float("inf"), "^optim.lr: expected a finite number, got inf"),
        ("optim.lr", 0.001, "^optim: lr must not be below floor 0.01, got 0.001"),
        ("optim.rate", 0.1, "^optim.rate: Optim has no such field"),
        ("network.parent", None, "^network.parent: Net has no such field"),
        ("network.heads.box.name", "x", "^network.heads.box.name: Head has no such field"),
        ("network.heads.box", 3, r"^network.heads: expected .* got \{'box': 3"),
        ("network.stem", {}, r"^network.stem: expected tuple\[.*Module, ...\], got \{\}"),
        ("weights.a.b", 1, r"^weights: expected dict\[str, float\], got"),
    ],
)
def test_from_json_names_the_path_and_the_value(path, value, message):
    data = config.to_json(root())
    *parents, last = path.split(".")
    node = data
    for key in parents:
        node = node.setdefault(key, {})
    node[last] = value
    with pytest.raises(UserError, match=message):
        config.from_json(data)


def test_from_json_names_a_missing_field():
    data = config.to_json(root())
    del data["optim"]["clip"]
    with pytest.raises(UserError, match=r"^optim\.clip: this field of Optim is missing"):
        config.from_json(data)


def test_from_json_bounds_the_depth():
    data: Any = 1
    for _ in range(1000):
        data = [data]
    with pytest.raises(UserError, match="nested deeper"):
        config.from_json(data)


# ---- text and comparison


def test_flatten_gives_sorted_paths():
    flat = config.flatten(root(weights={}))
    assert list(flat) == sorted(flat)
    assert flat["network.heads.box.width"] == 8
    assert flat["stages.1.weight"] == 0.5
    assert flat["mean.1"] == 0.25
    assert flat["weights"] == {}
    assert flat["network.neck.shared.act"] == "relu"
    assert "network" not in flat
    assert not {path for path in flat if path.endswith((".parent", ".name", ".derived"))}


def test_text_shows_every_field_and_every_class():
    text = config.to_text(Root(Net(Head(3), Neck(), {"box": Head()}), {}, (Task(),), name="two\nlines"))
    assert text == (
        ".: Root\nflip: True\nimage_size: 640\nlevel: 'p3'\nmean.0: 0.5\nmean.1: 0.25\nname: 'two\\nlines'\n"
        "network: Net\nnetwork.backbone: Head\nnetwork.backbone.act: 'relu'\nnetwork.backbone.width: 3\n"
        "network.heads.box: Head\nnetwork.heads.box.act: 'relu'\nnetwork.heads.box.width: 8\n"
        "network.neck: Neck\nnetwork.neck.shared: None\nnetwork.neck.widths.0: 4\nnetwork.neck.widths.1: 8\n"
        "network.stem: ()\noptim: Optim\noptim.clip: None\noptim.floor: 0.01\noptim.lr: 0.1\n"
        "seed: 0\nstages.0: Task\nstages.0.weight: 1.0\ntasks: {}\nweights: {}\n"
    )


def test_diff_of_equal_trees_is_empty():
    assert config.diff(root(), root()) == []


def test_diff_names_values_classes_and_absent_paths():
    left = root(weights={"a": 1.0})
    right = root(optim=Optim(lr=0.2), tasks={"box": Head(7)}, stages=(Task(),))
    assert config.diff(left, right) == [
        ("optim.lr", 0.1, 0.2),
        ("stages.1", Task, config.ABSENT),
        ("stages.1.weight", 0.5, config.ABSENT),
        ("tasks.box", Task, Head),
        ("tasks.box.act", config.ABSENT, "relu"),
        ("tasks.box.weight", 2.0, config.ABSENT),
        ("tasks.box.width", config.ABSENT, 7),
        ("weights", config.ABSENT, {}),
        ("weights.a", 1.0, config.ABSENT),
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        ("x\n", r"'x\n'"),
        (None, "None"),
        (Task, "Task"),
        (Head(), "Head"),
        (config.ABSENT, "(absent)"),
        ({}, "{}"),
        ({"a": Head()}, "{'a': Head}"),
        ((1,), "(1,)"),
        ((1, Task()), "(1, Task)"),
    ],
)
def test_show(value, text):
    assert config.show(value) == text


# ---- files


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


CONFIG = "import dataclasses\nfrom {here} import Optim\ndef get_config():\n    return Optim(lr=0.3)\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    write(tmp_path / "configs" / "ylosia_n_bccd.py", CONFIG.replace("{here}", __name__))
    write(tmp_path / "runs" / "demo" / "config.json", json.dumps(config.to_json(Optim(lr=0.4))))
    return tmp_path


@pytest.mark.parametrize(
    ("source", "lr"),
    [
        ("configs/ylosia_n_bccd.py", 0.3),
        ("configs/ylosia_n_bccd", 0.3),
        ("ylosia_n_bccd.py", 0.3),
        ("ylosia_n_bccd", 0.3),
        ("runs/demo", 0.4),
        (Path("runs/demo/config.json"), 0.4),
    ],
)
def test_load(folder, source, lr):
    path = list(sys.path)
    assert config.load(source) == Optim(lr=lr)
    assert config.load(folder / source if "/" in str(source) else source) == Optim(lr=lr)
    assert sys.path == path


def test_load_keeps_same_named_files_apart_and_resolves_their_classes(folder):
    text = (
        "from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass(frozen=True)\n"
        "class Mine:\n    lr: float = {}\ndef get_config():\n    return Mine()\n"
    )
    one, two = (write(folder / name / "same.py", text.format(lr)) for name, lr in (("one", 1.0), ("two", 2.0)))
    trees = [config.load(one), config.load(two)]
    assert [config.override(tree, []).lr for tree in trees] == [1.0, 2.0]
    assert config.override(trees[0], ["--lr", "3"]).lr == 3.0
    with pytest.raises(UserError, match=r"Mine' is no dataclass that .* a saved config holds no other classes"):
        config.to_json(trees[0])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "configs/ylosia_n_bcdc.py",
            r"^configs/ylosia_n_bcdc.py: no such config; did you mean configs/ylosia_n_bccd.py\?",
        ),
        ("ylosia_m_bccd", r"^ylosia_m_bccd: no such config; did you mean configs/ylosia_n_bccd.py\?"),
        ("runs/dmeo", r"^runs/dmeo: no such config; did you mean runs/demo\?"),
        ("runs", "^runs: no config.json in this folder"),
        ("no/such/place.py", r"^no/such/place.py: no such config; did you mean configs/"),
        ("notes.txt", "^notes.txt: expected a config file"),
        ("none.py", r"^none.py: no get_config\(\)"),
        ("three.py", "^three.py: expected a dataclass as the config, got 3"),
        ("user.py", "^pick a smaller one$"),
        ("broken.py", r"^broken.py:3: ZeroDivisionError: division by zero"),
        ("syntax.py", r"^syntax.py: SyntaxError: .*syntax.py, line 2"),
        ("typo.py", r"^typo.py:2: TypeError: .*lrr"),
        ("bad.json", "^bad.json: not a readable JSON file"),
        ("binary.json", "^binary.json: not a readable JSON file"),
        ("deep.json", "^deep.json: (not a readable JSON file|0.*nested deeper)"),
        ("nan.json", "^nan.json: lr: expected a finite number, got nan"),
        ("list.json", r"^list.json: expected a dataclass as the config, got \(1, 2\)"),
    ],
)
def test_load_says_what_is_wrong(folder, source, message):
    write(folder / "notes.txt", "x")
    write(folder / "none.py", "x = 1\n")
    write(folder / "three.py", "def get_config():\n    return 3\n")
    write(
        folder / "user.py",
        "from ylosia_jax.types import UserError\ndef get_config():\n    raise UserError('pick a smaller one')\n",
    )
    write(folder / "broken.py", "def get_config():\n    x = 0\n    return 1 / x\n")
    write(folder / "syntax.py", "x = 1\nreturn = 3\n")
    write(folder / "typo.py", f"from {__name__} import Optim\nget_config = lambda: Optim(lrr=1)\n")
    write(folder / "bad.json", "{")
    (folder / "binary.json").write_bytes(b"\xff\xfe\x00")
    write(folder / "deep.json", "[" * 100_000 + "]" * 100_000)
    write(folder / "nan.json", json.dumps({**config.to_json(Optim()), "lr": float("nan")}))
    write(folder / "list.json", "[1, 2]")
    with pytest.raises(UserError, match=message) as caught:
        config.load(source)
    assert "\n" not in str(caught.value)


def test_load_bounds_the_size(folder, monkeypatch):
    monkeypatch.setattr(config, "_MAX_BYTES", 10)
    with pytest.raises(UserError, match="larger than 10 bytes"):
        config.load("runs/demo")


# ---- the command line


@pytest.mark.parametrize(
    ("args", "path", "value"),
    [
        (["--seed", "3"], "seed", 3),
        (["--seed=-3"], "seed", -3),
        (["--seed", "1", "--seed", "2"], "seed", 2),
        (["--optim.lr", "2e-2"], "optim.lr", 0.02),
        (["--optim.clip", "5"], "optim.clip", 5.0),
        (["--optim.clip", "None"], "optim.clip", None),
        (["--image_size", "320"], "image_size", 320),
        (["--name", "a = b"], "name", "a = b"),
        (["--name=--odd=1"], "name", "--odd=1"),
        (["--flip", "False"], "flip", False),
        (["--level", "4"], "level", 4),
        (["--mean.0", "-1"], "mean.0", -1.0),
        (["--stages.1.weight", "3"], "stages.1.weight", 3.0),
        (["--tasks.box.weight", "3"], "tasks.box.weight", 3.0),
        (["--weights.a", "3"], "weights.a", 3.0),
        (["--network.backbone.width", "16"], "network.backbone.width", 16),
        (["--network.heads.mask.act", "silu"], "network.heads.mask.act", "silu"),
        (["--network.stem.0.width", "2"], "network.stem.0.width", 2),
        (["--network.neck.shared.width", "2"], "network.neck.shared.width", 2),
    ],
)
def test_override_changes_that_field_alone(args, path, value):
    tree = root(weights={"a": 1.0})
    before = config.flatten(tree)
    after = config.flatten(config.override(tree, args))
    assert after == {**before, path: value}
    assert type(after[path]) is type(value)
    assert config.flatten(tree) == before


def test_override_of_whole_tuples():
    tree = config.override(
        root(), ["--image_size", "320", "480", "--network.neck.widths", "1", "2", "3", "--mean", "0", "-1"]
    )
    assert (tree.image_size, tree.network.neck.widths, tree.mean) == ((320, 480), (1, 2, 3), (0.0, -1.0))
    assert config.override(tree, ["--image_size.1", "500"]).image_size == (320, 500)
    assert config.override(tree, ["--image_size", "500"]).image_size == 500


def test_override_with_what_stands_there_changes_nothing():
    tree = root()
    assert config.override(tree, ["--seed", "0", "--network.backbone.width", "3", "--mean", "0.5", "0.25"]) == tree
    assert config.override(tree, []) is tree


def test_overridden_tree_can_be_saved():
    tree = config.override(root(), ["--image_size", "320", "480", "--optim.lr", "1", "--network.stem.0.width", "2"])
    assert config.from_json(json.loads(json.dumps(config.to_json(tree)))) == tree


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--optim.lrr", "1"], r"^--optim.lrr is no field of this config; did you mean --optim.lr\?$"),
        (["--lr", "1"], r"^--lr is no field of this config; did you mean --optim.lr\?$"),
        (["--image-size", "1"], r"did you mean --image_size\?$"),
        (["--network.heads.bix.width=1"], r"did you mean --network.heads.box.width\?$"),
        (["--network", "1"], "^--network is set in the config file, not on the command line"),
        (["--stages", "1"], "^--stages is set in the config file, not on the command line"),
        (["--network.name", "x"], "^--network.name is no field of this config"),
        (["--stages.0.derived", "1"], "^--stages.0.derived is no field of this config"),
        (["--", "1"], "^unexpected argument '--'"),
        (["--seed", "1.5"], "^--seed: expected int, got '1.5'$"),
        (["--seed"], "^--seed: expected int, got nothing$"),
        (["--seed", "--flip", "True"], "^--seed: expected int, got nothing$"),
        (["--seed", "1", "2"], "^--seed: expected int, got '1 2'$"),
        (["--optim.lr", "fast"], "^--optim.lr: expected float, got 'fast'$"),
        (["--optim.lr", "nan"], "^--optim.lr: expected a finite number, got nan$"),
        (["--optim.clip", "none"], "^--optim.clip: expected float or None, got 'none'$"),
        (["--flip", "yes"], "^--flip: expected True or False, got 'yes'$"),
        (["--level", "p4"], "^--level: expected one of 'p3', 4, got 'p4'$"),
        (["--image_size", "1", "2", "3"], r"^--image_size: expected int or tuple\[int, int\], got '1 2 3'$"),
        (["--network.neck.widths"], r"^--network.neck.widths: expected tuple\[int, ...\], got nothing$"),
        (["--mean", "1", "2", "--mean.0", "1"], "^--mean.0 and --mean set the same value"),
        (["seed", "3"], "^unexpected argument 'seed'; a field is set by --field.path VALUE$"),
        (["-seed", "3"], "^unexpected argument '-seed'"),
        (["--optim.lr", "0.001"], "^--optim.lr: lr must not be below floor 0.01, got 0.001$"),
        (["--seed", "1", "--optim.lr", "1", "--optim.floor", "2"], "^--optim.lr, --optim.floor: lr must not be below"),
    ],
)
def test_override_refuses_in_one_line(args, message, capsys):
    with pytest.raises(UserError, match=message) as caught:
        config.override(root(), args)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr() == ("", "")


def test_override_validates_the_fields_of_a_dataclass_together():
    # Either alone would be refused: lr 0.001 with floor 0.01, floor 0.5 with lr 0.1.
    assert config.override(root(), ["--optim.lr", "0.001", "--optim.floor", "0"]).optim == Optim(0.001, 0.0)
    assert config.override(root(), ["--optim.floor", "0.5", "--optim.lr", "1"]).optim == Optim(1.0, 0.5)


def test_help_lists_every_field_that_can_be_set():
    lines = config.help_text(root(tasks={}, stages=())).splitlines()
    assert lines[:4] == [
        "--flip  True or False  (now True)",
        "--image_size  int or tuple[int, int]  (now 640)",
        "--level  one of 'p3', 4  (now 'p3')",
        "--mean  tuple[float, float]  (now (0.5, 0.25))",
    ]
    options = [line.split()[0] for line in lines]
    assert options == sorted(options)
    assert "--network.heads.box.width" in options
    assert "--network" not in options


def test_nearest():
    assert config.nearest("trian", ["val", "train"]) == "train"
    assert config.nearest("lr", ["l", "optim.lr"]) == "optim.lr"
    assert config.nearest("x", []) is None
