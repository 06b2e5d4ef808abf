"""Files of weights that are not what they seem; those that need torch or onnx are in tests/parity."""

import json
import os
import struct
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from ylosia_jax.convert import files
from ylosia_jax.convert.files import read
from ylosia_jax.types import UserError


def safetensors(header, data=b""):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.safetensors"
    save_file({"b.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b.count": np.array(7)}, path)
    return path


def test_numbers_arrive_as_float32_and_counters_as_they_are(tmp_path, good):
    found = read(good)
    assert (found.kind, found.notes) == ("safetensors", ())
    assert found.arrays["b.weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found.arrays["b.count"].dtype == np.int64
    values = np.array([[1.5, -2.0], [0.25, 3.0]])
    for dtype in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64):
        save_file({"a": values.astype(dtype)}, tmp_path / "a.safetensors")
        array = read(tmp_path / "a.safetensors").arrays["a"]
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, values)


def test_arrays_of_an_npz(tmp_path):
    path = tmp_path / "a.npz"
    by_columns = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    np.savez_compressed(
        path, **{"module.a": by_columns, "module.b": np.float32(2), "module.c": np.arange(3, dtype=">f4")}
    )
    found = read(path)
    assert found.kind == "npz"
    assert {name: value.tolist() for name, value in found.arrays.items()} == {
        "a": [[0, 1, 2], [3, 4, 5]],
        "b": 2.0,
        "c": [0, 1, 2],
    }
    assert found.notes == ("the prefix module. was taken off all names",)


CONTENTS = {
    "empty.safetensors": (b"", "the file is empty"),
    "lfs.pth": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
    "page.pth": (b"\n<!DOCTYPE html><html>", "a web page"),
    "keras.onnx": (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
    "text.pth": (b"cos\nsystem\n(S'touch x'\ntR.", "none of safetensors, npz, PyTorch or ONNX"),
    "noise.npz": (bytes(range(100, 200)), "none of safetensors"),
    "truth.pth": (safetensors({"a": entry()}, bytes(8)), "by its content it is safetensors, by its suffix PyTorch"),
    "cut.safetensors": (safetensors({"a": entry()}, bytes(8))[:-3], "cannot be read as safetensors"),
    "header.safetensors": (struct.pack("<Q", 2**31) + b"{}", "cannot be read as safetensors"),
    "overlap.safetensors": (
        safetensors({"a": entry(), "b": entry()}, bytes(8)),
        "cannot be read as safetensors",
    ),
    "beyond.safetensors": (safetensors({"a": entry(offsets=(0, 800))}, bytes(8)), "cannot be read as safetensors"),
    "eighth.safetensors": (safetensors({"a": entry("F8_E4M3", (8,))}, bytes(8)), "a is F8_E4M3, which is not read"),
    "nan.safetensors": (safetensors({"x.y": entry()}, struct.pack("<2f", 1, float("nan"))), "x.y holds numbers"),
    "large.safetensors": (safetensors({"x": entry("F64", (1,))}, struct.pack("<d", 1e300)), "x holds numbers"),
    "name.safetensors": (safetensors({"a\n\x1b[31m": entry()}, bytes(8)), "which is no name"),
    "nothing.safetensors": (safetensors({}), "there is no tensor in it"),
    "byte.pth": (b"\x80", "none of safetensors"),
    "byte.onnx": (b"\x08", "none of safetensors"),
    "zip.npz": (b"PK\x03\x04" + bytes(99), "cannot be read as a zip archive"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_what_is_no_weights_file_is_one_line(tmp_path, name):
    content, message = CONTENTS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        read(tmp_path / name)
    assert message in str(error.value)
    assert name in str(error.value)
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)


def test_what_is_no_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone.npz: there is no such file"):
        read(tmp_path / "gone.npz")
    with pytest.raises(UserError, match="it is a folder"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(UserError, match="not a regular file"):  # and does not wait for its other end
        read(tmp_path / "pipe.npz")


class Code:
    """A pickle that leaves a file behind when it is loaded."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_two_safetensors_of_one_name_are_refused(tmp_path):
    one = '"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
    header = f"{{{one}, {one}}}".encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(UserError, match="there are two tensors a"):
        read(path)


def test_an_npz_does_not_run_code(tmp_path):
    path, mark = tmp_path / "a.npz", tmp_path / "mark"
    np.savez(path, a=np.array([Code(mark)], dtype=object))
    with pytest.raises(UserError, match="a is object, which is not read"):
        read(path)
    assert not mark.exists()
    np.load(path, allow_pickle=True)["a"]  # it would have
    assert mark.exists()


def npy(header, data=b""):
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (
            npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000,)}"),
            "a is not of the size that it claims",
        ),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000,)}"), "unpacks to 40000000000 bytes"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4)}", bytes(16)), "has the shape"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (__import__('os'),)}"), "cannot be read as npz"),
        (npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", bytes(4)), "a is void32"),
        (npy("{'descr': '<c8', 'fortran_order': False, 'shape': (1,)}", bytes(8)), "a is complex64"),
        (b"\x93NUMPY\x03\x00", "another version of npy"),
        (b"no array", "cannot be read as npz"),
    ],
)
def test_arrays_that_lie_about_themselves(tmp_path, member, message):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", member)
    with pytest.raises(UserError) as error:
        read(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_archive_that_is_damaged_or_holds_something_else(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.arange(100.0))
    data = bytearray(path.read_bytes())
    data[400] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="Bad CRC"):
        read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", b"")
    with pytest.raises(UserError, match="none of safetensors"):
        read(path)
    member = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", bytes(4))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", member)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.npy", member)
    with pytest.raises(UserError, match="two tensors a"):
        read(path)


def test_sizes_are_bounded(tmp_path, good, monkeypatch):
    bomb = tmp_path / "bomb.npz"
    np.savez_compressed(bomb, a=np.zeros(100_000, np.float32))
    assert bomb.stat().st_size < 2000
    half = tmp_path / "half.safetensors"
    save_file({"a": np.zeros(400, np.float16)}, half)  # 1600 bytes as float32
    monkeypatch.setattr(files, "MAX_BYTES", 1500)
    with pytest.raises(UserError, match=r"bomb.npz: it unpacks to 400128 bytes, more than the limit of 1500"):
        read(bomb)
    with pytest.raises(UserError, match=r"half.safetensors: it unpacks to 1600 bytes"):
        read(half)
    assert read(good).arrays
    monkeypatch.setattr(files, "MAX_BYTES", 50)
    with pytest.raises(UserError, match="more than the limit of 50"):
        read(good)


@pytest.mark.parametrize(
    ("name", "content", "package"),
    [("a.pth", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "torch"), ("a.onnx", b"\x08\x07\x12\x00", "onnx")],
)
def test_a_missing_package_is_named_with_its_command(tmp_path, monkeypatch, name, content, package):
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"need the package {package}: pip install 'ylosia-jax\[{package}\]'"):
        read(tmp_path / name)
