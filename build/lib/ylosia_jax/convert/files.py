"""Tensors by name out of files of other frameworks.

Such a file is a stranger's. What kind it is its content says; no code in it is run, nothing beside it is opened, and
what it unpacks to is measured before it is unpacked.
"""

import contextlib
import dataclasses
import functools
import importlib
import io
import json
import math
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ylosia_jax.files import read_bytes
from ylosia_jax.types import UserError

MAX_BYTES = 4 * 2**30  # of a file, and of its tensors in memory: eight times a VGG-16
MAX_NAME = 500  # characters
FLOATS = ("float16", "bfloat16", "float32", "float64")
WHOLE = ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
# Under these a training program's checkpoint keeps what is asked for here.
NESTED = ("state_dict", "model_state_dict", "model")

_SUFFIXES = {
    ".safetensors": "safetensors",
    ".npz": "npz",
    ".pth": "PyTorch",
    ".pt": "PyTorch",
    ".th": "PyTorch",
    ".onnx": "ONNX",
}
# How files begin that are often taken for weights.
_OTHERS = (
    (b"version https://git-lfs", "a pointer of Git LFS in place of the file: fetch it with git lfs pull"),
    (b"<", "a web page or XML: download the file itself"),
    (b"\x89HDF", "HDF5 (Keras), which is not read"),
    (b"\x1f\x8b", "compressed with gzip: unpack it first"),
    (b"\x93NUMPY", "a single array without a name: give an .npz"),
)


@dataclasses.dataclass(frozen=True)
class Tensors:
    """What a file holds.

    Attributes:
      kind: of the file.
      arrays: by the names that they have there, in the file's order; floats as float32.
      notes: what was done to the names.
    """

    kind: str
    arrays: dict[str, np.ndarray]
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Entry:
    """A tensor that is not unpacked yet; `dtype` is NumPy's name of it, or any other word for what is not read."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    load: Callable[[], np.ndarray]


def read(path: Path) -> Tensors:
    """All tensors of a file: safetensors, npz, a state dict of PyTorch, or the initialisers and constants of ONNX.

    float16, bfloat16 and float64 become float32. Whole numbers stay as they are; those of ONNX, which its graph
    computes shapes with, are left out. `module.` before all names, which data-parallel training adds, is taken off.

    Raises:
      UserError: if the file is not there, of another kind than its suffix says, damaged, larger than `MAX_BYTES` as a
        file or unpacked, wants to run code, or points to other files; if a tensor's dtype is not read, or it holds a
        number that is not finite.
    """
    kind = _kind(path)
    notes: list[str] = []
    with _blame(path, kind):
        match kind:
            case "safetensors":
                arrays = _load(_safetensors(path))
            case "npz":
                arrays = _load(_npz(path))
            case "ONNX":
                arrays = _load(_onnx(path))
            case _:
                arrays = _load(_torch(path, notes))
    if not arrays:
        raise UserError(f"{path}: there is no tensor in it")
    if all(name.startswith("module.") for name in arrays):
        arrays = {name.removeprefix("module."): value for name, value in arrays.items()}
        notes.append("the prefix module. was taken off all names")
    return Tensors(kind, arrays, tuple(notes))


def _kind(path: Path) -> str:
    """What a file is by its first bytes, if its suffix agrees."""
    try:
        if path.is_dir():
            raise OSError("it is a folder: name a file")
        if not path.exists():
            raise OSError("there is no such file")
        head = read_bytes(path, MAX_BYTES, first=64)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    if not head:
        raise UserError(f"{path}: the file is empty")
    found = _kind_of(path, head)
    said = _SUFFIXES.get(path.suffix.lower(), found)
    if found is None:
        other = next((what for start, what in _OTHERS if head.lstrip().startswith(start)), None)
        kinds = "safetensors, npz, PyTorch or ONNX"
        raise UserError(f"{path}: it is {other}" if other else f"{path}: its content is none of {kinds}")
    if found != said:
        raise UserError(f"{path}: by its content it is {found}, by its suffix {said}: rename it if you trust it")
    return found


def _kind_of(path: Path, head: bytes) -> str | None:
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") < MAX_BYTES:
        return "safetensors"
    if head.startswith(b"PK"):
        with _blame(path, "a zip archive"), zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if names and all(name.endswith(".npy") for name in names):
            return "npz"
        return "PyTorch" if any(name.rpartition("/")[2] == "data.pkl" for name in names) else None
    first, second = head.ljust(2, b"\0")[:2]
    if first == 0x80 and 2 <= second <= 5:  # a pickle and its protocol, as torch.save wrote until 2020
        return "PyTorch"
    # An ONNX file has no magic number: it begins with the field of its version.
    return "ONNX" if first == 0x08 and 1 <= second < 0x40 else None


@contextlib.contextmanager
def _blame(path: Path, kind: str) -> Generator[None]:
    """Whatever a parser makes of a hostile file is one line about the file."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # parsers have no common one
        # What a parser says may quote the file.
        reason = "".join(c if c.isprintable() else " " for c in str(error))[:200].strip() or type(error).__name__
        raise UserError(f"{path}: it cannot be read as {kind}, it is damaged or not whole ({reason})") from error


