"""Pages with the real runtime in WebAssembly: the labels of ONNX Runtime on photos, in one thread and in several.

They need onnxruntime-web in segvit's cache, where `segvit export MODEL FOLDER --format web` puts it.
"""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from PIL import Image

import segvit
from segvit.cli.main import main
from segvit.config import EvalConfig
from segvit.errors import UserError
from segvit.export.export import export_model
from segvit.export.formats.web import WebPage
from segvit.export.web.runtime import DIGESTS, runtime_folder
from segvit.inference.onnx_model import load_onnx
from segvit.models.segvit import SegViT
from tests.helpers.browser import Visit, browser, visit  # noqa: F401
from tests.helpers.served import ISOLATED, served
from tests.helpers.tiny import labelling_model

pytestmark = pytest.mark.slow
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "immunohistochemistry")
"""Photos of scikit-image that are in its wheel."""
MOST_DIFFERING = {"fp32": 0.0001, "fp16": 0.0001, "int8": 0.05}
"""Largest share of labels that differ, where scores tie. int8 rounds activations that differ in the last bit of float32
up here and down there, and the random weights of the model make much of it."""


@pytest.fixture(scope="module", autouse=True)
def _runtime() -> None:
    if not all((runtime_folder() / name).is_file() for name in DIGESTS):
        pytest.skip("onnxruntime-web is not in the cache; `segvit export MODEL FOLDER --format web` fetches it")


@pytest.fixture(scope="module")
def model() -> SegViT:
    made = labelling_model(image_size=32, patch_size=8)
    made.protocol = EvalConfig(window=32, stride=24, resize_short=90)
    return made


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five photos as PNG, which every reader decodes to the same pixels."""
    data = pytest.importorskip("skimage.data")
    folder = tmp_path_factory.mktemp("photos")
    for name in PHOTOS:
        picture = Image.fromarray(getattr(data, name)())
        picture.thumbnail((240, 240))
        picture.save(folder / f"{name}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module", params=WebPage.precisions)
def site(
    model: SegViT, photos: list[Path], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Path:
    """The page in each precision; the folder has its name."""
    folder = tmp_path_factory.mktemp("site") / request.param
    exported = export_model(model, folder, format="web", precision=request.param)
    assert exported.num_bytes == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return folder


def labels_of(visited: Visit, photo: Path) -> npt.NDArray[np.uint8]:
    visited.page.set_input_files("#file", photo)
    visited.page.locator(f".viewer[data-ready][aria-label='Label map of {photo.name}']").wait_for()
    visited.page.locator("#result[aria-busy=false]").wait_for()
    with visited.page.expect_download() as download:
        visited.page.locator(".viewer-index").click()
    return np.asarray(Image.open(io.BytesIO(Path(download.value.path()).read_bytes())))


@pytest.mark.parametrize("threads", ["one thread", "several threads"])
def test_labels_are_those_of_onnx_runtime(
    threads: str,
    site: Path,
    photos: list[Path],
    visit: Callable[..., Visit],  # noqa: F811
) -> None:
    visited, reference = visit(), load_onnx(site / "model.onnx")
    visited.page.set_default_timeout(60_000)
    with served(site, headers=ISOLATED if threads == "several threads" else None) as address:
        visited.page.goto(address)
        assert visited.page.evaluate("crossOriginIsolated") is (threads == "several threads")
        shares = []
        for photo in photos:
            found, expected = labels_of(visited, photo), segvit.predict(reference, photo).labels
            assert len(np.unique(expected)) > 2
            shares.append(float((found != expected).mean()))
    assert max(shares) <= MOST_DIFFERING[site.name], shares
    assert not [asked for asked in visited.requests if not asked.startswith((f"{address}/", "blob:"))]
    assert not visited.complaints


def test_the_folder_is_complete(model: SegViT, site: Path) -> None:
    facts = json.loads((site / "model.json").read_text(encoding="utf-8"))
    assert facts["bytes"] == (site / "model.onnx").stat().st_size
    assert (facts["classes"], facts["least"]) == (list(model.classes), 1)
    assert "MIT License" in (site / "runtime" / "LICENSE").read_text(encoding="utf-8")
    graph = onnx.load(site / "model.onnx").graph
    assert [item.name for item in graph.output] == ["class_logits", "mask_logits"]
    assert [item.name for item in graph.input] == ["images", "valid"]


def test_a_size_that_the_protocol_does_not_use(model: SegViT, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"a graph of 40 x 64 pixels cannot run .*windows of 32 x 32 pixels; leave --size"
    ):
        export_model(model, tmp_path / "site", format="web", size=(40, 64))
    assert not list(tmp_path.iterdir())


def call(arguments: list[str]) -> None:
    """`segvit` with these arguments."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["segvit", *arguments])
        main()


def test_the_command(model: SegViT, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model.save(tmp_path / "model.safetensors")
    arguments = ["export", str(tmp_path / "model.safetensors"), str(tmp_path / "site")]
    with pytest.raises(SystemExit):
        call([*arguments[:2], str(tmp_path / "model.onnx"), "--web-runtime", "x.tgz"])
    assert "--web-runtime: for --format web only" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        call([*arguments, "--format", "web", "--web-runtime", str(tmp_path / "none.tgz")])
    assert "no such file or folder; type `npm pack onnxruntime-web" in capsys.readouterr().err
    call([*arguments, "--format", "web", "--web-runtime", str(runtime_folder())])
    printed = capsys.readouterr().out
    assert "python -m http.server --directory" in printed
    assert (tmp_path / "site" / "index.html").is_file()
