"""The running page of `segvit app`, in a browser and for programs: one server for all of these tests."""

import base64
import io
import json
import os
import signal
import socket
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.app_robustness import ADDRESSES, ASKED, Server, ask, emptied, is_readable, post, send, serving, storm
from benchmarks.hostile import hostile, picture
from segvit.app.limits import Limits
from segvit.app.messages import Job, Setup
from segvit.app.worker_pool import WorkerPool
from segvit.cli.main import main
from segvit.config import ModelConfig
from segvit.data.shapes.scenes import render_scene
from segvit.data.spec import load_spec
from segvit.errors import UserError
from segvit.models.create import create_model
from segvit.prediction.predict_files import predict_files
from segvit.weights.load import load_model
from tests.app.test_app import heic
from tests.helpers import browser as browsers
from tests.helpers.axe import serious_faults
from tests.helpers.browser import Visit
from tests.helpers.coco import painted
from tests.helpers.prometheus import parse
from tests.helpers.tiny import tell_apart

browser, visit = browsers.browser, browsers.visit  # fixtures


# --- the workers ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Files of a plain and a shrunk model with random weights that tell eight classes apart."""
    folder, spec = tmp_path_factory.mktemp("models"), load_spec("shapes")
    files = []
    for structure in ("plain", "shrunk"):
        torch.manual_seed(0)
        config = ModelConfig(
            backbone="vit_tiny_patch16_224",
            image_size=64,
            embed_dim=64,
            depth=4,
            num_heads=2,
            head_num_layers=2,
            structure=structure,  # type: ignore[arg-type]
        )
        model = create_model(config=config, num_classes=spec.num_classes, spec=spec)
        tell_apart(model)
        model.extra = {"metrics": {"miou": 0.625, "images": 40}, "licence": "CC-BY-NC-4.0"}
        model.save(folder / f"{structure}.safetensors")
        files.append(folder / f"{structure}.safetensors")
    return files[0], files[1]


def test_a_photo_that_takes_too_long_is_given_up(models: tuple[Path, Path], tmp_path: Path) -> None:
    limits = Limits(timeout=0.001)
    (photo := tmp_path / "photo.png").write_bytes(picture(side=512))
    setup = Setup(models=(str(models[0]),), device="cpu")
    with WorkerPool(setup, limits, examples=tmp_path / "examples") as pool:
        assert pool.ready.note.startswith("no examples")
        (tmp_path / "out").mkdir()
        job = Job(photo=photo, name="photo.png", models=("plain",), folder=tmp_path / "out")
        with pytest.raises(UserError, match=r"photo.png: given up after 0.001 s"):
            pool.ask(job)


@pytest.mark.slow
def test_a_worker_that_was_given_up_is_replaced(models: tuple[Path, Path], tmp_path: Path) -> None:
    (photo := tmp_path / "photo.png").write_bytes(picture())
    setup = Setup(models=(str(models[0]),), device="cpu")
    with WorkerPool(setup, Limits(timeout=0.001), examples=tmp_path / "examples") as pool:
        job = Job(photo=photo, name="photo.png", models=("plain",), folder=tmp_path / "out")
        with pytest.raises(UserError, match="given up"):
            pool.ask(job)
        pool._limits = Limits()
        assert pool.ask(replace(job, folder=tmp_path / "again")).width == 64


@pytest.mark.slow
def test_where_no_process_can_be_started_the_next_one_tries_again(
    models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photo := tmp_path / "photo.png").write_bytes(picture())
    setup = Setup(models=(str(models[0]),), device="cpu")
    with WorkerPool(setup, Limits(timeout=0.001), examples=tmp_path / "examples") as pool:
        job = Job(photo=photo, name="photo.png", models=("plain",), folder=tmp_path / "out")

        def refuse(*_: object) -> None:
            raise OSError("cannot allocate memory")

        with monkeypatch.context() as full:
            full.setattr("segvit.app.worker_pool.Worker", refuse)
            with pytest.raises(UserError, match="given up"):
                pool.ask(job)
        pool._limits = Limits()
        assert pool.ask(replace(job, folder=tmp_path / "again")).width == 64


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    setup = Setup(models=(str(tmp_path / "x.safetensors"),), device="cpu")
    with pytest.raises(UserError, match=r"x\.safetensors"), WorkerPool(setup, Limits(), examples=tmp_path / "e"):
        pass


# --- the running page -------------------------------------------------------------------------------------------------

