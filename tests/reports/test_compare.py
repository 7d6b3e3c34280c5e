"""Several runs on one page, charts as files, and the read-out of charts in a browser."""

import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from segvit.cli.main import app
from segvit.config import DataConfig
from segvit.errors import UserError
from segvit.pictures.chart import draw_chart, draw_small_charts
from segvit.reports import chart_files
from segvit.reports.compare import _flat, load_runs
from segvit.reports.curves import class_charts, compared_charts
from segvit.reports.run_files import load_run
from segvit.reports.run_report import write_report
from tests.helpers.axe import serious_faults
from tests.helpers.browser import Visit, browser, visit  # noqa: F401
from tests.helpers.made_run import make_run

HOSTILE = "<b onclick=hacked()>&'\""
LONG = "a_name_without_a_space_that_is_wider_than_the_screen_of_a_phone"


def two_runs(folder: Path) -> tuple[Path, Path]:
    one = make_run(folder / HOSTILE, classes=("sky", HOSTILE), seed=0)
    return one, make_run(folder / LONG, classes=("sky", HOSTILE), steps=40, seconds=None, seed=7)


def test_two_runs_share_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = two_runs(tmp_path)
    app(["report", str(one), str(other)])
    assert capsys.readouterr().out.strip() == str(one / "comparison.html")
    text = (one / "comparison.html").read_text(encoding="utf-8")
    assert "<b onclick" not in text and "&lt;b onclick=hacked()&gt;" in text
    assert "cannot be compared" not in text
    assert text.count("<polyline") == 6 * 2 + 1 + 2 * 2, "loss, term, two scores, lr, norm; one speed; two classes"
    assert "100 of 100" in text and "40 of 40" in text and "1 s per step of 2" not in text
    settings = text[text.index("Settings that differ</h2>") :]
    assert ">seed<" in settings and ">7<" in settings and ">steps<" in settings and ">output<" not in settings
    assert 'k1"' in text[text.index("Images per second") - 3000 :], "the second run keeps its colour"


def test_values_of_settings_are_words() -> None:
    config = {"model": {"taps": None, "pretrained": True, "scale": (0.5, 1)}}
    assert _flat(config) == [("model.taps", "not set"), ("model.pretrained", "true"), ("model.scale", "0.5 1")]


def test_a_run_on_datasets_that_a_program_handed_in_has_no_name_of_data(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path / "run"))
    own = replace(run, facts=None, config=replace(run.config, data=DataConfig()))
    assert own.describe().endswith(", on your own dataset")


def test_runs_of_other_data_are_marked(tmp_path: Path) -> None:
    one, other = make_run(tmp_path / "a" / "run"), make_run(tmp_path / "b" / "run", classes=("sea",), dataset="sea")
    app(["report", str(one), str(other), "--output", str(tmp_path / "both.html")])
    text = (tmp_path / "both.html").read_text(encoding="utf-8")
    assert "cannot be compared: their datasets and classes differ" in text
    assert str(one.resolve()) in text and str(other.resolve()) in text, "runs of one name are told apart"


@pytest.mark.parametrize(
    "words, told",
    [
        (["one", "one"], "a run is given twice"),
        (["one", "none"], "no folder none: give the folder of a run"),
        (["one", "."], "is not a run of segvit train"),
        (["one"] * 7, "7 runs: give 2 to 6"),
        (["one", "--output", "x.html"], "--output works only with several runs"),
        (["one", ".", "--score"], "--score works with one run, not 2"),
        (["one", "--format", "pdf"], "--format works only with --charts"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "one")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=told):
        app(["report", *words])


def test_charts_are_written_as_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = two_runs(tmp_path)
    for name in ("draw_chart", "draw_small_charts"):
        monkeypatch.setattr(chart_files, name, lambda chart, path: path.touch())
    monkeypatch.setattr(chart_files, "confusion_matrix", lambda counts, names, path: path.touch())
    app(["report", str(one), "--charts", str(tmp_path / "figures")])
    names = {"loss", "loss_terms", "validation", "learning_rate", "gradient_norm", "images_per_second"}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        f"{name}.png" for name in names | {"classes", "confusion"}
    }
    app(["report", str(one), str(other), "--charts", str(tmp_path / "both"), "--format", "svg"])
    written = {path.stem for path in (tmp_path / "both").glob("*.svg")}
    assert written == names - {"loss_terms", "validation"} | {"miou", "overall_accuracy", "loss_class", "classes"}


