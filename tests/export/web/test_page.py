"""The page in a browser, with a stand-in for the runtime: segvit's labels, messages, no request elsewhere."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from segvit.config import EvalConfig
from segvit.export.web.page import MODEL, page_facts, write_facts, write_page
from segvit.inference.protocol import protocol_size
from segvit.inference.windows import window_starts
from segvit.prediction.photo import label_photo
from segvit.utils.resize import resize
from tests.helpers.axe import serious_faults
from tests.helpers.browser import Visit, browser, visit  # noqa: F401
from tests.helpers.colour_model import CELL, PALETTE, RUNTIME, ColourModel
from tests.helpers.served import served
from tests.helpers.tiny import random_images

if TYPE_CHECKING:
    from playwright.sync_api import Page

SLIDE = EvalConfig(window=16, stride=11, resize_short=40)
PROTOCOLS = {
    "windows": SLIDE,
    "windows, blended": EvalConfig(window=16, stride=8, resize_long=50, blend="gaussian"),
    "whole": EvalConfig(mode="whole", resize_short=30),
    "scales, mirrored": EvalConfig(window=16, stride=11, resize_short=24, scales=(0.5, 1.0), flip=True),
    "native": EvalConfig(mode="whole"),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a page of the colour model."""
    folder = tmp_path_factory.mktemp("site")
    write_page(folder, ColourModel(SLIDE), precision="fp32", runtime={"ort.wasm.bundle.min.mjs": RUNTIME.encode()})
    (folder / MODEL).write_bytes(b"\0" * 1000)
    set_protocol(folder, SLIDE)
    return folder


def set_protocol(folder: Path, protocol: EvalConfig, **changes: Any) -> None:
    facts = page_facts(ColourModel(protocol), cell=CELL)
    write_facts(folder, facts | {"bytes": (folder / MODEL).stat().st_size, "least": 1} | changes)


@dataclass(frozen=True, kw_only=True)
class Open:
    """An open page, its address, and the addresses that it asked for."""

    page: "Page"
    address: str
    requests: list[str] = field(default_factory=list)

    def give(self, photo: Path) -> None:
        self.page.set_input_files("#file", photo)

    def labels(self, photo: Path) -> npt.NDArray[np.uint8]:
        """Give a photo, and download its label map."""
        self.give(photo)
        self.page.locator(f".viewer[data-ready][aria-label='Label map of {photo.name}']").wait_for()
        self.page.locator("#result[aria-busy=false]").wait_for()
        with self.page.expect_download() as download:
            self.page.locator(".viewer-index").click()
        picture = Image.open(io.BytesIO(Path(download.value.path()).read_bytes()))
        assert picture.mode == "P"
        assert picture.getpalette() == [part for colour in PALETTE for part in colour]
        return np.asarray(picture)

    def refusal(self) -> str:
        alert = self.page.locator("#alert")
        alert.wait_for()
        return alert.inner_text()


@pytest.fixture
def opened(site: Path, visit: Callable[..., Visit]) -> Iterator[Callable[..., Open]]:  # noqa: F811
    """Opens the page; in the end it asked for nothing but its own files, and complained of nothing."""
    visits = []
    with served(site) as address:

        def open_page(**window: Any) -> Open:
            visited = visit(**window)
            visits.append(visited)
            visited.page.goto(address)
            return Open(page=visited.page, address=address, requests=visited.requests)

        yield open_page
        for visited in visits:
            assert visited.requests
            assert not [asked for asked in visited.requests if not asked.startswith(f"{address}/")]
            assert not visited.complaints


