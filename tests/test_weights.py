"""Foreign weights from the command line: imported, evaluated, predicted with, trained on."""

import dataclasses
import json
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from ylosia_jax import config
from ylosia_jax.cli import main
from ylosia_jax.compiled import compile_step
from ylosia_jax.convert.coco import NUMBERS, OUTPUTS
from ylosia_jax.convert.layout import to_tensors
from ylosia_jax.convert.onestage import RETINANET
from ylosia_jax.convert.ylosia import YLOSIA
from ylosia_jax.data.scenes import CLASSES, Scenes
from ylosia_jax.runs import restore_average
from ylosia_jax.systems.retinanet import retinanet
from ylosia_jax.train.log import read_rows
from ylosia_jax.train.sharding import make_mesh
from ylosia_jax.types import UserError
from ylosia_jax.weights import class_leaves, import_weights

TINY = Path(__file__).parent / "tiny.py"
LAYOUTS = "there are ylosia, yolox, resnet"


@pytest.fixture(scope="module")
def tiny():
    return config.load(TINY)


@pytest.fixture(scope="module")
def variables(tiny):
    """Of the tests' own network, no leaf like another."""
    form = jax.eval_shape(lambda key: tiny.network.init(key, jnp.zeros((1, 64, 64, 3)), train=False), jax.random.key(0))
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: random.uniform(0.1, 0.3, leaf.shape).astype(np.float32), form)


@pytest.fixture(scope="module")
def tensors(variables):
    return to_tensors(variables, YLOSIA)


@pytest.fixture
def file(tensors, tmp_path):
    """A file as it is published: with counters, and the numbers of a distribution's bins."""
    path = tmp_path / "tiny.safetensors"
    extra = {"model.0.bn.num_batches_tracked": np.array(9), "model.22.dfl.conv.weight": np.arange(8.0)}
    save_file({**tensors, **extra}, path)
    return path


def weights_of(workdir: Path):
    return jax.device_get(restore_average(config.load(workdir), workdir, make_mesh()))


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def run_import(file, workdir, *args):
    return main(["weights", "import", str(file), "--config", str(TINY), "--workdir", str(workdir), *args])


def test_the_run_has_the_weights(file, variables, tmp_path, capsys):
    workdir = tmp_path / "run"
    workdir.mkdir()  # an empty folder is taken
    assert run_import(file, workdir, "--optim.lr", "0.5") == 0
    assert "layout ylosia" in capsys.readouterr().out
    equal(weights_of(workdir), variables)
    assert config.load(workdir).optim.lr == 0.5
    assert config.load(workdir).workdir == str(workdir)
    assert {path.name for path in workdir.iterdir()} == {"checkpoints", "config.json", "config.txt", "versions.json"}
    assert {path.name for path in tmp_path.iterdir()} == {"run", "tiny.safetensors"}
    assert run_import(file, workdir) == 2
    assert "has a checkpoint: weights are imported into a new run" in capsys.readouterr().err


def test_show_lists_the_tensors(file, capsys):
    assert main(["weights", "show", str(file)]) == 0
    assert "model.0.conv.weight: float32 [8, 3, 3, 3]" in capsys.readouterr().out.splitlines()


def without(name):
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


def adding(**more):
    return lambda tensors: {**tensors, **{name.replace("__", "."): value for name, value in more.items()}}


SAME = adding()