WATCHER = """
import os, socket
real = socket.socket.connect
def connect(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
        with open(os.environ["CONNECTED"], "a") as file:
            file.write(f"{address}\\n")
    return real(self, address)
socket.socket.connect = connect
"""
"""Notes where a process connects to: a sitecustomize of every process of the page."""
DROP = """async (sent) => {
  const dropped = new DataTransfer();
  for (const [name, content] of sent) {
    const bytes = await (await fetch(`data:image/png;base64,${content}`)).arrayBuffer();
    dropped.items.add(new File([bytes], name, { type: "image/png" }));
  }
  const place = document.querySelector("#photo input[type=file]").parentElement;
  place.dispatchEvent(new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: dropped }));
}"""
"""Drops files, given as names and base64, on the place of one photo."""
FLAGS = ["--port", "0", "--max-megabytes", "2", "--max-megapixels", "12", "--queue", "12", "--batch-files", "3"]


@pytest.fixture(scope="module")
def server(models: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A page of both models, with three photos to offer."""
    pytest.importorskip("gradio")
    base = tmp_path_factory.mktemp("app")
    examples = base / "photos"
    examples.mkdir()
    for seed in range(3):
        Image.fromarray(render_scene(seed, 96)[0]).save(examples / f"scene{seed}.png")
    (base / "sitecustomize.py").write_text(WATCHER)
    os.environ["CONNECTED"] = str(base / "connected.txt")
    with serving(*models, flags=[*FLAGS, "--examples", str(examples)], python_path=[base]) as running:
        yield running
    del os.environ["CONNECTED"]
    assert not (base / "connected.txt").exists(), (base / "connected.txt").read_text()
    assert running.process.returncode == 0
    assert not running.strays() if running.temporary.exists() else True
    assert "Traceback" not in "".join(running.said), "".join(running.said)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo."""
    path = tmp_path_factory.mktemp("scene") / "street scene.png"
    Image.fromarray(render_scene(7, 200)[0][:150]).save(path)
    return path


@pytest.fixture(scope="module")
def predicted(models: tuple[Path, Path], scene: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The index PNG that `segvit predict` writes for it."""
    folder = tmp_path_factory.mktemp("predicted")
    (path,) = predict_files(load_model(models[0]), [scene], folder, workers=0).written
    assert len(np.unique(np.asarray(Image.open(path)))) > 3
    return path.read_bytes()


def start(seen: Visit, server: Server) -> None:
    """Open the page."""
    seen.page.goto(server.address)
    seen.page.locator("#photo input[type=file]").wait_for(state="attached", timeout=30_000)


def drop(seen: Visit, *files: Path) -> None:
    """Choose a photo."""
    seen.page.set_input_files("#photo input[type=file]", [str(file) for file in files])


def viewer(seen: Visit, number: int = 0) -> Any:
    """The viewer of one model, when it is ready."""
    frame = seen.page.locator("#result iframe").nth(number)
    frame.wait_for(timeout=30_000)
    frame.scroll_into_view_if_needed()
    inside = seen.page.frame_locator("#result iframe").nth(number)
    inside.locator(".viewer[data-ready]").wait_for(timeout=30_000)
    return inside


def test_upload_isolate_and_download(
    server: Server, visit: Callable[..., Visit], scene: Path, predicted: bytes, tmp_path: Path
) -> None:
    seen = visit()
    start(seen, server)
    assert "mIoU 62.5 % on 40 validation images" in seen.page.locator(".facts").first.inner_text()
    assert "CC-BY-NC-4.0" in seen.page.locator(".licence").first.inner_text()
    drop(seen, scene)
    inside = viewer(seen)
    viewer(seen, 1)
    titles = [viewer(seen, number).locator(".viewer-title").inner_text() for number in (0, 1)]
    assert titles == ["street scene · plain", "street scene · shrunk"]
    assert " ms" in seen.page.locator("#result footer").first.inner_text()
    assert "% of the pixels as plain" in seen.page.locator("#result footer").nth(1).inner_text()
    row = inside.locator(".viewer-row").first
    row.click()
    assert row.get_attribute("aria-pressed") == "true"
    with seen.page.expect_download() as waiting:
        inside.locator(".viewer-index").click()
    names = [waiting.value.suggested_filename]
    assert Path(waiting.value.path()).read_bytes() == predicted
    with seen.page.expect_download() as waiting:
        seen.page.locator("#result footer").first.get_by_text("Polygons").click()
    names.append(waiting.value.suggested_filename)
    polygons = Path(waiting.value.path())
    labels = np.asarray(Image.open(io.BytesIO(predicted)))
    assert np.array_equal(painted(polygons, "street scene"), labels)
    with seen.page.expect_download() as waiting:
        seen.page.locator("#result footer").first.get_by_text("Overlay").click()
    assert Image.open(waiting.value.path()).width >= 200
    names.append(waiting.value.suggested_filename)
    assert names == ["street-scene-plain.png", "street scene_plain.json", "street scene_plain_overlay.png"]
    with seen.page.expect_download() as waiting:
        inside.locator(".viewer-overlay").click()
    assert waiting.value.suggested_filename == "street-scene-plain_shown.png"
    with seen.page.expect_download() as waiting:
        seen.page.locator("#result footer").nth(1).get_by_text("Overlay").click()
    assert waiting.value.suggested_filename == "street scene_shrunk_overlay.png"
    # Nothing from elsewhere, and nothing that the page's own policy had to stop.
    assert all(address.startswith(server.address) for address in seen.requests)
    assert not [text for text in seen.complaints if "Content Security Policy" in text or "Refused" in text]


def test_models_can_be_left_out(server: Server, visit: Callable[..., Visit], scene: Path) -> None:
    seen = visit()
    start(seen, server)
    drop(seen, scene)
    viewer(seen, 1)
    seen.page.locator("#models label").filter(has_text="plain").click()
    seen.page.locator("#result .panels:not(.several)").wait_for()
    assert seen.page.locator("#result iframe").count() == 1
    seen.page.locator("#models label").filter(has_text="shrunk").click()
    seen.page.locator("#result .notice").wait_for()
    assert "choose from plain, shrunk" in seen.page.locator("#result .notice").inner_text()


def test_an_example(server: Server, visit: Callable[..., Visit]) -> None:
    seen = visit()
    start(seen, server)
    pictures = seen.page.locator("#examples img")
    pictures.first.wait_for()
    assert pictures.count() == 3
    pictures.nth(1).click()
    viewer(seen)


def test_what_is_refused_is_told(server: Server, visit: Callable[..., Visit], scene: Path, tmp_path: Path) -> None:
    seen = visit()
    start(seen, server)
    (tmp_path / "notes.txt").write_text("hello")
    drop(seen, tmp_path / "notes.txt")
    seen.page.get_by_text("Only image/* allowed").wait_for()
    (tmp_path / "heavy.jpg").write_bytes(picture("JPEG") + bytes(3 * 2**20))
    drop(seen, tmp_path / "heavy.jpg")
    seen.page.get_by_text("maximum allowed size of 2.0").wait_for()
    (tmp_path / "fake.png").write_text("hello")
    drop(seen, tmp_path / "fake.png")
    notice = seen.page.locator("#result .notice")
    notice.wait_for()
    assert "fake.png is not a photo that can be read" in notice.inner_text()


def test_photos_of_phones(server: Server, visit: Callable[..., Visit]) -> None:
    seen = visit()
    start(seen, server)
    seen.page.locator("#photo input[type=file][accept='image/*,.heic,.heif,.hif']").wait_for(state="attached")
    content = base64.b64encode(heic(80, 60)).decode()
    seen.page.evaluate(DROP.replace('{ type: "image/png" }', "{}"), [["IMG_1.HEIC", content]])  # of no type
    assert viewer(seen).locator(".viewer-title").inner_text() == "IMG_1 · plain"
    assert "80 × 60 px" in seen.page.locator("#result footer").first.inner_text()


def test_two_users_at_once(server: Server, visit: Callable[..., Visit], scene: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.png"
    Image.fromarray(render_scene(9, 120)[0]).save(other)
    one, two = visit(), visit()
    for seen in (one, two):
        start(seen, server)
    drop(one, scene)
    drop(two, other)
    assert "street scene" in viewer(one).locator(".viewer-title").inner_text()
    assert "other" in viewer(two).locator(".viewer-title").inner_text()
    assert "200 × 150 px" in one.page.locator("#result footer").first.inner_text()
    assert "120 × 120 px" in two.page.locator("#result footer").first.inner_text()


def test_many_photos(
    server: Server, visit: Callable[..., Visit], scene: Path, predicted: bytes, tmp_path: Path
) -> None:
    seen = visit()
    start(seen, server)
    (tmp_path / "broken.png").write_bytes(scene.read_bytes()[:500])
    (tmp_path / "other.png").write_bytes(scene.read_bytes())
    sent = [scene, tmp_path / "broken.png", tmp_path / "other.png"]
    content = [[path.name, base64.b64encode(path.read_bytes()).decode()] for path in sent]
    seen.page.evaluate(DROP, content)  # on the place of one photo
    with seen.page.expect_download() as waiting:
        seen.page.locator("#table a.zip").click(timeout=30_000)
    assert waiting.value.suggested_filename == "labels_plain.zip"
    with zipfile.ZipFile(waiting.value.path()) as archive:
        assert archive.read("street scene.png") == predicted
        assert "broken.png" in archive.read("shares.csv").decode()
    assert "2 of 3 photos labelled, 1 failed" in seen.page.locator("#table .status").inner_text()
    rows = seen.page.locator("#table a.open")
    assert [name.strip() for name in rows.all_inner_texts()] == ["street scene.png", "other.png"]
    assert rows.nth(1).locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 200
    rows.nth(1).click()
    title = seen.page.frame_locator("dialog iframe").locator(".viewer[data-ready] .viewer-title")
    assert title.inner_text() == "other.png"
    seen.page.get_by_role("button", name="Previous").click()
    title.get_by_text("street scene.png").wait_for()
    seen.page.keyboard.press("ArrowRight")
    title.get_by_text("other.png").wait_for()
    seen.page.keyboard.press("Escape")
    seen.page.locator("dialog iframe").wait_for(state="detached")
    with seen.page.context.expect_page() as opened:
        rows.first.click(modifiers=["Control"])
    opened.value.locator(".viewer[data-ready]").wait_for()


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(server: Server, visit: Callable[..., Visit], scene: Path, width: int) -> None:
    seen = visit(width=width, height=844)
    start(seen, server)
    drop(seen, scene)
    viewer(seen)
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    if width < 700:  # the frame is as high as the viewer in it, also when that grows
        body = seen.page.frame_locator("#result iframe").first.locator("body")
        for _ in range(2):
            seen.page.wait_for_function(
                "document.querySelector('#result iframe').style.getPropertyValue('--height') === "
                f"'{body.evaluate('body => body.offsetHeight')}px'"
            )
            assert body.evaluate("body => body.offsetHeight - innerHeight") == 0
            body.evaluate("body => body.querySelector('.viewer-foot').style.paddingTop = '117px'")
    for tab in ("Many photos", "API"):
        seen.page.get_by_role("tab", name=tab).click()
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width, tab
    cut = "[...document.querySelectorAll('.programs pre')].filter(example => example.scrollWidth > example.clientWidth)"
    assert seen.page.evaluate(f"{cut}.length") == 0


@pytest.mark.parametrize("dark", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_axe_finds_no_serious_fault(server: Server, visit: Callable[..., Visit], scene: Path, dark: bool) -> None:
    seen = visit(dark=dark)
    start(seen, server)
    seen.page.locator("#examples img").first.wait_for()
    drop(seen, scene)
    viewer(seen)
    faults = serious_faults(seen.page)
    seen.page.get_by_role("tab", name="Many photos").click()
    seen.page.set_input_files("#photos input[type=file]", [str(scene)])
    seen.page.locator("#table a.open").click(timeout=30_000)
    seen.page.frame_locator("dialog iframe").locator(".viewer[data-ready]").wait_for()
    faults += serious_faults(seen.page)
    seen.page.keyboard.press("Escape")
    seen.page.get_by_role("tab", name="API").click()
    assert not faults + serious_faults(seen.page)


def test_the_page_for_programs(server: Server, visit: Callable[..., Visit]) -> None:
    seen = visit()
    seen.page.goto(f"{server.address}/?view=api")
    example = seen.page.locator(".programs pre").first
    example.wait_for(timeout=30_000)
    line = f'curl --fail-with-body -F photo=@photo.jpg "{server.address}/api/predict?model=plain" -o labels.png'
    assert example.inner_text().startswith(line)
    seen.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    seen.page.get_by_role("button", name="Copy").first.click()
    seen.page.get_by_role("button", name="Copied").wait_for()
    assert seen.page.evaluate("navigator.clipboard.readText()").startswith(line)


# --- for programs -----------------------------------------------------------------------------------------------------


def test_programs_get_the_same(server: Server, scene: Path, predicted: bytes, tmp_path: Path) -> None:
    import httpx

    client_of = pytest.importorskip("gradio_client")
    client = client_of.Client(server.address, verbose=False, download_files=str(tmp_path), analytics_enabled=False)
    labels, facts, polygons = client.predict(client_of.handle_file(str(scene)), "plain", api_name="/predict")
    assert Path(labels).read_bytes() == predicted
    assert (facts["model"], facts["width"], facts["height"], facts["notes"]) == ("plain", 200, 150, [])
    assert sum(facts["shares"].values()) == pytest.approx(1) and facts["milliseconds"] > 0
    assert np.array_equal(
        painted(Path(polygons), "street scene"),
        np.asarray(Image.open(io.BytesIO(predicted))),
    )
    photo = {"photo": (scene.name, scene.read_bytes())}
    answers = [httpx.post(f"{server.address}/api/predict?format={kind}", files=photo) for kind in ("png", "json")]
    assert answers[0].content == predicted
    assert answers[1].json() == {
        **facts,
        "milliseconds": answers[1].json()["milliseconds"],
        "polygons": json.loads(Path(polygons).read_text()),
    }
    told = client.predict(api_name="/models")
    assert [about["name"] for about in told["models"]] == ["plain", "shrunk"]
    assert told["models"][0]["classes"] == list(load_spec("shapes").classes)
    assert told["limits"]["megapixels"] == 12
    (tmp_path / "bad.png").write_bytes(b"x")
    with pytest.raises(Exception, match=r"bad\.png is not a photo"):
        client.predict(client_of.handle_file(str(tmp_path / "bad.png")), "plain", api_name="/predict")


def test_hostile_files_and_requests(server: Server) -> None:
    import httpx

    with httpx.Client(timeout=60) as client:
        for kind, name, content in hostile(28, seed=1):
            what, said = send(client, server, name, content)
            assert what == "labelled" or is_readable(said, server), (kind, name, said)
            other, said = post(client, server, name, content)
            assert other == "labelled" or (other == "refused" and is_readable(said, server)), (kind, name, said)
            assert (other == "labelled") == (what == "labelled"), (kind, name)
        for photo in ASKED[:-3]:
            what, said = ask(client, server, photo)
            assert what != "labelled" and is_readable(said, server), (photo, said)
        for address in ADDRESSES:
            assert client.get(server.address + address).status_code >= 400, address
        assert client.get(server.address).status_code == 200
    assert not server.strays()


def test_many_at_once_are_answered_or_told_to_wait(server: Server) -> None:
    counts = storm(server, 20)
    assert counts.keys() <= {"answered", "told to wait"} and counts["answered"] >= 12, counts


def test_a_killed_worker_is_seen_and_replaced(server: Server, scene: Path) -> None:
    """By /health, without a request for labels; then labels are there again."""
    import httpx
    import psutil

    def health() -> tuple[int, dict[str, Any]]:
        answer = httpx.get(f"{server.address}/health", timeout=30)
        return answer.status_code, answer.json()

    assert health()[0] == 200
    before = httpx.get(f"{server.address}/metrics").text
    workers = [
        each for each in psutil.Process(server.process.pid).children() if "--multiprocessing-fork" in each.cmdline()
    ]
    assert len(workers) == 1
    workers[0].kill()
    seen = until(lambda: health() if health()[0] == 503 else None, 30)
    assert seen[1]["alive"] and not seen[1]["ready"] and seen[1]["status"] == "DOWN"
    until(lambda: health()[0] == 200, 300)
    counts = parse(httpx.get(f"{server.address}/metrics").text)["segvit_worker_restarts_total"]
    assert counts[0].value == parse(before)["segvit_worker_restarts_total"][0].value + 1
    answer = httpx.post(f"{server.address}/api/predict", files={"photo": ("a.png", scene.read_bytes())}, timeout=60)
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"


def until(found: Callable[[], Any], seconds: float) -> Any:
    """Wait for a true value, and return it."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)
    return value


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_signals_leave_nothing(name: str, models: tuple[Path, Path], request: pytest.FixtureRequest) -> None:
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)  # under nohup the server would rightly ignore SIGHUP
    request.addfinalizer(lambda: signal.signal(number, before))
    with serving(models[0], flags=["--port", "0"]) as server:
        folder = server.folder
        assert folder.exists()
        server.process.send_signal(number)
        assert server.process.wait(30) == 0
        assert not folder.exists()


@pytest.mark.slow
def test_the_folder_is_emptied_and_ctrl_c_ends_quietly(models: tuple[Path, Path]) -> None:
    import httpx

    with serving(models[0], flags=["--port", "0", "--keep-minutes", "0.02"]) as server:
        folder = server.folder
        with httpx.Client(timeout=60) as client:
            assert send(client, server, "x.png", picture())[0] == "labelled"
        assert server.kept()
        assert emptied(server, 30)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(30) == 0
        assert not folder.exists()
    assert "".join(server.said).endswith("stopped; photos and results are deleted\n")


def test_a_taken_port_is_told(
    models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(sys, "argv", ["segvit", "app", str(models[0]), "--port", str(taken.getsockname()[1])])
        with pytest.raises(SystemExit) as caught:
            main()
    assert caught.value.code == 2
    assert "cannot be opened (Address already in use); give another --port" in capsys.readouterr().err
