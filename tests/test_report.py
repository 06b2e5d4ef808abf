import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from ylosia_jax.report import _axis, line_chart, write_report
from ylosia_jax.types import UserError

VOID = {"meta", "img", "br", "hr"}
HOSTILE = '<script>alert("1")</script>\'&amp;'

METRICS = """step,epoch,loss,grad_norm,loss/box,loss/box/class,loss/box/dfl,lr,images_per_second,host_wait,compiles
10,0.5,8,3,8,5,3,0.001,1,0.5,1
20,1,6,2,6,4,2,0.002,30,0.25,1
30,1.5,4,1,4,3,1,0.001,40,0.25,1
"""


class Page(HTMLParser):
    """Checks that tags are balanced; keeps texts and attributes by tag."""

    def __init__(self, path: Path):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.source = path.read_text()
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs)
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and self.open[-1] != "style":
            self.texts.append(data.strip())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "metrics.csv").write_text(METRICS)
    scores = {"AP": 0.51234, "AP50": 0.75, "AP75": None, "APs": 0.25, "per_class": {"ball": 0.5, "star": None}}
    parts = {"PQ": 0.4, "SQ": 0.8, "RQ": 0.5, "things": {"PQ": 0.375}, "stuff": {"PQ": 0.625, "SQ": 0.7}}
    (folder / "metrics.json").write_text(json.dumps({"box": scores, "panoptic": parts}))
    (folder / "evaluations.csv").write_text(
        "step,box/AP,box/AP50,box/AP75,box/APs\n15,0.1,0.2,0.3,0.9\n30,0.2,0.4,0.6,0.8\n"
    )
    (folder / "config.txt").write_text("optim.lr: 0.002\nseed: 0\n")
    (folder / "versions.json").write_text('{"jax": "0.10.2", "devices": "1 x cpu", "commit": null}')
    (folder / "predictions").mkdir()
    write_picture(folder / "predictions" / "a.jpg", 300, 200)
    return folder


def write_picture(path: Path, width: int, height: int):
    assert cv2.imwrite(str(path), np.full((height, width, 3), 128, np.uint8))


def pictures(page):
    sources = [image["src"] for image in page.all("img")]
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    raw = [base64.b64decode(source.partition(",")[2], validate=True) for source in sources]
    return [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape for data in raw]


def test_whole_report(run):
    path = write_report(run)
    assert path == run / "report.html"
    page = Page(path)
    assert page.texts[:3] == ["demo", "demo", "30 steps · 1.5 epochs · 35 images/s · 1 x cpu"]
    headings = ["Box scores", "Panoptic scores", "Training", "Evaluations", "Predictions", "Setting"]
    assert re.findall("<h2>(.*?)</h2>", page.source) == headings
    charts = ["Loss", "Parts of the box loss", "Learning rate", "Norm of the gradient", "Images a second"]
    charts += ["Share of the time spent waiting for the host", "Box scores"]
    assert [attributes["role"] for attributes in page.all("svg")] == ["img"] * len(charts)
    # Every SVG begins with what it shows, in words.
    titles = re.findall(r"<svg [^>]*><title>(.*?):", page.source)
    assert titles == charts
    assert pictures(page) == [(200, 300, 3)]
    assert "optim.lr: 0.002\nseed: 0" in page.texts
    assert "jax: 0.10.2\ndevices: 1 x cpu\ncommit: None" in page.texts
    assert [item.name for item in run.iterdir() if "tmp" in item.name] == []


def test_scores(run):
    page = Page(write_report(run))
    assert re.findall(r'<div class="card">(\w+)<b>([^<]+)</b>', page.source)[:3] == [
        ("AP", "0.512"),
        ("AP50", "0.750"),
        ("AP75", "–"),
    ]
    rows = re.findall(r'<th scope="row">(\w+)</th>(.*?)</tr>', page.source)
    cells = [(name, re.findall(r"<td>(.*?)</td>", row)) for name, row in rows]
    assert cells[:6] == [
        ("AP", ["0.512"]),
        ("AP50", ["0.750"]),
        ("AP75", ["–"]),
        ("APs", ["0.250"]),
        ("ball", ["0.500"]),
        ("star", ["–"]),
    ]
    assert "AP per class" in page.texts
    assert cells[6:] == [
        ("PQ", ["0.400", "0.375", "0.625"]),
        ("SQ", ["0.800", "–", "0.700"]),
        ("RQ", ["0.500", "–", "–"]),
    ]
    assert re.findall(r'scope="col">(\w+)<', page.source) == ["all", "things", "stuff"]
    assert re.findall(r"width:([\d.]+%)", page.source) == ["51.2%", "75.0%", "25.0%", "50.0%"]