def photo_file(path: Path, height: int, width: int, seed: int = 0, **options: Any) -> Path:
    """A photo of soft blobs in every colour."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(path, **options)
    return path


def differing(found: npt.NDArray[Any], reference: npt.NDArray[Any]) -> int:
    """Number of labels that differ; every class is there."""
    assert found.shape == reference.shape
    assert set(np.unique(reference)) == {0, 1, 2}
    return int((found != reference).sum())


def test_a_model_without_scores(tmp_path: Path) -> None:
    model = ColourModel(SLIDE)
    model.extra = {"metrics": None}  # as in the file of a step that was not validated
    write_page(tmp_path, model, precision="fp32", runtime={})
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "mIoU" not in page and "blue &amp; &lt;i&gt;" in page


# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROTOCOLS)
def test_labels_are_those_of_segvit(name: str, site: Path, opened: Callable[..., Open], tmp_path: Path) -> None:
    set_protocol(site, PROTOCOLS[name])
    try:
        page = opened()
        for number, size in enumerate([(60, 90), (37, 21)]):
            photo = photo_file(tmp_path / f"{number}.png", *size, seed=number)
            reference = label_photo(ColourModel(PROTOCOLS[name]), photo).labels
            assert differing(page.labels(photo), reference) <= 1  # scores that tie to float32
    finally:
        set_protocol(site, SLIDE)


def test_photos_are_read_as_segvit_reads_them(opened: Callable[..., Open], tmp_path: Path) -> None:
    page, model = opened(), ColourModel(SLIDE)
    turned = Image.Exif()
    turned[274] = 6
    for photo in (
        photo_file(tmp_path / "turned.jpg", 50, 90, exif=turned, quality=95),
        photo_file(tmp_path / "lossless.webp", 50, 61, lossless=True),
        photo_file(tmp_path / "grey.jpg", 50, 61),
    ):
        reference = label_photo(model, photo).labels
        assert differing(page.labels(photo), reference) <= 2
    clear = np.asarray(Image.open(photo_file(tmp_path / "clear.png", 50, 61)).convert("RGBA")).copy()
    clear[:, :, 3] = np.linspace(0, 255, 61)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    found, reference = page.labels(tmp_path / "clear.png"), label_photo(model, tmp_path / "clear.png").labels
    assert differing(found, reference) <= 0.02 * reference.size  # near white, where a level of 255 decides


# --- parts ------------------------------------------------------------------------------------------------------------


def test_resizing_is_that_of_segvit(opened: Callable[..., Open]) -> None:
    page = opened().page
    script = """async ([planes, height, width, to]) => {
      const { resizeImage } = await import("/page/resize.js");
      return [...resizeImage({ height, width, planes: Uint8Array.from(planes) }, ...to).planes];
    }"""
    for size, to in (((40, 31), (17, 62)), ((23, 23), (46, 11)), ((9, 50), (9, 33)), ((6, 7), (6, 7))):
        (image,) = random_images(1, size)
        found = page.evaluate(script, [image.flatten().tolist(), *size, to])
        difference = np.abs(np.array(found) - resize(image, to).numpy().flatten().astype(int))
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.001  # a half that float32 rounds either way


def test_sizes_and_windows_are_those_of_segvit(opened: Callable[..., Open]) -> None:
    page, random = opened().page, np.random.default_rng(0)
    script = """async ([length, window, stride, height, width, protocol, scale]) => {
      const { windowStarts, protocolSize } = await import("/page/windows.js");
      return [windowStarts(length, window, stride), Object.values(protocolSize(height, width, protocol, scale))];
    }"""
    for _ in range(60):
        length, window, height, width = (int(side) for side in random.integers(1, 700, 4))
        stride = int(random.integers(1, window + 1))
        long, short = (int(side) if random.random() < 0.6 else None for side in random.integers(8, 900, 2))
        least = int(random.integers(8, 600)) if short is not None and long is None and random.random() < 0.5 else None
        config = EvalConfig(resize_long=long, resize_short=short, resize_short_min=least)
        scale = float(random.choice([0.5, 0.75, 1.0, 1.25]))
        sides = {"resize_long": long, "resize_short": short, "resize_short_min": least}
        starts, size = page.evaluate(script, [length, window, stride, height, width, sides, scale])
        assert starts == window_starts(length, window, stride)
        assert tuple(size) == protocol_size(height, width, config, scale)


# --- the page ---------------------------------------------------------------------------------------------------------


def test_nothing_leaves_the_page(site: Path, opened: Callable[..., Open], tmp_path: Path) -> None:
    asked: list[str] = []
    page = opened()
    page.labels(photo_file(tmp_path / "a.png", 40, 40))
    send = """async (address) => {
      try { await fetch(address, { method: "POST", body: "photo", mode: "no-cors" }); } catch { return "refused"; }
      return "sent";
    }"""
    with served(tmp_path, headers={"Access-Control-Allow-Origin": "*"}, asked=asked) as elsewhere:
        (worker,) = page.page.workers
        assert worker.evaluate(send, f"{elsewhere}/worker") == "refused"
        assert not asked
    names = {request.removeprefix(page.address) for request in page.requests}
    assert names <= {f"/{file.relative_to(site)}" for file in site.rglob("*")} | {"/"}
    policy = page.page.locator("meta[http-equiv]").get_attribute("content") or ""
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy and "http" not in policy


def test_wrong_files_get_a_message(site: Path, opened: Callable[..., Open], tmp_path: Path) -> None:
    page = opened()
    (bad := tmp_path / "bad.jpg").write_bytes(b"nothing")
    page.give(bad)
    assert "bad.jpg cannot be read as an image" in page.refusal()
    assert not page.page.locator("#work").is_visible()
    assert page.labels(photo_file(tmp_path / "good.png", 40, 40)).shape == (40, 40)
    assert not page.page.locator("#alert").is_visible()


@pytest.mark.slow
def test_a_huge_photo_is_refused(opened: Callable[..., Open], tmp_path: Path) -> None:
    page = opened()
    Image.new("1", (9000, 6000)).save(tmp_path / "huge.png")
    page.give(tmp_path / "huge.png")
    assert "9000 x 6000 pixels (54 megapixels); the limit is 50" in page.refusal()


def test_a_photo_that_is_too_small_is_refused(site: Path, opened: Callable[..., Open], tmp_path: Path) -> None:
    set_protocol(site, EvalConfig(mode="whole"), least=17)
    page = opened()
    page.give(photo_file(tmp_path / "small.png", 16, 40))
    assert "its shorter side is 16 pixels, and 17 are needed" in page.refusal()
    set_protocol(site, SLIDE)


@pytest.mark.parametrize("name", ["model.onnx", "model.json"])
def test_a_missing_model_is_reported(
    name: str,
    site: Path,
    tmp_path: Path,
    visit: Callable[..., Visit],  # noqa: F811
) -> None:
    visited = visit()
    with served(site) as address:
        visited.page.route(f"**/{name}", lambda route: route.fulfill(status=404, body="none"))
        visited.page.goto(address)
        alert = visited.page.locator("#alert")
        alert.wait_for()
        assert f"could not be loaded: the server answered 404 to /{name}" in alert.inner_text()
        assert not visited.page.locator("#drop").is_visible()
        visited.page.set_input_files("#file", photo_file(tmp_path / "a.png", 20, 20))  # waits for nothing
        assert alert.is_visible() and not visited.page.locator("#work").is_visible()


@pytest.mark.slow
def test_a_cut_model_is_reported(site: Path, visit: Callable[..., Visit]) -> None:  # noqa: F811
    visited = visit()
    with served(site) as address:
        visited.page.route("**/model.onnx", lambda route: route.fulfill(body=b"\0" * 900))
        visited.page.goto(address)
        alert = visited.page.locator("#alert")
        alert.wait_for()
        assert "model.onnx has 900 of 1000 bytes" in alert.inner_text()


def test_a_page_without_a_server_explains_itself(site: Path, visit: Callable[..., Visit]) -> None:  # noqa: F811
    page = visit().page
    page.goto((site / "index.html").as_uri())
    assert "python -m http.server" in page.locator("#unserved").inner_text()
    assert not page.locator("#drop").is_visible()


def test_photos_are_dropped_and_pasted(opened: Callable[..., Open], tmp_path: Path) -> None:
    page = opened().page
    for event, option in (("drop", "dataTransfer"), ("paste", "clipboardData")):
        page.evaluate(
            """async ([event, option]) => {
              const canvas = Object.assign(document.createElement("canvas"), { width: 20, height: 20 });
              canvas.getContext("2d").fillRect(0, 0, 10, 20);
              const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
              const files = new DataTransfer();
              files.items.add(new File([blob], `${event}.png`, { type: "image/png" }));
              files.items.add(new File([blob], "second.png", { type: "image/png" }));
              const kind = event === "drop" ? DragEvent : ClipboardEvent;
              document.body.dispatchEvent(new kind(event, { bubbles: true, cancelable: true, [option]: files }));
            }""",
            [event, option],
        )
        page.locator(f".viewer[data-ready][aria-label='Label map of {event}.png']").wait_for()
        assert f"{event}.png is labelled. The other file is left out" in page.locator("#alert").inner_text()


@pytest.mark.parametrize(("width", "dark"), [(1280, False), pytest.param(390, True, marks=pytest.mark.slow)])
def test_it_is_accessible_and_fits(width: int, dark: bool, opened: Callable[..., Open], tmp_path: Path) -> None:
    page = opened(width=width, height=800, dark=dark)
    page.page.locator("#work").wait_for(state="hidden")
    assert not serious_faults(page.page)
    page.page.keyboard.press("Tab")
    assert page.page.evaluate("document.activeElement.id") == "choose"
    page.labels(photo_file(tmp_path / "a.png", 40, 60))
    assert "blue & <i>" in page.page.locator(".viewer-legend").inner_text()
    page.page.locator("summary").click()
    assert not serious_faults(page.page)
    assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert "mIoU 62.5 %" in page.page.locator("dl").inner_text()
