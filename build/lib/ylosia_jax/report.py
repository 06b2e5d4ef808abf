"""A run's report: one HTML file that needs nothing else, neither scripts nor fonts nor the network."""

import base64
import contextlib
import csv
import itertools
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ylosia_jax.files import write_atomically
from ylosia_jax.train.log import read_rows
from ylosia_jax.types import UserError

HEADLINE = 3  # scores of a task that stand out: its first ones
PICTURES = 12
PICTURE_SIDE = 640  # pixels of the longer side
POINTS = 400  # of a curve; a longer one is averaged down to them

Points = Sequence[tuple[float, float]]  # (step, value)

_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --panel: #f6f7f9; --line: #d9dde3; --ink: #1b1f24; --faint: #5b6470;
  --s0: #0072b2; --s1: #c75000; --s2: #00835f; --s3: #b0508a; --s4: #8a6d00; --s5: #5b4bd6; --s6: #2a8fc4; --s7: #555; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171b; --panel: #1d2126; --line: #363c45; --ink: #e8ebef;
  --faint: #9aa4b1; --s0: #56b4e9; --s1: #ff9147; --s2: #35c99b; --s3: #e59ac6; --s4: #e3c64a; --s5: #a79bff;
  --s6: #8fd3ff; --s7: #bbb; } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1200px; padding: 2rem 1.25rem 4rem; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.9rem; margin: 0 } h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem }
p, figcaption, .card { color: var(--faint); margin: 0 }
.cards, .grid, .pictures { display: grid; gap: 1rem; margin-bottom: 1rem }
.cards { grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)) }
.grid { grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr)); align-items: start }
.pictures { grid-template-columns: repeat(auto-fill, minmax(min(100%, 260px), 1fr)) }
.card, figure, details { margin: 0; padding: .75rem 1rem; background: var(--panel); border: 1px solid var(--line);
  border-radius: 8px }
.card b { display: block; font-size: 1.7rem; line-height: 1.25; color: var(--ink) }
figure { max-height: 28rem; overflow: auto } figcaption { font-size: .85rem }
h3, caption { margin: 0 0 .25rem; font-size: .95rem; font-weight: 600; text-align: left }
.pictures figure { padding: .5rem } img { display: block; width: 100%; border-radius: 4px }
svg { display: block; width: 100%; height: auto } svg text { fill: var(--faint); font: 12px system-ui, sans-serif }
.rule { stroke: var(--line) } .curve { fill: none; stroke-width: 2; stroke-linejoin: round }
.key { display: inline-block; margin-right: 1rem }
.key i { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .4em }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line); font-weight: 400 }
thead { color: var(--faint) } .bar { width: 45% }
.bar i { display: block; height: .6em; border-radius: 3px; background: var(--s0) }
details { margin-bottom: 1rem } summary { cursor: pointer; font-weight: 600 }
pre { overflow-x: auto; font: 13px/1.45 ui-monospace, monospace }
"""


def write_report(workdir: Path) -> Path:
    """Writes `report.html` from what a run's folder holds; what is missing or damaged is left out.

    It shows the scores (`metrics.json`), the curves (`metrics.csv`), the evaluations so far (`evaluations.csv`: `step`,
    then scores), the first pictures in `predictions/`, `config.txt` and `versions.json`.

    Raises:
      UserError: if there is no such folder.
    """
    if not workdir.is_dir():
        raise UserError(f"{workdir} is not a run's folder: give the --workdir of a run")
    curves, versions = _curves(workdir / "metrics.csv"), _json(workdir / "versions.json")
    setting = {"Config": _text(workdir / "config.txt"), "Versions": "\n".join(f"{k}: {v}" for k, v in versions.items())}
    name = escape(workdir.resolve().name)
    body = [
        f"<header><h1>{name}</h1><p>{escape(_summary(curves, versions))}</p></header>",
        *_scores(_json(workdir / "metrics.json")),
        _section("Training", _div("grid", _training(curves))),
        _section("Evaluations", _div("grid", _evaluations(_curves(workdir / "evaluations.csv")))),
        _section("Predictions", _div("pictures", _pictures(workdir / "predictions"))),
        _section("Setting", *(_details(title, text) for title, text in setting.items())),
    ]
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{name}</title>
<style>{_STYLE}</style>
</head>
<body>
{"".join(body)}
</body>
</html>
"""
    path = workdir / "report.html"
    # A file's name may hold bytes that are no text.
    write_atomically(path, page.encode(errors="replace"))
    return path


