"""The command line: thin wrappers round functions that Python can call too."""

import contextlib
import dataclasses
import io
import json
import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, subcommand

from ylosia_jax import __version__
from ylosia_jax.types import Stopped, UserError

# Rooms are imported inside the commands: `--help` and a misspelt option shall not wait for JAX to load.


@dataclasses.dataclass(frozen=True)
class Train:
    """Train a config; started again on the same folder, it resumes. Any field: --field.path VALUE."""

    config: Positional[str]
    """A Python file with get_config(), or its name in configs/."""
    workdir: str
    """The run's folder."""
    distributed: bool = False
    """Join the other hosts through jax.distributed: found by itself on TPU pods and SLURM, else by
    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID."""

    def run(self, rest: Sequence[str]) -> int:
        """Trains, then draws some predictions and writes the report."""
        import jax

        from ylosia_jax import config, runs
        from ylosia_jax.data.datasets import open_dataset
        from ylosia_jax.predict import Samples, meaning_of
        from ylosia_jax.report import write_report

        tree = config.override(config.load(self.config), [*rest, "--workdir", self.workdir])
        if self.distributed:
            _join_hosts()
        samples = Samples(len(open_dataset(tree.data.valid)))
        metrics = runs.train(tree, watch=samples)
        samples.draw(Path(self.workdir) / "predictions", meaning_of(tree))
        if jax.process_index() == 0:
            _print_scores(metrics)
            print(f"report: {write_report(Path(self.workdir))}")
        return 0


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Score a run's checkpoint on a split."""

    workdir: Positional[str]
    """The run's folder."""
    checkpoint: str = "best"
    """best, last, or a step."""
    dataset: str | None = None
    """An imported set's name or folder, or scenes; default the run's own."""
    split: str | None = None
    """Of that set; default the run's validation split."""
    out: str | None = None
    """Write the scores to this JSON file too."""

    def run(self) -> int:
        """Prints the scores."""
        from ylosia_jax import runs
        from ylosia_jax.files import write_atomically

        _check_folder_of(self.out)
        metrics = runs.evaluate_run(Path(self.workdir), checkpoint=self.checkpoint, name=self.dataset, split=self.split)
        _print_scores(metrics)
        if self.out:
            write_atomically(Path(self.out), json.dumps(metrics, indent=2) + "\n")
        return 0


@dataclasses.dataclass(frozen=True)
class Predict:
    """Predict images: a drawn picture each, and predictions.json, a COCO results list of boxes, masks and poses.

    What images show as a whole stands in categories.json, the best five of each. Semantic maps go to semantic/ as PNGs,
    their classes to semantic.json; panoptic maps to panoptic/ and panoptic.json, in COCO's form.
    """

    workdir: Positional[str]
    """The run's folder."""
    source: Positional[tuple[str, ...]]
    """Images, folders, globs, or - for one image on standard input."""
    out: str
    """Folder for the results."""
    checkpoint: str = "best"
    """best, last, or a step."""
    score: float = 0.3
    """Detections below this score are not drawn."""
    skip_bad: bool = False
    """Go on past files that cannot be read; they are listed at the end, exit status 1."""

    def run(self) -> int:
        """Predicts every source."""
        from ylosia_jax import predict

        if not self.source:
            raise UserError("nothing to predict: name an image, a folder, a glob, or -")
        inputs = predict.find_images(self.source)
        model = predict.load(self.workdir, self.checkpoint)
        bad = predict.predict_files(model, inputs, Path(self.out), score=self.score, skip_bad=self.skip_bad)
        print(f"{len(inputs) - len(bad)} images predicted into {self.out}")
        return _report_bad(bad)