def test_scores_of_categories(run):
    scores = {"top1": 0.985, "top5": 1.0, "per_class": {"0": 0.97, "1": None}}
    (run / "metrics.json").write_text(json.dumps({"classification": scores}))
    (run / "evaluations.csv").write_text("step,classification/top1,classification/top5\n15,0.5,0.9\n30,0.985,1\n")
    page = Page(write_report(run))
    assert "Classification scores" in re.findall("<h2>(.*?)</h2>", page.source)
    assert "top1 per class" in page.texts
    assert re.findall(r'<div class="card">(\w+)<b>([^<]+)</b>', page.source) == [("top1", "0.985"), ("top5", "1.000")]
    assert "Classification scores: top1 from 0.5 to 0.985; top5 from 0.9 to 1" in page.source


def test_nothing_is_fetched_or_run(run):
    page = Page(write_report(run))
    assert "default-src 'none'" in page.source
    assert "script" not in {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        assert not attributes.keys() & {"href", "srcset", "action", "data", "onload", "onerror"}
        assert tag == "img" or "src" not in attributes
    assert not re.search(r"https?:|url\(|@import", page.source)


def test_everything_of_the_users_is_escaped(tmp_path):
    run = tmp_path / HOSTILE.replace("/", "")
    (run / "predictions").mkdir(parents=True)
    write_picture(run / "predictions" / '"><b onload=x>&.png', 20, 20)
    columns = ["step", "loss", f"loss/{HOSTILE.replace('/', '')}", f"loss/{HOSTILE.replace('/', '')}/<i>"]
    (run / "metrics.csv").write_text(",".join(f'"{c}"'.replace('("1")', '(""1"")') for c in columns) + "\n1,2,3,4\n")
    (run / "evaluations.csv").write_text('step,"<u>/<s>"\n1,0.5\n')
    entry = {HOSTILE: 0.5, "<em>": {HOSTILE + HOSTILE: 0.25}, "text": HOSTILE, f"{HOSTILE}2": {"text": 1.0}}
    (run / "metrics.json").write_text(json.dumps({HOSTILE: entry}))
    (run / "config.txt").write_text(f"name: {HOSTILE}</pre>")
    (run / "versions.json").write_text(json.dumps({HOSTILE: HOSTILE, "devices": HOSTILE}))
    page = Page(write_report(run))
    assert {tag for tag, _ in page.tags} <= {
        *("html", "head", "meta", "title", "style", "body", "header", "section", "h1", "h2", "h3", "p", "div", "b"),
        *("figure", "figcaption", "table", "caption", "tbody", "thead", "tr", "th", "td", "i", "span", "img"),
        *("svg", "text", "line", "polyline", "circle", "details", "summary", "pre"),
    }
    assert len(page.all("svg")) == 3
    assert [image["alt"] for image in page.all("img")] == ['"><b onload=x>&.png']
    assert f"name: {HOSTILE}</pre>" in page.texts
    assert f"{HOSTILE}: {HOSTILE}\ndevices: {HOSTILE}" in page.texts
    assert page.texts.count(HOSTILE + HOSTILE) == 1


def test_empty_folder(tmp_path):
    page = Page(write_report(tmp_path))
    assert page.texts == [tmp_path.name] * 2
    assert page.all("section") == []


@pytest.mark.parametrize("content", ["", "step,loss,lr\n", "loss,lr\n1,2\n", "\0\n", "step,loss\nnan,1\nx,2\n"])
def test_metrics_without_rows(run, content):
    (run / "metrics.csv").write_text(content)
    (run / "evaluations.csv").write_text(content)
    page = Page(write_report(run))
    assert page.all("svg") == []
    assert page.texts[2] == "1 x cpu"


def test_one_row(run):
    (run / "metrics.csv").write_text("step,epoch,loss,images_per_second\n10,0.5,8,4\n")
    (run / "evaluations.csv").unlink()
    page = Page(write_report(run))
    assert page.texts[2] == "10 steps · 0.5 epochs · 4 images/s · 1 x cpu"
    assert [attributes["points"].count(",") for attributes in page.all("polyline")] == [1, 1]
    assert len(page.all("circle")) == 2


def test_damaged_rows_are_left_out(run):
    (run / "metrics.csv").write_text("step,loss,lr\n1,5,nan\n2,inf,0.5\n3,four,0.25\n4,3,0.5,9\n5,2")
    page = Page(write_report(run))
    assert [attributes["points"].count(",") for attributes in page.all("polyline")[:2]] == [2, 3]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"\xff\xfe", b'{"box": 3, "mask": {}, "pose": {"per_class": {}}}']
)
def test_damaged_json_is_left_out(run, content):
    (run / "metrics.json").write_bytes(content)
    (run / "versions.json").write_bytes(content if b"box" not in content else b"null")
    (run / "config.txt").write_bytes(content if b"\xff" in content else b"")
    page = Page(write_report(run))
    assert page.all("table") == []
    assert page.all("details") == []