def line_chart(title: str, curves: Mapping[str, Points]) -> str:
    """A figure of inline SVG with one or more curves over the steps; empty if there is none."""
    curves = {name: points for name, points in curves.items() if points}
    if not curves:
        return ""
    left, right, top, bottom = 56, 530, 8, 190  # of the plot, in a frame of 560 by 230
    paths = {name: _thin(points) for name, points in curves.items()}
    x_low, x_high, x_ticks = _axis([x for path in paths.values() for x, _ in path], whole=False)
    y_low, y_high, y_ticks = _axis([y for path in paths.values() for _, y in path], whole=True)

    def at(x: float, y: float) -> tuple[str, str]:
        across, up = (x - x_low) / (x_high - x_low), (y - y_low) / (y_high - y_low)
        return f"{left + across * (right - left):.1f}", f"{bottom - up * (bottom - top):.1f}"

    marks = [f'<text x="{(left + right) / 2}" y="{bottom + 36}" text-anchor="middle">step</text>']
    for tick in y_ticks:
        _, y = at(x_low, tick)
        marks.append(f'<line class="rule" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>')
        marks.append(f'<text x="{left - 8}" y="{y}" dy="4" text-anchor="end">{tick:.6g}</text>')
    for tick in x_ticks:
        x, _ = at(tick, y_low)
        marks.append(f'<line class="rule" x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 5}"/>')
        marks.append(f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{tick:.6g}</text>')
    keys = []
    for i, (name, points) in enumerate(curves.items()):
        colour, broken = f"var(--s{i % 8})", ' stroke-dasharray="6 4"' if i >= 8 else ""
        path = " ".join(",".join(at(*point)) for point in paths[name])
        marks.append(f'<polyline class="curve" style="stroke:{colour}"{broken} points="{path}"/>')
        for step, value in points if len(points) <= 50 else []:
            x, y = at(step, value)
            told = f"<title>{escape(name)} {value:.6g} at step {step:.6g}</title>"
            marks.append(f'<circle cx="{x}" cy="{y}" r="3" style="fill:{colour}">{told}</circle>')
        keys.append(f'<span class="key"><i style="background:{colour}"></i>{escape(name)} {points[-1][1]:.4g}</span>')
    told = "; ".join(f"{name} from {points[0][1]:.4g} to {points[-1][1]:.4g}" for name, points in curves.items())
    return (
        f'<figure><h3>{escape(title)}</h3><svg viewBox="0 0 560 230" role="img"><title>{escape(f"{title}: {told}")}'
        f"</title>{''.join(marks)}</svg><figcaption>{''.join(keys)}</figcaption></figure>"
    )


def _axis(values: Sequence[float], *, whole: bool) -> tuple[float, float, list[float]]:
    """Both ends of an axis and round ticks. A `whole` axis ends in ticks, and begins at 0 where that is near."""
    low, high = min(values), max(values)
    if low == high or (whole and 0 <= low <= high / 2):
        low, high = min(low, 0.0), max(high, 0.0) or float(low == 0)
    step = 10 ** math.floor(math.log10((high - low) / 5))
    step *= next(m for m in (1, 2, 5, 10) if high - low <= 5.001 * step * m)
    if whole:
        low, high = step * math.floor(low / step + 1e-6), step * math.ceil(high / step - 1e-6)
    ticks = range(math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6) + 1)
    return low, high, [step * tick for tick in ticks]


def _thin(points: Points) -> Points:
    size = math.ceil(len(points) / POINTS)
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(group[-1][0], statistics.fmean(value for _, value in group)) for group in groups]


def _curves(path: Path) -> dict[str, list[tuple[float, float]]]:
    """The columns of a table with a `step`, without what is no finite number."""
    curves: dict[str, list[tuple[float, float]]] = {}
    with contextlib.suppress(OSError, ValueError, csv.Error):
        for row in read_rows(path):
            for name, text in row.items():
                with contextlib.suppress(KeyError, TypeError, ValueError):
                    point = float(row["step"]), float(text)
                    if all(map(math.isfinite, point)):
                        curves.setdefault(name, []).append(point)
    return curves


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""


def _json(path: Path) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        content = json.loads(_text(path))
        if isinstance(content, dict):
            return content
    return {}


def _section(title: str, *parts: str) -> str:
    inner = "".join(parts)
    return f"<section><h2>{escape(title)}</h2>{inner}</section>" if inner else ""


def _div(kind: str, parts: Iterable[str]) -> str:
    inner = "".join(parts)
    return f'<div class="{kind}">{inner}</div>' if inner else ""