@pytest.mark.parametrize(
    ("change", "args", "message"),
    [
        (without("model.0.bn.bias"), [], "1 missing: model.0.bn.bias, for params/backbone/stem/norm/bias [8]"),
        (adding(model__30=np.zeros(1)), [], "1 left over: model.30"),
        (adding(model__0__bn__bias=np.zeros(9)), [], "1 misshapen: model.0.bn.bias is [9], [8] is wanted"),
        (adding(model__0__bn__bias=np.zeros(8, np.int32)), [], "1 of another type: model.0.bn.bias is of int32"),
        (adding(model__0__bn__bias=np.full(8, np.nan)), [], "model.0.bn.bias holds numbers that are not finite"),
        (lambda tensors: {"a.b": np.zeros(1)}, [], "and the file has a.b"),
        (SAME, ["--layout", "resnets"], LAYOUTS),
        (SAME, ["--layout", "resnet"], "which the layout resnet knows no name of"),
        (SAME, ["--num-classes", "80"], "--num-classes is 80, but data.classes of the config has 6 names"),
        (SAME, ["--only", "bakbone"], "did you mean backbone? There are backbone, heads_box, neck"),
        (SAME, ["--only", "(backbone"], "it is no regular expression"),
        (SAME, ["--only", "a{99999999999999999999}"], "it is no regular expression"),
        (SAME, ["--only", "heads_box/class_p._out", "--num-classes", "6"], "nothing is left to import"),
        (SAME, ["--optim.lrr", "1"], "did you mean --optim.lr?"),
        (SAME, ["--numclasses", "6"], "--numclasses is no field of this config"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_leaves_nothing(change, args, message, tensors, tmp_path, capsys):
    file = tmp_path / "a.safetensors"
    save_file(change(tensors), file)
    assert run_import(file, tmp_path / "run", *args) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_folder_in_use_and_a_missing_file_are_refused(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    for file, workdir, message in [
        (tmp_path / "gone.pth", tmp_path / "run", "there is no such file"),
        (tmp_path / "gone.pth", tmp_path, "is not empty"),
        (tmp_path / "gone.pth", tmp_path / "notes.txt", "is not a folder"),
    ]:
        assert run_import(file, workdir) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_that_cannot_be_replaced_is_refused(tmp_path, monkeypatch, capsys):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for workdir, message in [(".", "is in use"), (tmp_path / "circle", "leads nowhere")]:
        assert run_import(tmp_path / "gone.pth", workdir) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_a_failure_while_writing_leaves_nothing(file, tiny, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr("ylosia_jax.weights.Checkpoints.save", full)
    with pytest.raises(OSError, match="no space"):
        import_weights(file, tiny, tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_the_leaves_that_depend_on_the_number_of_classes(tiny):
    outs = {f"params/heads_box/class_p{i}_out/{leaf}" for i in (3, 4, 5) for leaf in ("kernel", "bias")}
    found = class_leaves(tiny)
    assert outs < found
    # The branch for classes grows with their number where it is larger than the finest level's channels.
    assert "params/heads_box/class_p3_1/conv/kernel" in found
    assert "batch_stats/heads_box/class_p5_0/norm/mean" in found
    assert not any("box_p" in path or "/neck/" in path or "/backbone/" in path for path in found)


@pytest.mark.slow
def test_another_number_of_classes_starts_its_layers_anew(tiny, tensors, variables, tmp_path, capsys):
    """A file of a network for 50 classes, imported for the six of the scenes."""
    form = jax.eval_shape(
        lambda key: config.override(tiny.network, ["--heads.box.num_classes", "50"]).init(
            key, jnp.zeros((1, 64, 64, 3)), train=False
        ),
        jax.random.key(0),
    )
    of_50 = to_tensors(jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), form), YLOSIA)
    save_file({**of_50, **{k: v for k, v in tensors.items() if v.shape == of_50[k].shape}}, tmp_path / "a.safetensors")
    assert run_import(tmp_path / "a.safetensors", tmp_path / "run") == 2
    assert "--num-classes 6 starts the layers that depend on them anew" in capsys.readouterr().err
    assert run_import(tmp_path / "a.safetensors", tmp_path / "run", "--num-classes", str(len(CLASSES))) == 0
    assert "start anew, in heads_box" in capsys.readouterr().out
    found, anew = weights_of(tmp_path / "run"), class_leaves(tiny)
    assert found["params"]["heads_box"]["class_p3_out"]["kernel"].shape[-1] == len(CLASSES)
    fresh = compile_step(tiny, make_mesh(), steps=1).init().variables

    def check(path, found, imported, fresh):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name in anew:
            np.testing.assert_array_equal(found, fresh, err_msg=name)
        else:
            np.testing.assert_array_equal(found, imported, err_msg=name)

    jax.tree_util.tree_map_with_path(check, found, variables, jax.device_get(fresh))


@pytest.mark.slow
def test_a_backbone_alone(tensors, variables, tmp_path, capsys):
    file = tmp_path / "a.safetensors"
    head = {"model.10.fc.weight": np.zeros((9, 9), np.float32)}  # a classifier's, for which there is no place
    body = {name: value for name, value in tensors.items() if int(name.split(".")[1]) < 10}
    save_file({**body, **head}, file)
    assert run_import(file, tmp_path / "run", "--only", "backbone") == 0
    assert "start anew, in heads_box, neck" in capsys.readouterr().out
    found = weights_of(tmp_path / "run")
    for kind in ("params", "batch_stats"):
        equal(found[kind]["backbone"], variables[kind]["backbone"])
    assert not np.array_equal(
        found["params"]["neck"]["down4"]["conv"]["kernel"], variables["params"]["neck"]["down4"]["conv"]["kernel"]
    )
    # A deeper network of the same kind is no fitting one.
    save_file({**body, "model.2.m.5.cv1.conv.weight": np.zeros(1, np.float32)}, file)
    assert run_import(file, tmp_path / "other", "--only", "backbone") == 2
    assert "1 left over: model.2.m.5.cv1.conv.weight" in capsys.readouterr().err


@pytest.mark.slow
def test_answers_for_coco_s_numbers_are_cut_to_its_categories(tmp_path):
    experiment = config.load("configs/retinanet_resnet50_fpn_coco.py")
    experiment = dataclasses.replace(experiment, network=retinanet(80, depth=18, norm="frozen")[0])
    published, _ = retinanet(OUTPUTS, depth=18, norm="frozen")
    image = jnp.zeros((1, 64, 64, 3))
    form = jax.eval_shape(lambda key: published.init(key, image, train=False), jax.random.key(0))
    filled = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), form)
    bias = np.arange(9 * OUTPUTS, dtype=np.float32)
    filled["params"]["heads_box"]["class_out"]["bias"] = bias
    save_file(to_tensors(filled, RETINANET), tmp_path / "a.safetensors")
    taken = import_weights(tmp_path / "a.safetensors", experiment, tmp_path / "run")
    assert taken.notes == ("answers for 91 numbers were cut to those for COCO's 80 categories",)
    assert not taken.fresh
    kept = jax.device_get(restore_average(experiment, tmp_path / "run", make_mesh()))
    found = kept["params"]["heads_box"]["class_out"]["bias"]
    np.testing.assert_array_equal(found, bias.reshape(9, OUTPUTS)[:, NUMBERS].reshape(-1))
    # Other classes than COCO's are other classes, however many there are.
    data = dataclasses.replace(experiment.data, classes=tuple(map(str, range(80))))
    with pytest.raises(UserError, match=r"cls_logits.weight is \[819, .*--num-classes 80 starts the layers"):
        import_weights(tmp_path / "a.safetensors", dataclasses.replace(experiment, data=data), tmp_path / "other")


@pytest.mark.slow
def test_it_is_evaluated_predicts_and_trains_on(file, variables, tmp_path, capsys):
    workdir, out = tmp_path / "run", tmp_path / "scores.json"
    steps = ["--train.steps", "1", "--data.batch_size", "8"]
    assert run_import(file, workdir, *steps) == 0
    assert main(["evaluate", str(workdir), "--out", str(out)]) == 0
    assert 0 <= json.loads(out.read_text())["box"]["AP"] <= 1
    cv2.imwrite(str(tmp_path / "a.png"), Scenes("test", size=1, image_size=(64, 64))[0].image)
    assert main(["predict", str(workdir), str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "predictions.json").is_file()
    capsys.readouterr()
    assert main(["train", str(TINY), "--workdir", str(workdir), *steps]) == 0
    assert f"resuming {workdir} at step 0 of 1" in "".join(capsys.readouterr())
    assert len(read_rows(workdir / "metrics.csv")) == 1
    # The first step of the warm-up has a learning rate of 0: what was imported is what was trained.
    found = weights_of(workdir)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found["params"], variables["params"])
    assert main(["train", str(TINY), "--workdir", str(workdir), *steps, "--optim.lr", "1"]) == 2
    assert "holds a run of another config" in capsys.readouterr().err
