"""Files of PyTorch and ONNX, hostile ones among them."""

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from parity.reference import torch

from ylosia_jax.cli import main
from ylosia_jax.convert import files
from ylosia_jax.convert.files import read
from ylosia_jax.types import UserError

onnx = pytest.importorskip("onnx", reason="needs the packages of requirements-parity.txt: make parity")

TINY = Path(__file__).parents[1] / "tiny.py"
BOTH = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "pickle"])


def save(content, path, zipped=True):
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def refused(path):
    with pytest.raises(UserError) as error:
        read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


@BOTH
def test_a_state_dict_is_read(tmp_path, zipped):
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1, bias=False), torch.nn.BatchNorm2d(3))
    found = read(save(model.state_dict(), tmp_path / "a.pth", zipped))
    assert (found.kind, found.notes) == ("PyTorch", ())
    assert list(found.arrays) == list(model.state_dict())
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(found.arrays[name], value.numpy())
    assert found.arrays["1.num_batches_tracked"].dtype == np.int64


def test_other_forms_of_it(tmp_path):
    values = torch.tensor([[1.5, -2.0], [0.25, 3.0]])
    for key in ("state_dict", "model", "model_state_dict"):
        content = {key: {"module.a": values.T}, "epoch": 3, "optimizer": {"state": {}}}
        found = read(save(content, tmp_path / "a.pt"))
        np.testing.assert_array_equal(found.arrays["a"], values.numpy().T)
        assert found.notes[0] == f"the tensors are those under '{key}'"
        assert "module." in found.notes[1]
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        found = read(save({"a": torch.nn.Parameter(values.to(dtype))}, tmp_path / "a.th"))
        assert found.arrays["a"].dtype == np.float32
        np.testing.assert_array_equal(found.arrays["a"], values.numpy())