@dataclasses.dataclass(frozen=True)
class Import:
    """Import a data set into TFDS/ArrayRecord."""

    format: Positional[Literal["voc", "coco", "panoptic", "masks", "folders", "idx"]]
    """voc: a folder with Annotations, JPEGImages, ImageSets/Main. coco: an instances or keypoints JSON file, one split.
    panoptic: COCO's panoptic JSON file, one split. masks: a folder with images/ and masks/, a PNG an image; or a folder
    an image with both, a PNG an object. folders: images in a folder a class, <split>/<class>/ or <class>/. idx: a
    folder with MNIST's files, <split>-images-idx3-ubyte and <split>-labels-idx1-ubyte, plain or .gz."""
    source: Positional[str]
    """The folder or file."""
    name: str
    """What configs will call the set."""
    out: str | None = None
    """Data root; default $YLOSIA_DATA_DIR, else data/."""
    split: str | None = None
    """The split that a COCO file is; repeat the command to add splits."""
    images: str | None = None
    """Folder of a COCO file's images; default the file's own."""
    classes: tuple[str, ...] | None = None
    """VOC class names, or those of folders, in label order, default all that occur, sorted; of masks the names of their
    values, of IDX files those of their labels."""
    one_based: bool = False
    """VOC coordinates count from 1 (the original VOC does; most sets in its format do not)."""
    instances: bool = False
    """The maps in a folder of masks number single objects, and are no semantic classes."""
    void: int | None = None
    """Value of the pixels of semantic maps that are of no class, 255 in many sets."""
    skip_bad: bool = False
    """Import the rest when something is wrong; what was left out is listed, exit status 1."""

    def run(self) -> int:
        """Reads, checks and stores."""
        from ylosia_jax.data import store

        if self.format in ("coco", "panoptic") and self.split is None:
            raise UserError("a COCO file is one split of a set: say which with --split, for example --split train")
        found = _read_data(
            self.format,
            self.source,
            split=self.split,
            images=self.images,
            classes=self.classes,
            one_based=self.one_based or None,
            instances=self.instances or None,
            void=self.void,
            skip_bad=self.skip_bad,
        )
        report = store.write(found, name=self.name, root=self.out)
        print(report)
        return 1 if found.bad else 0


@dataclasses.dataclass(frozen=True)
class Check:
    """Look for what is wrong with a data set; nothing is written. Exit 0 clean, 1 errors found, 2 could not look."""

    format: Positional[Literal["voc", "coco", "panoptic", "masks", "folders", "idx"]]
    """As in ylosia data import."""
    source: Positional[str]
    """The folder or file."""
    images: str | None = None
    """Folder of a COCO file's images; default the file's own."""
    classes: tuple[str, ...] | None = None
    """VOC class names, or those of folders, that may occur, default any; of masks the names of their values, of IDX
    files those of their labels."""
    instances: bool = False
    """The maps in a folder of masks number single objects, and are no semantic classes."""
    void: int | None = None
    """Value of the pixels of semantic maps that are of no class, 255 in many sets."""
    json: str | None = None
    """Write the findings to this JSON file too."""

    def run(self) -> int:
        """Reads and checks."""
        from ylosia_jax.files import write_atomically

        _check_folder_of(self.json)
        found = _read_data(
            self.format,
            self.source,
            split="check" if self.format in ("coco", "panoptic") else None,
            images=self.images,
            classes=self.classes,
            one_based=None,
            instances=self.instances or None,
            void=self.void,
            skip_bad=True,
        )
        findings = {"bad": found.bad, "dropped": found.dropped, "clipped": found.clipped, "notes": found.notes}
        for kind, lines in findings.items():
            for line in lines:
                print(f"{kind}: {line}")
        images = sum(map(len, found.splits.values()))
        print(f"{images} good images, {len(found.classes)} classes; {len(found.bad)} errors")
        if self.json:
            write_atomically(Path(self.json), json.dumps(findings, indent=2) + "\n")
        return 1 if found.bad else 0


@dataclasses.dataclass(frozen=True)
class Data:
    """Bring data in: data import, data check."""

    command: Annotated[Import, subcommand("import")] | Annotated[Check, subcommand("check")]


@dataclasses.dataclass(frozen=True)
class ImportWeights:
    """Make a run of weights that another framework trained, strictly: nothing missing, nothing left over.

    Evaluate it, predict with it, or train on from it with the same config. Any field: --field.path VALUE.
    """

    file: Positional[str]
    """.safetensors, .npz, .onnx, or a state dict of PyTorch (.pth, .pt, .th)."""
    config: str
    """A config file, its name in configs/, or a run's folder."""
    workdir: str
    """The new run's folder; not there yet, or empty."""
    num_classes: int | None = None
    """The config's number of classes, for a file with another: the layers that depend on it start anew."""
    only: str | None = None
    """Import only what is under this part of the network, for example backbone, or 'backbone|neck'; a regex."""
    layout: str | None = None
    """What the file's tensors are called; default the layout that fits."""

    def run(self, rest: Sequence[str]) -> int:
        """Imports, and says what was taken."""
        from ylosia_jax import config
        from ylosia_jax.weights import import_weights

        experiment = config.override(config.load(self.config), [*rest, "--workdir", self.workdir])
        found = import_weights(
            Path(self.file),
            experiment,
            Path(self.workdir),
            num_classes=self.num_classes,
            only=self.only,
            layout=self.layout,
        )
        for note in found.notes:
            print(f"note: {note}")
        print(f"{self.workdir}: {found.taken} arrays from {self.file}, layout {found.layout}")
        if found.fresh:
            parts = sorted({path.split("/")[1] for path in found.fresh})
            print(f"{len(found.fresh)} arrays start anew, in {', '.join(parts)}")
        return 0