def test_pictures_are_few_small_and_whole(run):
    folder = run / "predictions"
    for index in range(14):
        write_picture(folder / f"b{index:02}.png", 1600, 400)
    write_picture(folder / "aa.jpeg", 5000, 1)
    (folder / "0.jpg").write_bytes(b"")
    (folder / "1.png").write_bytes(b"no picture")
    (folder / "2.jpg").mkdir()
    (folder / "predictions.json").write_text("[]")
    page = Page(write_report(run))
    names = [image["alt"] for image in page.all("img")]
    assert names == ["a.jpg", "aa.jpeg", *(f"b{index:02}.png" for index in range(10))]
    assert pictures(page) == [(200, 300, 3), (1, 640, 3)] + [(160, 640, 3)] * 10


def test_report_is_replaced_and_repeatable(run):
    (run / "report.html").write_text("old")
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_several_tasks_share_the_loss_chart(run):
    (run / "metrics.csv").write_text("step,loss,loss/box,loss/mask,loss/mask/dice\n1,3,1,2,2\n")
    titles = re.findall(r"<svg [^>]*><title>(.*?)</title>", write_report(run).read_text())
    assert titles[:2] == [
        "Loss: loss from 3 to 3; loss/box from 1 to 1; loss/mask from 2 to 2",
        "Parts of the mask loss: dice from 2 to 2",
    ]


def test_folder_must_exist(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        write_report(tmp_path / "nowhere")


def test_chart_maps_values_to_places():
    chart = line_chart("Loss", {"loss": [(0, 10), (50, 0), (100, 5)], "none": []})
    # The plot spans 56..530 across and 8..190 down.
    assert 'points="56.0,8.0 293.0,190.0 530.0,99.0"' in chart
    assert "<title>loss 5 at step 100</title>" in chart
    assert "none" not in chart.replace("fill:none", "")
    assert line_chart("Loss", {"none": []}) == line_chart("Loss", {}) == ""


def test_long_curve_is_averaged():
    values = [0, 1, 2, -1, 0, 1] * 200
    chart = line_chart("Loss", {"loss": [(float(step), float(value)) for step, value in enumerate(values)]})
    path = re.search(r' points="([^"]*)"', chart).group(1).split()
    # Groups of three have the means 1 and 0, which are the ends of the axis.
    assert [place.split(",")[1] for place in path] == ["8.0", "190.0"] * 200
    assert "<circle" not in chart


@pytest.mark.parametrize(
    ("values", "whole", "expected"),
    [
        ([0, 1], True, (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1])),
        ([1, 9], True, (0, 10, [0, 2, 4, 6, 8, 10])),
        ([7, 9], True, (7, 9, [7, 7.5, 8, 8.5, 9])),
        ([-3, 4], True, (-4, 4, [-4, -2, 0, 2, 4])),
        ([5], True, (0, 5, [0, 1, 2, 3, 4, 5])),
        ([-5, -5], True, (-5, 0, [-5, -4, -3, -2, -1, 0])),
        ([0, 0], True, (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1])),
        ([10, 30], False, (10, 30, [10, 15, 20, 25, 30])),
        ([3, 1003], False, (3, 1003, [200, 400, 600, 800, 1000])),
        ([0, 3e-7], True, (0, 3e-7, [0, 1e-7, 2e-7, 3e-7])),
    ],
)
def test_axis(values, whole, expected):
    low, high, ticks = _axis(values, whole=whole)
    assert (low, high) == pytest.approx(expected[:2])
    assert ticks == pytest.approx(expected[2])