class Code:
    """A pickle that leaves a folder behind when it is loaded."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@BOTH
@pytest.mark.parametrize("forced", ["0", "1"])
def test_a_pickle_does_not_run_code(tmp_path, monkeypatch, zipped, forced):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", forced)  # with which torch.load would run it by itself
    path, mark = tmp_path / "a.pth", tmp_path / "mark"
    save({"a": torch.zeros(2), "b": Code(mark)}, path, zipped)
    message = refused(path)
    assert "might run code" in message
    assert "posix.mkdir" in message
    assert "weights_only" not in message  # torch says how to run it all the same
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists()  # it would have


@pytest.mark.parametrize("command", [["show"], ["import", "--config", str(TINY), "--workdir", "run"]])
def test_nor_from_the_command_line(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    save({"a": Code(tmp_path / "mark")}, Path("a.pth"))
    assert main(["weights", command[0], "a.pth", *command[1:]]) == 2
    error = capsys.readouterr().err
    assert error.startswith("ylosia: a.pth: refused: its pickle asks for more than tensors")
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_nor_does_one_that_torch_did_not_write(tmp_path):
    path, mark = tmp_path / "a.pth", tmp_path / "mark"
    for protocol in range(6):
        path.write_bytes(pickle.dumps(Code(mark), protocol))
        refused(path)
        path.write_bytes(pickle.dumps({"a": np.zeros(3)}, protocol))
        refused(path)
    assert not mark.exists()


def test_a_whole_model_and_a_program_are_refused(tmp_path):
    model = torch.nn.Linear(2, 2)
    assert "torch.nn.modules.linear.Linear" in refused(save(model, tmp_path / "a.pth"))
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.save(torch.jit.script(model), tmp_path / "a.pt")
    assert "TorchScript" in refused(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": torch.zeros(1), "epoch": 3}, "'epoch' is a int, not a tensor"),
        ({3: torch.zeros(1)}, "3 is a Tensor, not a tensor"),
        ([torch.zeros(1)], "holds a list"),
        (torch.zeros(1), "holds a Tensor"),
        ({}, "there is no tensor"),
        ({"a": torch.tensor([1.0, float("inf")])}, "a holds numbers that are not finite"),
        ({"a": torch.zeros(2, dtype=torch.complex64)}, "a is complex64"),
        ({"a": torch.zeros(2, dtype=torch.float8_e5m2)}, "a is float8_e5m2"),
        ({"a": torch.eye(2).to_sparse()}, "a is sparse_coo"),
        ({"a": torch.zeros(2, device="meta")}, "on meta"),
        ({"a": torch.zeros(1).expand(2**40)}, f"it unpacks to {4 * 2**40} bytes"),
        ({"a": torch.zeros(1).expand(2)}, "a is not of the size that it claims (its storage is smaller"),
        ({f"a{i}": torch.zeros(1).expand(2**20) for i in range(2000)}, "bytes, more than the limit"),
    ],
    ids=range(13),
)
def test_what_is_no_plain_tensor_is_named(tmp_path, content, message):
    assert message in refused(save(content, tmp_path / "a.pth"))


@BOTH
def test_a_file_that_is_not_whole(tmp_path, zipped):
    path = save({"a": torch.zeros(1000)}, tmp_path / "a.pth", zipped)
    data = path.read_bytes()
    for share in (0.02, 0.5, 0.98):
        path.write_bytes(data[: int(share * len(data))])
        assert "cannot be read" in refused(path)


def test_a_file_under_anothers_name(tmp_path):
    path = save({"a": torch.zeros(3)}, tmp_path / "a.safetensors")
    assert "by its content it is PyTorch, by its suffix safetensors" in refused(path)


def test_an_archive_that_unpacks_to_more(tmp_path, monkeypatch):
    path = save({"a": torch.zeros(100_000)}, tmp_path / "a.pth")
    bomb = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        for member in whole.infolist():
            packed.writestr(member.filename, whole.read(member))
    assert bomb.stat().st_size < 5000
    monkeypatch.setattr(files, "MAX_BYTES", 10_000)
    assert "more than the limit of 10000" in refused(bomb)
    assert "it has" in refused(path)


def test_a_torch_that_is_not_safe_is_not_asked(tmp_path, monkeypatch):
    path = save({"a": torch.zeros(3)}, tmp_path / "a.pth")
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    assert "pip install 'torch>=2.6'" in refused(path)


# ---- ONNX


def model(initializers=(), constants=(), **changes):
    nodes = [onnx.helper.make_node("Constant", [], [name], value=value) for name, value in constants]
    graph = onnx.helper.make_graph(nodes, "g", [], [], initializer=list(initializers))
    for name, value in changes.items():
        getattr(graph, name).extend(value)
    return onnx.helper.make_model(graph)


def written(model, path):
    path.write_bytes(model.SerializeToString())
    return path


def array(name, value):
    return onnx.numpy_helper.from_array(np.asarray(value), name)


def test_initialisers_and_constants_are_read(tmp_path):
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    content = model(
        [array("b.weight", kernel), array("shape", np.array([1, -1])), array("half", kernel.astype(np.float16))],
        [("c", array("", np.float64(2.5)))],
    )
    found = read(written(content, tmp_path / "a.onnx"))
    assert found.kind == "ONNX"
    assert list(found.arrays) == ["b.weight", "half", "c"]
    assert {value.dtype for value in found.arrays.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(found.arrays["b.weight"], kernel)
    np.testing.assert_array_equal(found.arrays["half"], kernel)
    assert found.arrays["c"] == 2.5


def external():
    tensor = array("w", np.zeros(4, np.float32))
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/passwd")
    return tensor


def false(dims, data_type=1):
    return onnx.TensorProto(name="w", dims=dims, data_type=data_type, raw_data=bytes(16))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (model([external()]), "w is kept in another file, which is not opened"),
        (model([], [("w", external())]), "w is kept in another file"),
        (model([false([10**9])]), "w is not of the size that it claims"),
        (model([false([10**12])]), "it unpacks to 4000000000000 bytes"),
        (model([false([-4, -1])]), "has the shape"),
        (model([false([4], 8)]), "w is string"),
        (model([false([4], 99)]), "cannot be read as ONNX"),
        (model([false([16], 17)]), "w is float8e4m3fn"),
        (model([array("w", np.array([np.nan], np.float32))]), "w holds numbers"),
        (model([array("w", np.zeros(1, np.float32))] * 2), "two tensors w"),
        (model(sparse_initializer=[onnx.SparseTensorProto()]), "sparse"),
        (model([array("i", np.array([1]))]), "there is no tensor"),
    ],
)
def test_hostile_onnx(tmp_path, content, message):
    assert message in refused(written(content, tmp_path / "a.onnx"))


def test_an_onnx_file_that_is_not_whole(tmp_path):
    path = written(model([array("w", np.zeros(100, np.float32))]), tmp_path / "a.onnx")
    path.write_bytes(path.read_bytes()[:-50])
    assert "cannot be read as ONNX" in refused(path)


@pytest.mark.parametrize(
    ("name", "count", "first"),
    [
        ("mobilenet_v2-torchvision/mobilenet_v2-b0353104.pth", 314, "features.0.0.weight"),
        ("resnet-cifar10/resnet20-12fca82f.th", 97, "conv1.weight"),
        ("yunet/yunet_n.pth", 208, None),
        ("yolox-nano-onnx/yolox_nano.onnx", 228, "head.cls_preds.0.weight"),
    ],
)
def test_published_files(shared, name, count, first):
    found = read(shared / "weights" / name)
    assert len(found.arrays) == count
    assert first is None or next(iter(found.arrays)) == first