@dataclasses.dataclass(frozen=True)
class ShowWeights:
    """Every tensor of a weights file: name, type, shape."""

    file: Positional[str]
    """As in ylosia weights import."""

    def run(self) -> int:
        """Prints the tensors."""
        from ylosia_jax.convert.files import read

        found = read(Path(self.file))
        for note in found.notes:
            print(f"note: {note}")
        for name, value in found.arrays.items():
            print(f"{name}: {value.dtype} {list(value.shape)}")
        return 0


@dataclasses.dataclass(frozen=True)
class Weights:
    """Bring weights in: weights import, weights show."""

    command: Annotated[ImportWeights, subcommand("import")] | Annotated[ShowWeights, subcommand("show")]


@dataclasses.dataclass(frozen=True)
class Show:
    """Every field of a config or run as sorted `path: value`."""

    config: Positional[str]
    """A config file, its name in configs/, or a run's folder."""

    def run(self) -> int:
        """Prints the fields."""
        from ylosia_jax import config

        print(config.to_text(config.load(self.config)), end="")
        return 0


@dataclasses.dataclass(frozen=True)
class Diff:
    """The fields in which two configs or runs differ."""

    left: Positional[str]
    """A config file, its name in configs/, or a run's folder."""
    right: Positional[str]
    """Another."""

    def run(self) -> int:
        """Prints one `path: left -> right` a difference."""
        from ylosia_jax import config

        for path, left, right in config.diff(config.load(self.left), config.load(self.right)):
            print(f"{path}: {config.show(left)} -> {config.show(right)}")
        return 0


@dataclasses.dataclass(frozen=True)
class Plan:
    """Compile the train step for a TPU slice, on a machine without one. Any field: --field.path VALUE."""

    config: Positional[str]
    """A config file, its name in configs/, or a run's folder."""
    topology: str
    """A slice by its name: v5e:16x16, v4:2x2x2, v6e:4x4, …"""
    json: str | None = None
    """Write the numbers to this JSON file too."""

    def run(self, rest: Sequence[str]) -> int:
        """Prints memory a chip, FLOPs, bytes moved and collectives."""
        from ylosia_jax import config
        from ylosia_jax.files import write_atomically
        from ylosia_jax.plan import make_plan, to_text

        _check_folder_of(self.json)
        found = make_plan(config.override(config.load(self.config), rest), self.topology)
        print(to_text(found))
        if self.json:
            write_atomically(Path(self.json), json.dumps(found, indent=2) + "\n")
        return 0


