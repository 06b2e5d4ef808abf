"""Trees of frozen dataclasses and unbound linen modules: as JSON, as text, compared, loaded, overridden.

A tree's nodes are dataclasses, linen modules, dicts with string keys and tuples; its leaves are numbers, strings,
booleans and None. A path names a node from the root: `optim.lr`, `network.heads.box.width`, `data.image_size.0`.
"""

import contextlib
import dataclasses
import difflib
import functools
import importlib
import importlib.util
import io
import itertools
import json
import math
import re
import sys
import traceback
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import tyro
from flax import linen

from ylosia_jax.types import UserError

_PREFIX = "ylosia_jax."
_MAX_DEPTH = 64
_MAX_BYTES = 2**24
_loaded = itertools.count()


class Absent:
    """The type of `ABSENT`."""

    def __repr__(self) -> str:
        return "(absent)"


ABSENT: Final = Absent()


def to_json(tree: Any) -> Any:
    """The tree as what `json.dumps` takes; each dataclass carries its import path as `_type`.

    Raises:
      UserError: if the tree holds what `from_json` could not rebuild: a list, a NaN, a class from elsewhere, a value
        that is not of its field's declared type, …
    """

    def encode(node: Any, path: str) -> Any:
        children = {key: encode(child, _join(path, key)) for key, child, _ in _children(node, Any, path)}
        kind = _kind(node)
        if _is_dataclass(node):
            name = f"{kind.__module__}.{kind.__qualname__}"
            _import(name, path)
            return {"_type": name, **children}
        return list(children.values()) if kind is tuple else children if kind is dict else node

    for _ in _walk(tree):
        pass
    return encode(tree, "")


def from_json(data: Any) -> Any:
    """Rebuilds what `to_json` made, from data that need not be trusted: it imports dataclasses of this package alone.

    Raises:
      UserError: naming the path and the value, for a foreign or unknown type, an unknown, missing or mistyped field.
    """

    def decode(data: Any, path: str) -> Any:
        kind = _kind(data)
        if path.count(".") >= _MAX_DEPTH:
            raise UserError(f"{path}: nested deeper than {_MAX_DEPTH} levels")
        if kind is list:
            return tuple(decode(item, _join(path, str(index))) for index, item in enumerate(data))
        if kind is not dict:
            _check(data, Any, path)
            return data
        values = {key: decode(value, _join(path, key)) for key, value in data.items() if key != "_type"}
        if "_type" not in data:
            return values
        cls = _import(data["_type"], path)
        hints = _fields(cls)
        for key in values.keys() ^ hints.keys():
            fault = f"{cls.__name__} has no such field" if key in values else f"this field of {cls.__name__} is missing"
            raise UserError(f"{_join(path, key)}: {fault}; a config written by another version needs that version")
        for key, value in values.items():
            _check(value, hints[key], _join(path, key))
        with _blame(_at(path)):
            return cls(**values)

    return decode(data, "")


def flatten(tree: Any) -> dict[str, Any]:
    """Path -> leaf, sorted by path; an empty tuple or dict is a leaf too."""
    return {path: value for path, value in _rows(tree).items() if not isinstance(value, type)}


def to_text(tree: Any) -> str:
    """One `path: value` line a field, sorted by path; a dataclass shows its class, the root under the path `.`."""
    return "".join(f"{path}: {show(value)}\n" for path, value in _rows(tree).items())


def help_text(tree: Any) -> str:
    """One sorted line for each field that `override` can set: option, declared type, present value."""
    lines = {path: f"--{path}  {_describe(hint)}  (now {show(node)})\n" for path, node, hint in _options(tree)}
    # A tuple that is set as a whole needs no line for each item.
    return "".join(lines[path] for path in sorted(lines) if path.rpartition(".")[0] not in lines)


def diff(left: Any, right: Any) -> list[tuple[str, Any, Any]]:
    """The (path, left, right) in which two trees differ, sorted; `ABSENT` where one side has no such path.

    A dataclass stands under its path as its class; `show` makes every value text.
    """
    a, b = _rows(left), _rows(right)
    pairs = [(path, a.get(path, ABSENT), b.get(path, ABSENT)) for path in sorted(a.keys() | b.keys())]
    return [pair for pair in pairs if pair[1] != pair[2]]