def test_figures_of_charts_have_print_size(tmp_path: Path) -> None:
    runs = load_runs(two_runs(tmp_path))
    loss = compared_charts(runs)[2]
    assert loss.name == "loss"
    draw_chart(loss, tmp_path / "loss.png")
    draw_small_charts(class_charts(runs), tmp_path / "classes.png")
    for name, inches in (("loss", 3.5), ("classes", 7)):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width == 300 * inches and round(picture.info["dpi"][0]) == 300


def test_charts_are_read_with_pointer_and_keys(tmp_path: Path, visit: Callable[..., Visit]) -> None:  # noqa: F811
    run = make_run(tmp_path / "run", steps=400)
    visited = visit()
    page = visited.page
    page.goto(write_report(run).as_uri())
    chart = page.locator("figure.chart", has_text="Validation").first
    picture, readout = chart.locator("svg"), chart.locator(".readout")
    box = picture.bounding_box()
    assert box and not readout.is_visible()
    picture.hover(position={"x": box["width"] * 0.72, "y": 60})
    assert readout.locator("p").all_inner_texts()[0] == "step 300"
    assert [text.split() for text in readout.locator("p").all_inner_texts()[1:]] == [
        ["mIoU", "60", "%"],
        ["pixel", "accuracy", "60", "%"],
    ]
    picture.focus()
    page.keyboard.press("End")
    assert "step 400" in readout.inner_text() and "80 %" in readout.inner_text()
    page.keyboard.press("ArrowLeft")
    assert "step 300" in readout.inner_text()
    page.keyboard.press("Escape")
    assert not readout.is_visible()
    loss = page.locator("figure.chart").first
    loss.locator("svg").focus()
    page.keyboard.press("End")
    assert "mean of steps 400 to 400" not in loss.inner_text()
    page.keyboard.press("Home")
    assert "mean of steps 1 to 2" in loss.locator(".readout").inner_text()
    cell = page.locator(".matrix .cell").first
    cell.hover()
    assert "sky predicted as sky: 90.0 %" in page.locator("figure.chart:has(.matrix) .readout").inner_text()
    assert not visited.complaints and [address for address in visited.requests if not address.startswith("file:")] == []


def test_a_finger_reads_a_chart(tmp_path: Path, visit: Callable[..., Visit]) -> None:  # noqa: F811
    visited = visit(width=390, has_touch=True, is_mobile=True)
    page = visited.page
    page.goto(write_report(make_run(tmp_path / "run")).as_uri())
    small = page.locator(".classes .chart").first
    small.locator("svg").tap()
    assert "IoU 40 %" in " ".join(small.locator(".readout").inner_text().split())
    page.locator("h1").tap()
    assert not small.locator(".readout").is_visible() and not visited.complaints


def test_charts_are_saved_from_the_page(tmp_path: Path, visit: Callable[..., Visit]) -> None:  # noqa: F811
    visited = visit(dark=True)
    page = visited.page
    page.goto(write_report(make_run(tmp_path / "my run")).as_uri())
    for figure in (page.locator("figure.chart").nth(2), page.locator("figure.chart:has(.matrix)")):
        saved = {}
        for kind in ("SVG", "PNG"):
            with page.expect_download() as download:
                figure.get_by_role("button", name=f"Save as {kind}").click()
            saved[kind] = Path(download.value.path()).read_bytes()
            assert download.value.suggested_filename.startswith("my-run-")
        picture = ET.fromstring(saved["SVG"])
        assert picture.tag == "{http://www.w3.org/2000/svg}svg" and b"class=" not in saved["SVG"]
        assert b"oklab" not in saved["SVG"] and b"#ffffff" in saved["SVG"], "colours of paper that any program reads"
        (tmp_path / "chart.png").write_bytes(saved["PNG"])
        with Image.open(tmp_path / "chart.png") as raster:
            assert raster.width == 3 * float(picture.get("width") or 0)
            assert raster.convert("RGB").getpixel((5, 5)) == (255, 255, 255)
    assert not visited.complaints


@pytest.mark.parametrize("dark", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["light", "dark"])
def test_pages_have_no_serious_faults(dark: bool, tmp_path: Path, visit: Callable[..., Visit]) -> None:  # noqa: F811
    one, other = two_runs(tmp_path)
    app(["report", str(one), str(other)])
    for path in (write_report(one), one / "comparison.html"):
        visited = visit(dark=dark, width=390)
        visited.page.goto(path.as_uri())
        assert not serious_faults(visited.page)
        assert visited.page.evaluate("document.documentElement.scrollWidth") <= 390