Command = (
    Annotated[Train, subcommand("train")]
    | Annotated[Evaluate, subcommand("evaluate")]
    | Annotated[Predict, subcommand("predict")]
    | Annotated[Data, subcommand("data")]
    | Annotated[Weights, subcommand("weights")]
    | Annotated[Show, subcommand("show")]
    | Annotated[Diff, subcommand("diff")]
    | Annotated[Plan, subcommand("plan")]
)


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command line; the console script `ylosia`.

    Returns:
      0 when done, 1 when some inputs were bad and skipped, 2 when the user has something to mend; 130 and 143 after
      an interrupt and SIGTERM.
    """
    args = list(sys.argv[1:] if args is None else args)
    # Orbax tells its developers, not our users, what it does.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    try:
        command, rest = _parse(args)
        if isinstance(command, Data | Weights):
            command = command.command
        if isinstance(command, Train | Plan | ImportWeights):
            return command.run(rest)
        _refuse_unknown(command, rest)
        return command.run()
    except UserError as error:
        print(f"ylosia: {error}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        print(f"ylosia: {stopped}", file=sys.stderr)
        return 143
    except KeyboardInterrupt:
        print("ylosia: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader has gone (`| head`); Python would complain about the flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        # A full disk, a folder that may not be written: the message names the file.
        print(f"ylosia: {error}", file=sys.stderr)
        return 2


def _parse(args: list[str]) -> tuple[Any, list[str]]:
    """The command and the words it does not know, which may be config fields."""
    from ylosia_jax.config import nearest

    commands = [kind.__metadata__[0].name for kind in Command.__args__]
    if not args:
        args = ["--help"]
    if args == ["--version"]:
        print(f"ylosia {__version__}")
        raise SystemExit(0)
    if not args[0].startswith("-") and args[0] not in commands:
        raise UserError(f"no command {args[0]!r}; did you mean {nearest(args[0], commands)}? See ylosia --help")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                Command,
                args=args,
                prog="ylosia",
                return_unknown_args=True,
                config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        # tyro draws a panel; an error here is one line.
        text = re.sub(r"-{5,}|[─│╭╮╰╯]+", " ", said.getvalue()).split("For full helptext")[0]
        words = " ".join(text.split())
        # Of a value that cannot be parsed it tells what each type of the union said, too, and the help.
        words = re.sub(r" Got errors:.*|^Value error ", "", words)
        raise UserError(f"{words.rstrip('. ')}; see ylosia {' '.join(_leading_words(args))} --help") from None


def _leading_words(args: Sequence[str]) -> list[str]:
    inner = {"data": ("import", "check"), "weights": ("import", "show")}.get(args[0], ())
    return list(args[: 2 if args[1:2] and args[1] in inner else 1])


def _refuse_unknown(command: Any, rest: Sequence[str]) -> None:
    """Refuses words that the command does not know, naming its nearest option."""
    from ylosia_jax.config import nearest

    options = [f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(command)]
    if rest:
        raise UserError(f"unknown argument {rest[0]!r}; did you mean {nearest(rest[0].split('=')[0], options)}?")


def _read_data(form: str, source: str, *, skip_bad: bool, **options: Any) -> Any:
    """What a format's reader finds; options that are None were not given."""
    from ylosia_jax.data import coco, folders, idx, masks, panoptic, voc

    readers: dict[str, tuple[Any, tuple[str, ...]]] = {
        "voc": (voc.read, ("classes", "one_based")),
        "coco": (coco.read, ("split", "images")),
        "panoptic": (panoptic.read, ("split", "images")),
        "masks": (masks.read, ("classes", "instances", "void")),
        "folders": (folders.read, ("classes",)),
        "idx": (idx.read, ("classes",)),
    }
    read, known = readers[form]
    _refuse_options(form, **{name: value for name, value in options.items() if name not in known})
    return read(source, skip_bad=skip_bad, **{n: v for n, v in options.items() if n in known and v is not None})


def _refuse_options(form: str, **options: Any) -> None:
    given = next((name for name, value in options.items() if value is not None), None)
    if given:
        raise UserError(f"--{given.replace('_', '-')} says nothing for the format {form}: leave it out")


def _join_hosts() -> None:
    import jax

    try:
        # JAX reads the address from the environment by itself, the numbers it does not in every version.
        count, index = os.environ.get("JAX_NUM_PROCESSES"), os.environ.get("JAX_PROCESS_ID")
        jax.distributed.initialize(
            num_processes=int(count) if count else None, process_id=int(index) if index else None
        )
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"--distributed: cannot join the other hosts ({reason}): on anything but a TPU pod or SLURM, set "
            "JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        ) from error


def _print_scores(metrics: dict[str, Any]) -> None:
    def text(value: float | None) -> str:
        return "   -" if value is None else f"{value:.3f}"

    for task, entry in metrics.items():
        groups = {"": entry} | {f" {name}": value for name, value in entry.items() if isinstance(value, dict)}
        for group, values in groups.items():
            if group != " per_class":
                numbers = (f"{name} {text(value)}" for name, value in values.items() if not isinstance(value, dict))
                print(f"{task}{group}: " + "  ".join(numbers))
        measure = {"semantic": "IoU", "panoptic": "PQ", "classification": "top1"}.get(task, "AP")
        for name, value in entry.get("per_class", {}).items():
            print(f"  {name}: {measure} {text(value)}")


def _check_folder_of(file: str | None) -> None:
    """Refuses a file that cannot be written, before the work whose result it is for."""
    if file and (Path(file).is_dir() or not Path(file).parent.is_dir()):
        raise UserError(f"{file} cannot be written: name a file in a folder that exists")


def _report_bad(bad: Sequence[str]) -> int:
    if bad:
        print(f"{len(bad)} skipped:", *bad, sep="\n  ", file=sys.stderr)
    return 1 if bad else 0