def show(value: Any) -> str:
    """A node as one short piece of text: a leaf as Python writes it, a class or its instance by the class's name."""
    kind = _kind(value)
    if dataclasses.is_dataclass(value):
        return value.__name__ if isinstance(value, type) else kind.__name__
    if kind is dict:
        return "{" + ", ".join(f"{key!r}: {show(item)}" for key, item in value.items()) + "}"
    if kind is tuple:
        return "(" + ", ".join(map(show, value)) + ("," if len(value) == 1 else "") + ")"
    return repr(value)


def load(source: str | Path) -> Any:
    """The tree of a config file (`.py` with `get_config()`), of a workdir, or of a `config.json`.

    A name without folder or extension, `ylosia_n_bccd`, is looked up in `configs/` too.

    Raises:
      UserError: naming the nearest config where there is none, or the file, line and reason where it cannot be read.
    """
    path = _find(Path(source))
    tree = _run(path) if path.suffix == ".py" else _read(path)
    if not _is_dataclass(tree):
        raise UserError(f"{path}: expected a dataclass as the config, got {show(tree)}")
    return tree


def override(tree: Any, args: Sequence[str]) -> Any:
    """The tree with fields set from a command line: `--optim.lr 0.02 --data.image_size 320 480 --seed=3`.

    Raises:
      UserError: for a field that is not there, naming the nearest, a value that is not of the field's type, or what a
        dataclass's own validation refuses.
    """
    options = {path: hint for path, _, hint in _options(tree)}
    changes: dict[str, Any] = {}
    for name, words in _split(args):
        if name not in options:
            known = any(path == name for path, _, _ in _walk(tree))
            fault = "is set in the config file, not on the command line" if known else "is no field of this config"
            near = nearest(name, options)
            raise UserError(f"--{name} {fault}" + (f"; did you mean --{near}?" if near else ""))
        changes[name] = _parse(name, words, options[name])
    for name in changes:
        whole = next((other for other in changes if name.startswith(f"{other}.")), None)
        if whole:
            raise UserError(f"--{name} and --{whole} set the same value; give one of them")
    return _apply(tree, changes, "")


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that `name` was most likely meant to be; None where there are none."""
    names = sorted(names)
    same_end = [other for other in names if other.endswith(f".{name}")]
    return next(iter(difflib.get_close_matches(name, same_end or names, n=1, cutoff=0.0)), None)


# ---- what a tree is made of


def _kind(node: object) -> type[Any]:
    return type(node)


def _is_dataclass(node: Any) -> bool:
    return dataclasses.is_dataclass(node) and not isinstance(node, type)


@functools.cache
def _fields(cls: Any) -> dict[str, Any]:
    """Field -> declared type, without what is derived and without a linen module's own `parent` and `name`."""
    hints, derived = get_type_hints(cls), {field.name for field in dataclasses.fields(cls) if not field.init}
    own = {"parent", "name"} if linen.Module in cls.__mro__ else set[str]()
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.name not in derived | own}


def _children(node: Any, hint: Any, path: str) -> list[tuple[str, Any, Any]]:
    """(key, child, the child's declared type) of a node; nothing for a leaf."""
    kind = _kind(node)
    if kind is dict or kind is tuple:
        table = node if kind is dict else {str(index): item for index, item in enumerate(node)}
        return [(*item, child) for item, child in zip(table.items(), _item_types(hint, node), strict=True)]
    if not _is_dataclass(node):
        return []
    if linen.Module in kind.__mro__ and (node.name is not None or node.parent is not None):
        # A name of its own would change parameter paths, and the JSON does not keep it.
        raise UserError(f"{_at(path)}: a module in a config is unbound and unnamed; this {show(node)} is {node.name!r}")
    return [(key, getattr(node, key), child) for key, child in _fields(kind).items()]