def _details(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary><pre>{escape(text)}</pre></details>" if text else ""


def _summary(curves: Mapping[str, Points], versions: Mapping[str, Any]) -> str:
    last = {name: points[-1][1] for name, points in curves.items()}
    facts = [f"{last[name]:.6g} {said}" for name, said in (("step", "steps"), ("epoch", "epochs")) if name in last]
    if "images_per_second" in curves:
        # The first row's time holds the compilation.
        speeds = [speed for _, speed in curves["images_per_second"]]
        facts.append(f"{statistics.median(speeds[1:] or speeds):.4g} images/s")
    if versions.get("devices"):
        facts.append(str(versions["devices"]))
    return " · ".join(facts)


def _scores(metrics: Mapping[str, Any]) -> list[str]:
    """A section a task: its headline as cards, all its scores, and those of each class."""
    sections = []
    for task, entry in metrics.items():
        if not isinstance(entry, dict):
            continue
        plain = {name: value for name, value in entry.items() if not isinstance(value, dict)}
        parts = {name: value for name, value in entry.items() if value and isinstance(value, dict)}
        headline = list(plain)[:HEADLINE]
        cards = [f'<div class="card">{escape(name)}<b>{_score(plain[name])}</b></div>' for name in headline]
        # A part of the same scores (PQ of `things`) is a column beside the whole; the others are tables of their own.
        alike = {name: values for name, values in parts.items() if values.keys() <= plain.keys()}
        tables = [_table("All scores", {"all": plain, **alike})] if plain else []
        for name, values in parts.items():
            if name not in alike:
                title = " ".join([*headline[:1], name.replace("_", " ")])  # as in "AP per class"
                tables.append(_table(title, {name: values}))
        sections.append(_section(f"{task} scores".capitalize(), _div("cards", cards), _div("grid", tables)))
    return sections


def _table(title: str, columns: Mapping[str, Mapping[str, Any]]) -> str:
    """Scores by row, a column each; a lone column goes without its name and is drawn as bars, too."""
    lone = len(columns) == 1
    lines = []
    for name in dict.fromkeys(name for values in columns.values() for name in values):
        scores = [_score(values.get(name)) for values in columns.values()]
        cells = "".join(f"<td>{score}</td>" for score in scores)
        if lone and scores[0] != "–":
            cells += f'<td class="bar"><i style="width:{min(max(float(scores[0]), 0), 1):.1%}"></i></td>'
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    head = "" if lone else f"<thead><tr><td></td>{names}</tr></thead>"
    return (
        f'<figure tabindex="0"><table><caption>{escape(title)}</caption>{head}<tbody>{"".join(lines)}</tbody></table>'
        "</figure>"
    )


def _score(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) and math.isfinite(value) else "–"


def _training(curves: Mapping[str, Points]) -> list[str]:
    """Charts of the losses, the whole and the tasks' first and then each task's parts, and of how training went."""
    tasks = [name for name in curves if name.startswith("loss/") and name.count("/") == 1]
    # A lone task's loss is the whole.
    whole = [name for name in ("loss", *(tasks if len(tasks) > 1 else ())) if name in curves]
    charts = [line_chart("Loss", {name: curves[name] for name in whole})]
    for task in tasks:
        parts = {name.removeprefix(f"{task}/"): curves[name] for name in curves if name.startswith(f"{task}/")}
        charts.append(line_chart(f"Parts of the {task.removeprefix('loss/')} loss", parts))
    others = {
        "lr": "Learning rate",
        "grad_norm": "Norm of the gradient",
        "images_per_second": "Images a second",
        "host_wait": "Share of the time spent waiting for the host",
    }
    return charts + [line_chart(title, {name: curves[name]}) for name, title in others.items() if name in curves]


def _evaluations(curves: Mapping[str, Points]) -> list[str]:
    """A chart a task, with its headline."""
    tasks: dict[str, dict[str, Points]] = {}
    for name, points in curves.items():
        task, _, score = name.rpartition("/")
        if name not in ("step", "epoch") and len(tasks.setdefault(task, {})) < HEADLINE:
            tasks[task][score] = points
    return [line_chart(f"{task} scores".strip().capitalize(), scores) for task, scores in tasks.items()]


def _pictures(folder: Path) -> list[str]:
    """The first pictures by name, inside the page; what is no picture is passed over."""
    paths = (path for path in sorted(folder.glob("*")) if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    return list(itertools.islice(filter(None, map(_picture, paths)), PICTURES))


def _picture(path: Path) -> str:
    try:
        image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        return ""
    if image is None:
        return ""
    scale = PICTURE_SIDE / max(image.shape[:2])
    if scale < 1:
        size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    jpeg = base64.b64encode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()).decode()
    name = escape(path.name)
    return f'<figure><img src="data:image/jpeg;base64,{jpeg}" alt="{name}"><figcaption>{name}</figcaption></figure>'
