"""A viewer on a page of a real browser: where its pixels lie, what it tells of them, what it saves.

from tests.helpers.viewing import Scene, show_fixture, street_fixture  # noqa: F401  (as show and street)
scene = show(viewer_page(...), (width, height))
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from segvit.config import DataConfig
from segvit.data.dataset import open_dataset
from segvit.data.palette import default_palette
from segvit.pictures.paint import save_index_png
from segvit.reports.viewer import viewer_page
from tests.helpers.browser import Visit, browser, visit  # noqa: F401

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

Map = npt.NDArray[np.int64]


def index_png(labels: Map, num_classes: int, folder: Path) -> bytes:
    save_index_png(labels, default_palette(num_classes), folder / "index.png")
    return (folder / "index.png").read_bytes()


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@dataclass(frozen=True)
class Scene:
    """A viewer on a page, and what it must show."""

    visited: Visit
    root: "Locator"
    size: tuple[int, int]
    """(W, H) of the map."""

    @property
    def page(self) -> "Page":
        return self.visited.page

    def spot(self, x: int, y: int, *, zooms: int = 0) -> tuple[float, float]:
        """Where the middle of a pixel lies in the window, after so many presses on + that keep the middle in place."""
        box = self.root.locator("canvas").bounding_box()
        assert box
        width, height = self.size
        scale = min(box["width"] / width, box["height"] / height) * 1.5**zooms
        left, top = box["x"] + (box["width"] - width * scale) / 2, box["y"] + (box["height"] - height * scale) / 2
        return left + (x + 0.5) * scale, top + (y + 0.5) * scale

    def hover(self, x: int, y: int, *, zooms: int = 0) -> int:
        """The class that the tip tells at a pixel; ignored is K."""
        self.root.scroll_into_view_if_needed()
        self.page.mouse.move(*self.spot(x, y, zooms=zooms))
        tip = self.root.locator(".viewer-tip")
        assert tip.is_visible()
        return int(tip.get_attribute("data-value") or -1)

    def saved(self, name: str) -> bytes:
        """What a press on a download gives."""
        with self.page.expect_download() as download:
            self.root.locator(f".viewer-{name}").click()
        return Path(download.value.path()).read_bytes()

    def overlay(self) -> npt.NDArray[np.int64]:
        """(H, W, 3), what the viewer draws now."""
        return np.asarray(Image.open(io.BytesIO(self.saved("overlay"))).convert("RGB")).astype(np.int64)

    def opacity(self, percent: int) -> None:
        self.root.locator("input[type=range]").fill(str(percent))

    def rows(self) -> list[tuple[str, str]]:
        """Name and share of the rows of the legend that are seen."""
        told = self.root.locator(".viewer-row:visible")
        names, numbers = told.locator(".viewer-name"), told.locator(".viewer-share")
        return list(zip(names.all_text_contents(), numbers.all_text_contents(), strict=True))

    def press(self, name: str) -> None:
        self.root.get_by_role("button", name=name, exact=True).click()


@pytest.fixture(name="show")
def show_fixture(visit: Callable[..., Visit]) -> Iterator[Callable[..., Scene]]:  # noqa: F811
    """Opens a page with a viewer, and in the end asserts that it asked for nothing and complained of nothing."""
    opened = []

    def open_page(html: str, size: tuple[int, int], *, ready: bool = True, **window: Any) -> Scene:
        visited = visit(**window)
        opened.append(visited)
        visited.page.set_content(html)
        root = visited.page.locator("section.viewer").first
        if ready:
            visited.page.locator("section.viewer[data-ready]").first.wait_for()
        return Scene(visited, root, size)

    yield open_page
    for visited in opened:
        assert not visited.requests
        assert not visited.complaints


@dataclass(frozen=True)
class Street:
    """A photo of CamVid with its labels, and a prediction that is wrong in places."""

    photo: Image.Image
    labels: Map
    prediction: Map
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    index: bytes
    truth: bytes

    def page(self, **options: Any) -> str:
        return viewer_page(self.photo, self.index, self.classes, self.palette, title="street.jpg", **options)


@pytest.fixture(name="street", scope="module")
def street_fixture(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Street:
    folder = tmp_path_factory.mktemp("street")
    dataset = open_dataset(DataConfig(spec="camvid", root=shared_data / "camvid"), "val")
    sample = dataset.read(0)
    labels = sample.labels.numpy().astype(np.int64)
    prediction = np.roll(labels, (5, -8), axis=(0, 1))
    prediction[prediction == 255] = 3
    files = []
    for values in (prediction, labels):
        save_index_png(values, dataset.spec.palette, folder / "index.png")
        files.append((folder / "index.png").read_bytes())
    photo = Image.fromarray(sample.image.permute(1, 2, 0).numpy())
    return Street(photo, labels, prediction, dataset.spec.classes, dataset.spec.palette, *files)


def told(share: float) -> str:
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"
