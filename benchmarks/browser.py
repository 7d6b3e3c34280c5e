"""Time the page of `segvit export --format web` in Chromium, and compare its labels with those of `segvit predict`.

    python benchmarks/browser.py MODEL PHOTO... [--precisions int8 fp32] [--rounds 3] [--threads] [--pictures FOLDER]

For each precision: size of the model, seconds until it is loaded, median seconds for a photo, and the share of labels
that differ from those of the PyTorch model, and of the same graph in ONNX Runtime. Needs playwright, Chromium, and npm
or onnxruntime-web in the cache.
"""

import io
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
from cyclopts import App, Parameter
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from rich.console import Console
from rich.table import Table

import segvit
from segvit.export.export import export_model
from segvit.export.quantize import ExportPrecision
from tests.helpers.browser import installed
from tests.helpers.served import ISOLATED, served

PATIENCE = 600_000
"""Milliseconds to wait for the labels of a photo."""
WINDOWS = ((1280, "light"), (1280, "dark"), (390, "light"), (390, "dark"))
"""Widths in pixels and colour schemes of the pictures."""

app = App(help=__doc__, default_parameter=Parameter(consume_multiple=True))


@app.default
def main(
    model: Path,
    photos: Annotated[list[Path], Parameter(negative=())],
    *,
    precisions: tuple[ExportPrecision, ...] = ("int8", "fp32", "fp16"),
    rounds: int = 3,
    threads: bool = False,
    pictures: Path | None = None,
    browser: str | None = None,
) -> None:
    """Print one table. `pictures` gets the page with the first photo, wide and narrow, light and dark."""
    network = segvit.load_model(model)
    table = Table("precision", "MB", "s to load", "s per photo", "% differ, PyTorch", "% differ, ONNX Runtime")
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=browser or installed(), args=["--no-sandbox", "--disable-gpu"]
        )
        for precision in precisions:
            site = Path(folder) / precision
            export_model(network, site, format="web", precision=precision)
            with served(site, headers=ISOLATED if threads else None) as address:
                page = chromium.new_page(viewport={"width": 1280, "height": 800})
                page.set_default_timeout(PATIENCE)
                started = time.perf_counter()
                page.goto(address)
                page.locator("#work").wait_for(state="hidden")
                loaded = time.perf_counter() - started
                seconds, labels = _label(page, photos, rounds)
                page.close()
                if pictures is not None and precision == precisions[0]:
                    _draw(chromium, address, photos[0], pictures)
            graph = segvit.load_onnx(site / "model.onnx")
            shares = [
                100
                * statistics.mean(
                    float((found != segvit.predict(reference, photo).labels).mean())
                    for photo, found in zip(photos, labels, strict=True)
                )
                for reference in (network, graph)
            ]
            size = (site / "model.onnx").stat().st_size / 1e6
            numbers = (size, loaded, statistics.median(seconds))
            table.add_row(precision, *(f"{number:.1f}" for number in numbers), *(f"{share:.4f}" for share in shares))
        chromium.close()
    Console().print(table)


def _label(page: Page, photos: list[Path], rounds: int) -> tuple[list[float], list[Any]]:
    """Label each photo `rounds` times: the seconds that the page shows, and the last labels of each photo."""
    seconds, labels = [], []
    for photo in photos:
        for _ in range(rounds):
            page.evaluate("document.getElementById('result').replaceChildren()")
            page.set_input_files("#file", photo)
            page.locator("#result[aria-busy=false] .viewer[data-ready]").wait_for()
            seconds.append(float(page.locator("#status").inner_text().split(",")[-1].split()[0]))
        with page.expect_download() as download:
            page.locator(".viewer-index").click()
        labels.append(np.asarray(Image.open(io.BytesIO(Path(download.value.path()).read_bytes()))))
    return seconds, labels


def _draw(chromium: Any, address: str, photo: Path, pictures: Path) -> None:
    """Write pictures of the page before and after a photo."""
    pictures.mkdir(parents=True, exist_ok=True)
    for width, scheme in WINDOWS:
        page = chromium.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        page.locator("#work").wait_for(state="hidden")
        page.screenshot(path=pictures / f"empty_{width}_{scheme}.png")
        page.set_input_files("#file", photo)
        page.locator("#result[aria-busy=false] .viewer[data-ready]").wait_for()
        page.screenshot(path=pictures / f"labelled_{width}_{scheme}.png", full_page=True)
        page.close()


if __name__ == "__main__":
    app()
