"""YOLOX-nano with its published weights against its own ONNX file in onnxruntime, on real images."""

import importlib
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity.record import record

from ylosia_jax import config
from ylosia_jax.convert.files import read
from ylosia_jax.convert.layout import to_variables
from ylosia_jax.convert.yolox import YOLOX
from ylosia_jax.data.pipeline import Letterbox, Style
from ylosia_jax.ops.points import anchor_points, flatten_levels
from ylosia_jax.tasks.yolox import decode_boxes
from ylosia_jax.types import UserError

onnx = pytest.importorskip("onnx", reason="needs the packages of requirements-parity.txt: make parity")
CONFIG = Path(__file__).parents[2] / "configs" / "yolox_nano_coco.py"
SYSTEM = "yolox (nano, published weights)"
PARTS = ("boxes", "objectness", "classes")
SIDE = 416
IMAGES = 4


@pytest.fixture
def file(shared: Path) -> Path:
    return shared / "weights" / "yolox-nano-onnx" / "yolox_nano.onnx"


@pytest.fixture
def pictures(shared: Path) -> np.ndarray:
    """[N, 416, 416, 3] uint8, RGB."""
    paths = sorted((shared / "data" / "coco-instances" / "images").glob("*.jpg"))[:IMAGES]
    pages: list[np.ndarray] = []
    for path in paths:
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        box = Letterbox.fit((image.shape[0], image.shape[1]), (SIDE, SIDE), Style("bilinear"))
        pages.append(box.apply(image, (SIDE, SIDE)))
    return np.stack(pages)


def variables_of(file: Path) -> tuple[Any, Any]:
    """The network of the config, and its variables as the file has them."""
    network = config.load(CONFIG).network
    image = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    form = jax.eval_shape(lambda image: network.init(jax.random.key(0), image, train=False), image)
    return network, to_variables(read(file).arrays, YOLOX, form)


def answers_of(network: Any, variables: Any, pictures: np.ndarray) -> np.ndarray:
    """[N, A, 5 + K] as the file answers: boxes as they are encoded, objectness and classes through a sigmoid."""

    @jax.jit
    def forward(variables: Any, image: Any) -> Any:
        found = network.apply(variables, image, train=False)["box"]
        scores = [jax.nn.sigmoid(flatten_levels(maps)) for maps in (found.quality, found.logits)]
        return jnp.concatenate([flatten_levels(found.deltas), *scores], axis=-1)

    with jax.default_matmul_precision("highest"):
        return np.concatenate([forward(variables, picture[None]) for picture in pictures])


def blob_of(picture: np.ndarray, dtype: Any) -> np.ndarray:
    """What the file wants: blue first, [0, 255], channels first."""
    return picture[..., ::-1].transpose(2, 0, 1)[None].astype(dtype)


@pytest.mark.slow
def test_forward(file: Path, pictures: np.ndarray) -> None:
    """In float64: what is left are no roundings."""
    reference = importlib.import_module("onnx.reference")
    model = onnx.load(str(file))
    for tensor in model.graph.initializer:
        if tensor.name.startswith(("onnx::Conv_", "head.")):
            values = onnx.numpy_helper.to_array(tensor).astype(np.float64)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    wanted = reference.ReferenceEvaluator(model).run(None, {"images": blob_of(pictures[0], np.float64)})[0]
    network, variables = variables_of(file)
    with jax.enable_x64(True):
        found = answers_of(network, jax.tree.map(np.float64, variables), pictures[:1] / 255)
    assert wanted.dtype == np.float64
    for name, x, y in zip(PARTS, np.split(found, [4, 5], axis=2), np.split(wanted, [4, 5], axis=2), strict=True):
        assert y.std() > 1e-3  # they are not all alike, nor nothing
        record(SYSTEM, f"forward in float64, {name}", float(np.abs(x - y).max()), 1e-4)


def test_scores_and_boxes(file: Path, pictures: np.ndarray) -> None:
    """In float32, as it is used. Where nothing is found the runtime's own boxes are up to 2e-4 off those of float64."""
    runtime = pytest.importorskip("onnxruntime", reason="needs the packages of requirements-parity.txt: make parity")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    wanted = np.concatenate([session.run(None, {"images": blob_of(x, np.float32)})[0] for x in pictures])
    found = answers_of(*variables_of(file), pictures.astype(np.float32) / 255)
    record(SYSTEM, "objectness and classes", float(np.abs(found - wanted)[..., 4:].max()), 1e-4)

    place, strides = anchor_points({f"p{i}": (SIDE // 2**i, SIDE // 2**i) for i in (3, 4, 5)})
    ours, theirs = (np.asarray(decode_boxes(jnp.asarray(x[..., :4]), place, strides)) for x in (found, wanted))
    seen = (wanted[..., 4:5] * wanted[..., 5:]).max(axis=-1) > 0.01
    assert seen.sum() > 100
    record(SYSTEM, "boxes (px)", float(np.abs(ours - theirs)[seen].max()), 0.01)


def test_every_tensor_has_its_place(file: Path) -> None:
    tensors = read(file).arrays
    _, variables = variables_of(file)
    convolutions = [name for name in tensors if name.startswith("onnx::Conv_") and tensors[name].ndim == 4]
    assert len(convolutions) == 104
    sizes = {name: tensors[name].size for name in tensors if name.startswith(("onnx::Conv_", "head."))}
    # Every bias that a norm was folded into has been a scale and a bias.
    biases = sum(sizes[name] for name in sizes if name.startswith("onnx::Conv_") and tensors[name].ndim == 1)
    counted = sum(x.size for x in jax.tree.leaves(variables["params"]))
    record(SYSTEM, "parameters", abs(counted - sum(sizes.values()) - biases), 0)
    stem = variables["params"]["backbone"]["stem"]
    np.testing.assert_array_equal(stem["conv"]["kernel"], tensors["onnx::Conv_1178"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(stem["norm"]["bias"], tensors["onnx::Conv_1179"])


def test_a_file_of_another_size_is_refused(file: Path) -> None:
    from ylosia_jax.systems.yolox import yolox

    network, _ = yolox("m", 80)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    form = jax.eval_shape(lambda image: network.init(jax.random.key(0), image, train=False), image)
    with pytest.raises(UserError, match="208 tensors of convolutions with folded norms"):
        to_variables(read(file).arrays, YOLOX, form)