def _load(entries: Iterable[_Entry]) -> dict[str, np.ndarray]:
    """Unpacks tensors, once all of them were looked at."""
    table: dict[str, _Entry] = {}
    for entry in entries:
        if not 0 < len(entry.name) <= MAX_NAME or not entry.name.isprintable():
            raise UserError(f"a tensor is called {entry.name[:50]!r}, which is no name")
        if min(entry.shape, default=0) < 0:
            raise UserError(f"{entry.name} has the shape {list(entry.shape)}")
        if entry.name in table:
            raise UserError(f"there are two tensors {entry.name}")
        if entry.dtype not in FLOATS + WHOLE:
            raise UserError(f"{entry.name} is {entry.dtype}, which is not read: give {', '.join(FLOATS)} or integers")
        table[entry.name] = entry
    _check_size(sum(math.prod(e.shape) * (4 if e.dtype in FLOATS else 8) for e in table.values()))
    found: dict[str, np.ndarray] = {}
    for name, entry in table.items():
        try:
            value = entry.load()
        except ValueError as error:
            raise UserError(f"{name} is not of the size that it claims ({error})") from error
        if entry.dtype in FLOATS:
            with np.errstate(over="ignore"):
                value = np.asarray(value, np.float32)
            if not np.isfinite(value).all():
                raise UserError(f"{name} holds numbers that are not finite")
        found[name] = value
    return found


def _check_size(count: int) -> None:
    if count > MAX_BYTES:
        raise UserError(f"it unpacks to {count} bytes, more than the limit of {MAX_BYTES}")