def _walk(node: Any, hint: Any = Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every node as (path, node, declared type), parents first; refuses what no config may hold."""
    _check(node, hint, path)
    yield path, node, hint
    for key, child, child_hint in _children(node, hint, path):
        yield from _walk(child, child_hint, _join(path, key))


def _rows(tree: Any) -> dict[str, Any]:
    """Path -> leaf, or the class of a dataclass, sorted; what text and comparison are made of."""
    rows = {path or ".": _kind(node) if _is_dataclass(node) else node for path, node, _ in _walk(tree)}
    return {path: rows[path] for path in sorted(rows) if not (_kind(rows[path]) in (tuple, dict) and rows[path])}


def _join(path: str, key: Any) -> str:
    if type(key) is not str or key == "_type" or not re.fullmatch(r"[^.=]+", key):
        raise UserError(f"{_at(path)}: a key is a string without `.` and `=`, and not `_type`; got {key!r}")
    return f"{path}.{key}" if path else key


def _at(path: str) -> str:
    return path or "config"


# ---- declared types


def _check(value: Any, hint: Any, path: str) -> None:
    """Refuses a value that no config may hold, or that is not of its declared type."""
    if type(value) not in (bool, int, float, str, NoneType, tuple, dict) and not _is_dataclass(value):
        kinds = "numbers, strings, tuples, dicts, dataclasses and linen modules"
        raise UserError(f"{_at(path)}: a config holds {kinds}, not {value!r} of type {type(value).__name__}")
    if type(value) is float and not math.isfinite(value):
        raise UserError(f"{_at(path)}: expected a finite number, got {value!r}")
    if not _fits(value, hint):
        raise UserError(f"{_at(path)}: expected {_describe(hint)}, got {show(value)}")


def _fits(value: Any, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, member) for member in get_args(hint))
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in get_args(hint))
    if hint in (bool, int, float, str):
        return type(value) is hint or (hint is float and type(value) is int)
    try:
        right = isinstance(value, origin or hint)
    except TypeError:  # Any, or a Protocol without a run-time check
        return True
    kind = _kind(value)
    if right and kind in (tuple, dict):
        items, types = value.values() if kind is dict else value, _item_types(hint, value)
        return len(items) == len(types) and all(map(_fits, items, types))
    return right


def _item_types(hint: Any, value: Any) -> Sequence[Any]:
    """The declared types of a tuple's or dict's items."""
    if get_origin(hint) in (Union, UnionType):
        hint = next((member for member in get_args(hint) if _fits(value, member)), Any)
    args = get_args(hint)
    if get_origin(hint) is tuple and ... not in args:
        return args
    return [(Any, *(arg for arg in args if arg is not ...))[-1]] * len(value)


def _describe(hint: Any) -> str:
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(_describe, get_args(hint)))
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    if hint in (bool, NoneType):
        return "True or False" if hint is bool else "None"
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")


# ---- JSON and files


def _import(name: Any, path: str) -> Any:
    """The dataclass of that name, if it is defined in this package: never another object, never an attribute of one."""
    fault = f"{_at(path)}: {name!r} is no dataclass that {_PREFIX}* defines; a saved config holds no other classes"
    if type(name) is not str or not re.fullmatch(rf"{re.escape(_PREFIX)}([a-z]\w*\.)*[A-Z]\w*", name, re.ASCII):
        raise UserError(fault)
    module, _, attribute = name.rpartition(".")
    try:
        found = vars(importlib.import_module(module)).get(attribute)
    except ImportError as error:
        raise UserError(f"{fault} ({error})") from error
    if not (isinstance(found, type) and dataclasses.is_dataclass(found) and found.__module__ == module):
        raise UserError(fault)
    return found


def _find(source: Path) -> Path:
    folder = Path("configs")
    tries = (source / "config.json", source, Path(f"{source}.py"), folder / source, folder / f"{source}.py")
    found = next((path for path in tries if path.is_file()), None)
    if found is None and source.is_dir():
        raise UserError(f"{source}: no config.json in this folder; name a run's workdir or a config file")
    if found is None:
        near = [entry for place in (folder, source.parent) if place.is_dir() for entry in place.iterdir()]
        names = {entry.stem: entry for entry in near if entry.suffix == ".py" or (entry / "config.json").is_file()}
        best = nearest(source.stem, names)
        raise UserError(f"{source}: no such config" + (f"; did you mean {names[best]}?" if best else ""))
    if found.suffix not in (".py", ".json"):
        raise UserError(f"{found}: expected a config file (.py), a config.json or a run's workdir")
    return found


def _read(path: Path) -> Any:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"{path}: larger than {_MAX_BYTES} bytes, which no config is")
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a readable JSON file: {error}") from error
    with _blame(str(path)):
        return from_json(data)


def _run(path: Path) -> Any:
    """What the file's `get_config()` returns; its module stays in sys.modules, where its classes' hints resolve."""
    spec = importlib.util.spec_from_file_location(f"_config_{next(_loaded)}_{path.stem}", path)
    assert spec is not None  # the suffix is .py
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not callable(getattr(module, "get_config", None)):
            raise UserError(f"{path}: no get_config(); a config file defines it and returns the experiment from it")
        return module.get_config()
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == spec.origin]
        line = f":{frames[-1].lineno}" if frames else ""
        raise UserError(f"{path}{line}: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _blame(where: str) -> Generator[None]:
    """Turns what a dataclass's validation raises into a UserError that says where."""
    try:
        yield
    except (TypeError, ValueError, UserError) as error:
        raise UserError(f"{where}: {error}") from error


# ---- the command line


def _options(tree: Any) -> Iterator[tuple[str, Any, Any]]:
    """(path, value, type) of the nodes that words on a command line can stand for."""
    for path, node, hint in _walk(tree):
        kind = hint if _settable(hint) else _kind(node)
        if path and _settable(kind):
            yield path, node, kind


def _settable(hint: Any) -> bool:
    if get_origin(hint) in (Union, UnionType, tuple):
        return all(arg in (NoneType, ...) or _settable(arg) for arg in get_args(hint))
    return hint in (bool, int, float, str) or get_origin(hint) is Literal


def _split(args: Sequence[str]) -> list[tuple[str, list[str]]]:
    groups: list[tuple[str, list[str]]] = []
    for arg in args:
        if arg.startswith("--") and arg != "--":
            name, equals, word = arg[2:].partition("=")
            groups.append((name, [word] if equals else []))
        elif groups:
            groups[-1][1].append(arg)
        else:
            raise UserError(f"unexpected argument {arg!r}; a field is set by --field.path VALUE")
    return groups


def _parse(name: str, words: list[str], hint: Any) -> Any:
    """The words as a value of the declared type.

    Each field goes to tyro alone: one command-line type for the whole tree would need every network and head as a
    struct, while fields' own types are what tyro reads well, and a fault is this field's for certain.
    """
    try:
        if not words:  # tyro would read nothing as an empty tuple
            raise SystemExit(2)
        with contextlib.redirect_stderr(io.StringIO()):  # tyro prints a panel before it exits
            kind: Any = tyro.conf.FlagConversionOff[hint]
            value = tyro.cli(kind, args=["--", *words], console_outputs=False, add_help=False)
    except SystemExit:
        given = repr(" ".join(words)) if words else "nothing"
        raise UserError(f"--{name}: expected {_describe(hint)}, got {given}") from None
    _check(value, hint, f"--{name}")
    return value


def _apply(node: Any, changes: Mapping[str, Any], path: str) -> Any:
    """The node with the changes at and below its path; all of a dataclass's at once, so that it validates the whole."""
    if path in changes:
        return changes[path]
    old = {key: child for key, child, _ in _children(node, Any, path)}
    new = {key: _apply(child, changes, _join(path, key)) for key, child in old.items()}
    changed = {key: child for key, child in new.items() if child is not old[key]}
    if not changed:
        return node
    if not _is_dataclass(node):
        return tuple(new.values()) if type(node) is tuple else new
    with _blame(", ".join(f"--{name}" for name in changes if name.startswith(f"{path}." if path else ""))):
        return dataclasses.replace(node, **changed)
