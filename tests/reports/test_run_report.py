"""The report of a run: what it shows, that hostile names stay text, and that it asks for nothing from elsewhere."""

import base64
import io
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import segvit.data.dataset as dataset_module
from segvit.cli.main import app
from segvit.config import DataConfig, TrainConfig
from segvit.errors import UserError
from segvit.evaluation.metrics import ConfusionMatrix
from segvit.evaluation.result import EvalResult, ImageScore
from segvit.pictures.chart import Chart
from segvit.reports.charts import MAX_POINTS, line_chart
from segvit.reports.facts import extremes
from segvit.reports.html import jpeg_uri, tag
from segvit.reports.matrix import confusion_chart
from segvit.reports.run_report import write_report
from segvit.training.train import train
from tests.helpers.browser import Visit, browser, visit  # noqa: F401
from tests.helpers.tiny import tiny_run

HOSTILE = (
    "<script>window.hacked=1</script>",
    'a" onmouseover="hacked()',
    "</td></table><img src=http://example.com/x>",
)
STEPS = 4


def small_config(output: Path, data: DataConfig) -> TrainConfig:
    return tiny_run(output, data=data, steps=STEPS, eval_every=2, loggers=("tensorboard",))


def hostile_data(root: Path) -> DataConfig:
    """Six pairs with hostile file names, under hostile class names."""
    random = np.random.default_rng(0)
    for index in range(6):
        name = f"{index}<b onclick=hacked()>&'\".png"
        for folder, pixels in (
            ("images", random.integers(0, 256, (32, 40, 3), dtype=np.uint8)),
            ("labels", random.integers(0, 3, (32, 40), dtype=np.uint8)),
        ):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / folder / name)
    return DataConfig(
        images=root / "images",
        labels=root / "labels",
        classes=tuple(f"{name}={value}" for value, name in enumerate(HOSTILE)),
        val_fraction=0.5,
        workers=0,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose names are all hostile; its folder's too."""
    folder = tmp_path_factory.mktemp("hostile")
    config = small_config(folder / "<u>run&", hostile_data(folder / "data"))
    train(config)
    return config.output


class Page(HTMLParser):
    """The elements of a page, and the text outside of its script and style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside not in ("script", "style"):
            self.text.append(data)

    def named(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for element, attributes in self.elements if element == name]


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page((run / "report.html").read_text(encoding="utf-8"))


def test_hostile_names_stay_text(page: Page) -> None:
    assert len(page.named("script")) == 1
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert not page.named("b") and not page.named("u")
    text = "".join(page.text)
    for name in (*HOSTILE, "<u>run&", "<b onclick=hacked()>&'\""):
        assert name in text
    headers = [attributes.get("data-value") for attributes in page.named("th")]
    assert set(HOSTILE) <= set(headers)


def test_nothing_is_loaded_from_elsewhere(page: Page, run: Path) -> None:
    for name, attributes in page.elements:
        for key in ("src", "href", "data", "srcset", "action"):
            assert (attributes.get(key) or "data:").startswith("data:"), (name, attributes)
    style = re.search(r"<style>(.*?)</style>", (run / "report.html").read_text(), re.DOTALL)
    assert style and "url(" not in style[1] and "@import" not in style[1]
    (policy,) = [meta["content"] for meta in page.named("meta") if meta.get("http-equiv")]
    assert policy and "default-src 'none'" in policy and "script-src 'sha256-" in policy


def test_it_shows_curves_scores_and_images(page: Page, run: Path) -> None:
    text = "".join(page.text)
    for told in ("Loss", "Validation", "Learning rate", "boundary IoU", "Worst images", "Best images", "processes"):
        assert told in text
    assert "random weights" in text and "3 training and 3 validation images" in text
    assert "torch" + torch.__version__.split("+")[0] in text
    assert f"{STEPS} of {STEPS}" in text
    assert len(page.named("img")) == (4 + 1) * 3  # 2 worst, 1 best: four small pictures and a viewer's photo each
    assert len(page.named("polyline")) == 9 + len(HOSTILE)  # 1 loss, 3 terms, 2 scores, lr, norm, speed; each class
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    best = max(record["miou"] for record in records if "miou" in record)
    assert f"{100 * best:.2f} %" in text


def test_time_and_classes_are_logged(run: Path, page: Page) -> None:
    times = [json.loads(line) for line in (run / "timing.jsonl").read_text().splitlines()]
    assert [record["step"] for record in times if "seconds" in record] == [1, 2, 3, 4]
    for kind in ("validation_seconds", "pictures_seconds"):
        assert [record["step"] for record in times if kind in record] == [2, 4]
    assert all(value >= 0 for record in times for value in record.values())
    facts = json.loads((run / "report.json").read_text())["validation"]["scores"]
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert records[-1]["iou"] == dict(zip(HOSTILE, facts["iou"], strict=True))
    text = "".join(page.text)
    assert "images/s" in text and "for validation" in text and "IoU of each class over the steps" in text


def test_images_open_as_viewers(run: Path, visit: Callable[..., Visit]) -> None:  # noqa: F811
    visited = visit(height=1400)
    visited.page.set_content((run / "report.html").read_text(encoding="utf-8"))
    viewers = visited.page.locator("section.viewer")
    assert [viewers.nth(place).is_visible() for place in range(viewers.count())] == [True, False, False]  # the worst
    visited.page.locator("details.image > summary").last.click()
    best = viewers.last
    best.locator("canvas").wait_for()
    assert tuple(json.loads(best.get_attribute("data-classes") or "")) == HOSTILE
    maps = json.loads((run / "report.json").read_text())["validation"]["best"][0]["maps"]
    labels = np.asarray(Image.open(io.BytesIO(base64.b64decode(maps["labels"]))))
    assert labels.shape == (32, 40)
    best.get_by_role("button", name="Labels").click()
    names, numbers = (best.locator(f".viewer-row .viewer-{part}").all_text_contents() for part in ("name", "share"))
    fractions = np.bincount(labels.ravel()) / labels.size
    expected = {name: f"{100 * share:.1f} %" for name, share in zip(HOSTILE, fractions, strict=True)}
    assert dict(zip(names, numbers, strict=True)) == expected
    visited.page.locator("th button").first.click()  # the script of the tables runs as well
    assert visited.page.locator("th[aria-sort=ascending]").count() == 1
    assert not visited.requests and not visited.complaints


def test_a_report_of_before_the_viewer_is_still_shown(run: Path, tmp_path: Path) -> None:
    for name in ("config.yaml", "metrics.jsonl"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    facts = json.loads((run / "report.json").read_text())
    for image in (*facts["validation"]["best"], *facts["validation"]["worst"]):
        del image["maps"]
    (tmp_path / "report.json").write_text(json.dumps(facts))
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert len(page.named("img")) == 4 * 3 and not page.named("section")


def test_report_makes_the_page_anew(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "report.html").read_text()
    (run / "report.html").unlink()
    app(["report", str(run)])
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    assert (run / "report.html").read_text() == before


def test_score_looks_at_the_best_model(run: Path, tmp_path: Path) -> None:
    for name in ("config.yaml", "metrics.jsonl", "best.safetensors"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    app(["report", str(tmp_path)])
    assert "segvit report RUN --score" in "".join(Page((tmp_path / "report.html").read_text()).text)
    app(["report", str(tmp_path), "--score", "--device", "cpu"])
    assert "best.safetensors: 3 images" in "".join(Page((tmp_path / "report.html").read_text()).text)
    scores = json.loads((tmp_path / "report.json").read_text())["validation"]["scores"]
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert scores["miou"] == max(record["miou"] for record in records if "miou" in record)


@pytest.mark.parametrize(
    "content, told",
    [
        ({}, "is not a run of segvit train"),
        ({"config.yaml": "steps: 3\n"}, "metrics.jsonl: cannot be read"),
        ({"config.yaml": "steps: 3\n", "metrics.jsonl": "{}\n"}, "line 1 is not a record of a step"),
        ({"config.yaml": "steps: 3\n", "metrics.jsonl": "", "report.json": "{}"}, "not a report.json of segvit train"),
    ],
    ids=["no run", "no log", "another log", "another report.json"],
)
def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, content: dict[str, str], told: str) -> None:
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=told):
        write_report(tmp_path)
    with pytest.raises(UserError, match=r"has no best\.safetensors"):
        app(["report", str(tmp_path), "--score"])


def test_a_run_that_was_killed_still_has_a_report(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data: {spec: shapes}\nsteps: 9\n")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5}\n{"step": 2, "loss": NaN}\n{"step": 3, "lo')
    text = "".join(Page(write_report(tmp_path).read_text()).text)
    assert "2 of 9" in text and "so far" in text and "has no stored validation" in text


# Parts ----------------------------------------------------------------------------------------------------------------


def test_best_and_worst_share_no_image() -> None:
    def result(*mious: float | None) -> EvalResult:
        scores = tuple(
            ImageScore(index=index, name=str(index), miou=miou, accuracy=miou, boundary_iou=None)
            for index, miou in enumerate(mious)
        )
        matrix = ConfusionMatrix(2)
        return EvalResult(
            metrics=matrix.compute(), classes=("a", "b"), protocol={}, images=3, matrix=matrix, per_image=scores
        )

    def numbers(*mious: float | None) -> tuple[list[int], list[int]]:
        best, worst = extremes(result(*mious))
        return [score.index for score in best], [score.index for score in worst]

    assert numbers(0.5, None, 0.1, 0.9) == ([3], [2, 0])
    assert numbers(0.4) == ([], [0])
    assert numbers(None) == ([], [])
    assert numbers(*(i / 10 for i in range(9))) == ([8, 7, 6], [0, 1, 2])


def chart_of(points: list[tuple[float, float]]) -> Chart:
    last = int(points[-1][0]) if points else 3
    return Chart(name="loss", title="Loss", series={"loss": points}, last_step=last)


def test_a_long_curve_is_drawn_as_means() -> None:
    chart = line_chart(chart_of([(step, 2.0 if step % 2 else 4.0) for step in range(1, 9601)]))
    points = re.search(r'points="([^"]*)"', chart)
    assert points and len(points[1].split()) == MAX_POINTS
    heights = {point.split(",")[1] for point in points[1].split()}
    assert len(heights) == 1  # each stretch has the mean 3
    assert 'data-means="True"' in chart


def test_charts_stand_numbers_that_are_none() -> None:
    chart = line_chart(chart_of([(1, math.nan), (2, math.inf), (3, 0.0)]))
    assert "nan" not in chart and "inf" not in chart
    assert "Nothing to draw" in line_chart(chart_of([]))


def test_the_confusion_chart_tells_shares() -> None:
    counts = np.array([[30, 10, 0], [0, 0, 0], [1, 0, 999]])
    chart = confusion_chart(counts, ["a", "b", "c<"])
    assert "a predicted as b: 25.0 %" in chart and "c&lt; predicted as c&lt;: 99.9 %" in chart
    assert chart.count("<title>") == 3
    assert "--share:0.750" in chart and "--share:0.250" in chart, "shades are linear in the share"
    assert all(f">{percent} %<" in chart for percent in (0, 25, 50, 75, 100)), "the colour bar has numbers"
    assert confusion_chart(np.eye(150, dtype=np.int64), [f"class {k}" for k in range(150)]).count("<title>") == 150


def test_tags_escape_all_but_markup() -> None:
    assert tag("td", "<b>", tag("em", "x"), None, 3, class_="a", data_value='"') == (
        '<td class="a" data-value="&quot;">&lt;b&gt;<em>x</em>3</td>'
    )
    assert jpeg_uri(Image.new("RGB", (2, 2))).startswith("data:image/jpeg;base64,")


def test_training_writes_the_page_at_each_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_module, "SHAPES_LENGTH", {"train": 4, "val": 5})
    config = replace(small_config(tmp_path / "run", DataConfig(spec="shapes", workers=0)), loggers=())
    seen: list[Any] = []

    def look(step: int, _: Any) -> None:
        file = config.output / "report.json"
        seen.append(json.loads(file.read_text())["validation"]["name"] if file.exists() else None)

    train(config, on_step=look)
    assert seen == [None, None, "The weights after step 2", "The weights after step 2"]
    assert "step 4" in (config.output / "report.html").read_text()