def _safetensors(path: Path) -> Iterator[_Entry]:
    import safetensors

    names = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool"}
    kinds = (("I", "int"), ("U", "uint"))
    names |= {f"{letter}{bits}": f"{word}{bits}" for letter, word in kinds for bits in (8, 16, 32, 64)}
    opened: Any = safetensors.safe_open(path, "np")
    # Of two tensors of one name it would give the last.
    with path.open("rb") as file:
        header = file.read(int.from_bytes(file.read(8), "little"))
    json.loads(header, object_pairs_hook=_unique)
    for name in list(opened.keys()):
        piece = opened.get_slice(name)
        dtype = str(piece.get_dtype())
        load = functools.partial(opened.get_tensor, name)
        yield _Entry(name, tuple(piece.get_shape()), names.get(dtype, dtype), load)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """What a header says, where it says it once."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise UserError(f"there are two tensors {name:.100}")
        found[name] = value
    return found


def _npz(path: Path) -> Iterator[_Entry]:
    with zipfile.ZipFile(path) as archive:
        _check_size(sum(member.file_size for member in archive.infolist()))
        for member in archive.infolist():
            data = archive.read(member)  # never more than the archive says, and with its checksum
            stream = io.BytesIO(data)
            versions = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            version = np.lib.format.read_magic(stream)
            if version not in versions:
                raise UserError(f"{member.filename} is of another version of npy, {version}")
            shape, by_columns, dtype = versions[version](stream)
            # Not by read_array, which makes room for whatever shape the header claims.
            flat = functools.partial(np.frombuffer, data, dtype, offset=stream.tell())
            load = functools.partial(_reshape, flat, shape, "F" if by_columns else "C")
            yield _Entry(member.filename.removesuffix(".npy"), shape, dtype.name, load)


def _reshape(flat: Callable[[], np.ndarray], shape: tuple[int, ...], order: Literal["C", "F"]) -> np.ndarray:
    return flat().reshape(shape, order=order)


def _onnx(path: Path) -> Iterator[_Entry]:
    onnx = _package("onnx", "onnx", ".onnx files")
    # External data lies in other files, wherever the model says: they are not opened.
    graph = onnx.load(str(path), format="protobuf", load_external_data=False).graph
    if len(graph.sparse_initializer):
        raise UserError("it holds sparse tensors, which are not read")
    constants = [
        (node.output[0], attribute.t)
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    ]
    for name, tensor in [*((tensor.name, tensor) for tensor in graph.initializer), *constants]:
        if tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.external_data):
            raise UserError(f"{name} is kept in another file, which is not opened: save the model as one file")
        dtype = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
        dtype: str = {"float": "float32", "double": "float64"}.get(dtype, dtype)
        if dtype in WHOLE:
            continue
        yield _Entry(name, tuple(tensor.dims), dtype, functools.partial(onnx.numpy_helper.to_array, tensor))


def _torch(path: Path, notes: list[str]) -> Iterator[_Entry]:
    torch = _package("torch", "torch", "PyTorch's files")
    if tuple(map(int, re.findall(r"\d+", torch.__version__)[:2])) < (2, 6):
        # Until then weights_only could be made to run code (CVE-2025-32434).
        raise UserError(f"torch {torch.__version__} does not open strangers' files safely: pip install 'torch>=2.6'")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            _check_size(sum(member.file_size for member in archive.infolist()))
            if any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist()):
                raise UserError("it is a program (TorchScript): save its state_dict() with torch.save instead")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # The rest of what torch says is how to run such a file all the same.
        said = re.search(r"GLOBAL [\w.]+|(Unsupported|Trying|Can only|Only) [^\n]{,100}", str(error))
        raise UserError(
            f"refused: its pickle asks for more than tensors, and might run code ({said[0] if said else 'damaged'}): "
            "save a plain state_dict() with torch.save"
        ) from error
    if not isinstance(content, Mapping):
        raise UserError(f"it holds a {type(content).__name__}, not tensors by their names")
    if nested := next((key for key in NESTED if isinstance(content.get(key), Mapping)), None):
        content = content[nested]
        notes.append(f"the tensors are those under {nested!r}")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            kind = type(value).__name__
            raise UserError(f"{name!r:.100} is a {kind}, not a tensor: give a plain state dict, name -> tensor")
        dtype = str(value.dtype).removeprefix("torch.")
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            dtype = f"{value.layout} on {value.device.type}".removeprefix("torch.")
        yield _Entry(name, tuple(value.shape), dtype, functools.partial(_from_torch, value.detach()))


def _from_torch(value: Any) -> np.ndarray:
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise ValueError("its storage is smaller: save a contiguous() copy")
    return (value.float() if value.is_floating_point() else value).contiguous().numpy()


def _package(name: str, extra: str, what: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"{what} need the package {name}: pip install 'ylosia-jax[{extra}]'") from error
