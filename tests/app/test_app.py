"""The page of `segvit app`: what it takes, keeps and refuses, in a browser and for programs."""

import asyncio
import io
import json
import os
import re
import time
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import segvit
from benchmarks.app_robustness import ADDRESSES
from benchmarks.hostile import picture, png_of
from segvit.app.file_store import FULL, FileStore
from segvit.app.html import batch_table, heading, limits_told, result_panels
from segvit.app.label_photo import label, load_models, short_names
from segvit.app.limits import Limits
from segvit.app.messages import About, Job, Labelled, Seen, Setup
from segvit.app.photo import SUFFIXES, open_photo
from segvit.app.server import checked_root_path, listen, run_app
from segvit.app.service import Result, Service
from segvit.app.serving.asgi import below
from segvit.app.serving.request_filter import RequestFilter
from segvit.app.size_hint import size_hint
from segvit.app.worker_process import State
from segvit.config import EvalConfig
from segvit.data.images import HEIF_SUFFIXES
from segvit.data.shapes.scenes import render_scene
from segvit.errors import UserError
from segvit.utils import optional as need
from tests.helpers.exports import tiny, with_added_classes

ROOT = Path(__file__).resolve().parents[2]
SMALL = Limits(max_megabytes=2, max_megapixels=1, batch_files=3)


# --- what is taken ----------------------------------------------------------------------------------------------------


def opened(content: bytes, folder: Path, name: str = "photo.png") -> Image.Image:
    (path := folder / "upload").write_bytes(content)
    return open_photo(path, name=name, limits=SMALL).image


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", r"photo.png is empty \(0 bytes\)"),
        (b"hello", "photo.png is not a photo that can be read: give JPEG, PNG"),
        (b"<svg xmlns='x'/>", r"is a drawing \(SVG\)"),
        (b"\0\0\0\x18ftypheic", "photo.png is HEIC, but damaged: save or fetch it again"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "is not a photo"),  # Pillow would run Ghostscript
        (picture("PNG")[:900], "truncated"),
        (png_of(20_000, 20_000), "has 400.0 megapixels; the limit is 1"),
        (png_of(1_001, 1_000), "has 1.0 megapixels"),
        (picture("TIFF", "F"), "floating-point"),
        (picture("JPEG") + bytes(2**21), r"has 2.0 MB; the limit is 2 MB"),
    ],
)
def test_what_is_no_photo_is_told(content: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said) as caught:
        opened(content, tmp_path)
    assert str(tmp_path) not in str(caught.value)  # visitors need not know where it lies


def test_photos_of_every_kind_are_read(tmp_path: Path) -> None:
    for format, mode in (
        ("JPEG", "CMYK"),
        ("PNG", "I;16"),
        ("PNG", "P"),
        ("PNG", "RGBA"),
        ("BMP", "RGB"),
        ("GIF", "P"),
    ):
        image = opened(picture(format, mode), tmp_path)
        assert (image.mode, image.size) == ("RGB", (64, 64)), (format, mode)
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x112] = 6
    Image.new("RGB", (30, 20)).save(turned, format="JPEG", exif=exif)
    assert opened(turned.getvalue(), tmp_path).size == (20, 30)


def heic(width: int = 64, height: int = 48) -> bytes:
    import pillow_heif

    drawn = pillow_heif.from_bytes(mode="RGB", size=(width, height), data=bytes((90, 120, 60)) * (width * height))
    drawn.save(content := io.BytesIO(), quality=90)
    return content.getvalue()


def test_photos_of_phones_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = opened(heic(), tmp_path, "IMG_1.HEIC")
    pixel = np.asarray(image)[20, 20].astype(int)
    assert image.size == (64, 48) and np.abs(pixel - (90, 120, 60)).max() < 12
    assert opened(heic(), tmp_path, "sent as.jpg").size == (64, 48)  # the content counts
    with pytest.raises(UserError, match=r"b.heic has 1\.\d megapixels; the limit is 1"):
        opened(heic(1200, 900), tmp_path, "b.heic")
    assert "AVIF or HEIC, up to 2 MB" in limits_told(SMALL)

    monkeypatch.setattr("segvit.data.images.find_spec", lambda name: None)
    monkeypatch.setattr(Image, "OPEN", {name: reader for name, reader in Image.OPEN.items() if name != "HEIF"})
    for name in ("c.heic", "c.jpg"):
        with pytest.raises(UserError, match=rf"{name} cannot be read here: .* `pip install 'segvit\[heic\]'`"):
            opened(heic(), tmp_path, name)
    assert "BMP or AVIF, up to 2 MB" in limits_told(SMALL)
    with pytest.raises(UserError, match=r"give JPEG, PNG, WebP, TIFF, GIF, BMP or AVIF$"):
        opened(b"hello", tmp_path)
    assert set(HEIF_SUFFIXES) < set(SUFFIXES)  # the browser offers them, so that the reason is seen


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_of_animations_the_first_frame_is_taken_and_said(format: str, tmp_path: Path) -> None:
    (path := tmp_path / "x").write_bytes(picture(format, frames=4))
    photo = open_photo(path, name="moving", limits=SMALL)
    assert photo.notes == ["Of the 4 frames of moving, this is the first."]
    still = np.asarray(opened(picture(format), tmp_path)).astype(int)
    assert np.abs(np.asarray(photo.image).astype(int) - still).mean() < 12  # GIF and WebP are lossy


def test_a_tiff_of_several_pages_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^pages\.tif: the TIFF has 4 pages, but one image is needed"):
        opened(picture("TIFF", frames=4), tmp_path, "pages.tif")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_header_is_enough_to_refuse_a_bomb(tmp_path: Path) -> None:
    (path := tmp_path / "bomb.png").write_bytes(png_of(13_000, 13_000))
    begin = time.perf_counter()
    with pytest.raises(UserError, match=r"169\.0 megapixels"):
        open_photo(path, name="bomb.png", limits=Limits())
    assert time.perf_counter() - begin < 0.2  # decoding it takes a second


def test_limits_that_let_nothing_pass() -> None:
    for wrong in ({"max_megabytes": 0}, {"timeout": -1}, {"queue": 0}, {"keep_minutes": float("inf")}):
        with pytest.raises(UserError, match="give a number above 0"):
            Limits(**wrong)  # type: ignore[arg-type]


def test_names_of_models() -> None:
    given = ["runs/camvid/best.safetensors", "runs/shrunk/best.safetensors", "segvit-large-ade20k", "user/repo"]
    assert short_names(given) == ["camvid", "shrunk", "segvit-large-ade20k", "user/repo"]
    assert short_names(["a/street.onnx", "b/street.onnx"]) == ["street", "b/street"]
    assert len(set(short_names(["a/x.onnx"] * 4))) == 4


@pytest.mark.parametrize(
    ("protocol", "side", "said"),
    [
        (EvalConfig(resize_short=364), 2000, "at 364 × 364 px.* below about 11 px are lost"),
        (EvalConfig(resize_short=364), 1400, None),
        (EvalConfig(resize_long=200), 150, None),
        (EvalConfig(), 2000, "learned on crops of 280 × 280 px, and this photo has 2000 × 2000 px"),
        (EvalConfig(), 1000, None),
    ],
)
def test_photos_far_larger_than_what_was_learned(protocol: EvalConfig, side: int, said: str | None) -> None:
    hint = size_hint(protocol, 280, height=side, width=side)
    assert hint is None if said is None else re.search(said, hint or "")


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_the_store_forgets() -> None:
    with FileStore(Limits(keep_minutes=0.002)) as store:
        root = store.root
        upload = store.uploads / "token" / "photo.png"
        upload.parent.mkdir()
        upload.write_bytes(bytes(1000))
        (example := store.uploads / "example.png").write_bytes(b"x")
        store.keep([example])
        (result := store.open() / "labels.png").write_bytes(b"y")
        assert store.room() == 2_000_000_000 - 1002
        until = time.monotonic() + 5
        while (upload.exists() or result.parent.exists()) and time.monotonic() < until:
            time.sleep(0.05)
        assert not upload.parent.exists() and not result.parent.exists()
        assert example.exists()
        store.keep([])
    assert not root.exists()


def test_what_is_in_use_is_kept() -> None:
    with FileStore(Limits(timeout=30)) as store:
        (upload := store.uploads / "token" / "photo.png").parent.mkdir()
        upload.write_bytes(b"x")
        folder = store.open()

        def all_old() -> None:
            for path in (upload, upload.parent, folder):
                os.utime(path, (0, 0))
            store.clear(older=60)

        with store.holding(upload, folder), store.holding(upload):
            all_old()
            assert upload.is_file() and folder.is_dir()
        store.clear(older=60)
        assert upload.is_file() and folder.is_dir()  # the age starts at the end
        store.wait_for_turn(str(upload))
        assert upload.stat().st_mtime == pytest.approx(time.time() + 32 * 30, abs=60)
        for gone in (upload.with_name("gone.png"), upload / "x.png", upload.with_name("x" * 999)):
            store.wait_for_turn(str(gone))
        all_old()
        assert not upload.exists() and not folder.exists()


def test_the_store_finds_its_own_results_alone() -> None:
    with FileStore(Limits()) as store:
        folder = store.open()
        (folder / "0").mkdir()
        (folder / "0" / "x.png").write_bytes(b"x")
        (store.results / "x.png").write_bytes(b"x")
        assert store.find(folder.name, "0", "x.png") == folder / "0" / "x.png"
        wrong = ((folder.name, "0"), (folder.name, "..", "x.png"), ("..", "x.png"), (folder.name, "0/x.png"))
        wrong += ((folder.name, ""), (folder.name, "a\0"), ("A" * 22, "x.png"))
        for words in wrong:
            assert store.find(*words) is None, words
        (upload := store.uploads / "x.png").write_bytes(b"x")
        (store.uploads / "link.png").symlink_to("/etc/hostname")
        assert store.use(str(upload)) and store.holds(str(store.uploads / "gone.png"))
        assert not store.use(str(store.uploads / "gone.png"))
        others = [folder / "0" / "x.png", store.uploads / "link.png", store.uploads / ".." / "results" / "x.png"]
        for path in [*map(str, others), "/etc/passwd", "x.png", "http://x/y", f"{upload}\0", "file://" + str(upload)]:
            assert not store.use(path) and not store.holds(path), path


# --- what comes through -----------------------------------------------------------------------------------------------


async def _through(
    request_filter: RequestFilter, method: str, path: str, body: list[bytes], **headers: str
) -> tuple[int, str]:
    """Status and text of a request."""
    scope = {"type": "http", "method": method, "path": path}
    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    pieces, got = list(body), []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": pieces.pop(0) if pieces else b"", "more_body": bool(pieces)}

    async def send_back(message: Any) -> None:
        got.append(message)

    await request_filter({**scope, "headers": given}, receive, send_back)
    return got[0]["status"], b"".join(message.get("body", b"") for message in got[1:]).decode()


def test_the_gate() -> None:
    reached: list[str] = []

    async def inner(scope: Any, receive: Any, send_back: Any) -> None:
        reached.append(scope["path"])
        more, size = True, 0
        while more:
            message = await receive()
            more, size = message["more_body"], size + len(message["body"])
        await send_back({"type": "http.response.start", "status": 200, "headers": []})
        await send_back({"type": "http.response.body", "body": str(size).encode()})

    def through(*words: Any, **headers: str) -> tuple[int, str]:
        return asyncio.run(_through(RequestFilter(inner, store, SMALL), *words, **headers))

    with FileStore(SMALL) as store:
        assert through("GET", "/", [b""]) == (200, "0")
        for path in (
            *ADDRESSES[1:],
            "/gradio_api/process_recording",
            "/gradio_api/component_server",
            "/login",
            "/redoc",
        ):
            if "file=/" not in path and "file=." not in path:  # those are Gradio's to refuse
                assert through("GET", path, [b""])[0] == 404, path
                assert through("POST", path, [b""])[0] == 404, path
        assert through("DELETE", "/", [b""])[0] == 404
        join = "/gradio_api/queue/join"
        assert through("POST", join, [b'{"da', b'ta": []}']) == (200, "12")
        assert through("POST", join, [b"{"])[0] == 400
        assert through("POST", join, [b" " * 600_000] * 2)[0] == 413
        assert through("POST", join, [b"[" * 100_000])[0] == 400
        for path in ("http://127.0.0.1/x", "/etc/passwd", "../x", "", None, 7, "\0"):
            status, text = through("POST", join, [json.dumps({"data": [[{"x": {"path": path}}]]}).encode()])
            assert status == 400 and "must be uploaded here first" in text, path
        here = {"data": [{"path": str(store.uploads / "x.png"), "url": "http://here/x"}]}
        assert through("POST", join, [json.dumps(here).encode()])[0] == 200
        (store.uploads / "x.png").touch()
        assert through("POST", join, [json.dumps({"data": [here]}).encode()])[0] == 200
        assert (store.uploads / "x.png").stat().st_mtime > time.time() + 60  # it waits in Gradio's queue
        (store.uploads / "x.png").unlink()
        for path in ("/api/x", "/api/predict/"):
            status, text = through("POST", path, [b""])
            assert status == 404 and json.loads(text) == {"error": "nothing exists at this address"}
        for method, path in (("GET", "/api/predict"), ("POST", "/health"), ("GET", "/setup"), ("DELETE", "/docs")):
            status, text = through(method, path, [b""])
            assert status == 405 and "this address answers" in json.loads(text)["error"], path
        assert through("POST", "/predict", [b"x" * 9]) == (200, "9") and through("HEAD", "/metrics", [b""])[0] == 200
        status, text = through("POST", "/predict", [bytes(2**20)] * 8)
        assert status == 413 and "send fewer tasks" in json.loads(text)["error"]
        status, text = through("POST", "/api/predict", [bytes(2**20)] * 3)
        assert status == 413 and json.loads(text)["error"].endswith("the limit of a file is 2 MB: shrink it")
        upload = "/gradio_api/upload"
        assert through("POST", upload, [bytes(2**20)] * 3)[0] == 200
        reached.clear()
        status, text = through("POST", upload, [b""], content_length=str(2**23))
        assert (status, reached) == (413, []) and text.startswith("8.0 MB came; the limit of a file is 2 MB")
        assert through("POST", upload, [bytes(2**20)] * 8)[0] == 413  # said nothing of its size


def test_uploads_at_the_same_time_share_the_room() -> None:
    limits = Limits(max_megabytes=20, max_gigabytes=0.01)

    async def inner(scope: Any, receive: Any, send_back: Any) -> None:
        (store.uploads / "another's").write_bytes(bytes(12_000_000))  # after there was room for this one
        for _ in range(8):
            await receive()
        raise AssertionError("more came in than there is room for")

    with FileStore(limits) as store:
        sent = [bytes(2**20)] * 8
        status, text = asyncio.run(_through(RequestFilter(inner, store, limits), "POST", "/gradio_api/upload", sent))
        assert status == 413 and text == FULL
        sent = [bytes(2**20)] * 8
        status, text = asyncio.run(_through(RequestFilter(inner, store, limits), "POST", "/api/predict", sent))
        assert status == 503 and json.loads(text) == {"error": FULL}


# --- the work, without models -----------------------------------------------------------------------------------------

ABOUT = About(
    name="<b>",
    classes=("sky", "<i>"),
    palette=((1, 2, 3), (4, 5, 6)),
    backbone="vit",
    structure="plain",
    dataset="scenes",
    miou=0.5,
    images=7,
    licence="<script>",
    place="cpu, fp32",
)


class Pretender:
    """A pool that writes files without looking."""

    def __init__(self, *names: str) -> None:
        self.ready = type("Ready", (), {"models": [replace(ABOUT, name=name) for name in names or ("<b>",)]})
        self.waiting = self.restarts = 0
        self.state: State = "ready"

    def states(self) -> list[State]:
        return [self.state]

    def processes(self) -> list[int]:
        return [os.getpid()]

    def close(self) -> None:
        self.state = "dead"

    def ask(self, job: Job) -> Labelled:
        if "bad" in job.name:
            raise UserError(f"{job.name}: broken")
        folder = job.folder / "0"
        folder.mkdir()
        files = [folder / (Path(job.name).stem + ending) for ending in (".png", "_overlay.png", ".json")]
        viewer, thumbnail = folder / "viewer.html", folder / "thumbnail.jpg"
        regions = folder / "regions.json" if job.controls else None
        if regions:
            regions.write_text(json.dumps([asdict(control) for control in job.controls]))
        written = [file for file, wanted in zip(files, (True, job.overlay, job.polygons), strict=True) if wanted]
        for file in (*written, *[viewer] * job.viewer, *[thumbnail] * job.thumbnail):
            file.write_text(json.dumps({"file_name": job.name}) if file == files[2] else job.name)
        seen = Seen(
            model=job.models[0],
            milliseconds=12.4,
            shares={"<i>": 0.75, "sky": 0.25},
            labels=files[0],
            overlay=files[1] if job.overlay else None,
            polygons=files[2] if job.polygons else None,
            viewer=viewer if job.viewer else None,
            thumbnail=thumbnail if job.thumbnail else None,
            agreement=None,
            regions=regions,
            score=0.5 if job.controls else None,
        )
        return Labelled(name=job.name, width=4, height=3, notes=["<u>"], seen=[seen])


@pytest.fixture
def service() -> Iterator[tuple[Service, FileStore]]:
    with FileStore(SMALL) as store:
        yield Service(Pretender(), store, SMALL), store  # type: ignore[arg-type]


def sent(store: FileStore, token: str, name: str) -> str:
    path = store.uploads / token / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("x")
    return str(path)


def test_a_batch_goes_on_where_a_photo_fails(service: tuple[Service, FileStore]) -> None:
    worker, store = service
    photos = [sent(store, "a", "x.jpg"), sent(store, "b", "bad.jpg"), sent(store, "c", "x.png")]
    *steps, last = worker.batch(photos, "<b>")
    assert [len(step.rows) for step in steps] == [3] * 4  # one object, told again and again
    assert last.archive is not None
    with zipfile.ZipFile(last.archive) as archive:
        names = archive.namelist()
        assert names[:6] == ["x.png", "x_overlay.png", "x.json", "x-2.png", "x-2_overlay.png", "x-2.json"]
        table = archive.read("shares.csv").decode().splitlines()
    assert table[0] == "photo,width,height,milliseconds,sky,<i>,error"
    assert table[1] == "x.jpg,4,3,12,0.250000,0.750000,"
    assert table[2] == "bad.jpg,,,,,,bad.jpg: broken"
    shown = [row.result.folder for row in last.rows if row.result is not None]
    assert {*store.results.iterdir()} == {last.archive.parent, *shown}
    for folder in shown:  # the rest is in the archive
        assert {path.name for path in folder.rglob("*.*")} == {"viewer.html", "thumbnail.jpg"}
    html = batch_table(last, ABOUT)
    assert "2 of 3 photos labelled, 1 failed" in html and "<i>" not in html.replace("<i style", "")
    assert html.count('class="open"') == 2 and f'src="seen/{shown[0].name}/0/thumbnail.jpg"' in html
    assert f'href="seen/{shown[1].name}/0/viewer.html"' in html and html.count("<small>&lt;u&gt;</small>") == 2


def test_rows_of_a_long_batch_are_kept(service: tuple[Service, FileStore]) -> None:
    worker, store = service
    steps = worker.batch([sent(store, token, "x.jpg") for token in "abc"], "<b>")
    next(steps)
    step = next(steps)
    assert step.rows[0].result is not None
    files = [*step.rows[0].result.folder.rglob("*.*")]
    for file in files:
        os.utime(file, (0, 0))
    store.clear(older=1)
    assert files and all(file.is_file() for file in files)
    *_, last = steps
    assert last.archive and last.archive.is_file() and all(file.stat().st_mtime > 0 for file in files)


def test_archives_of_two_models_differ_in_name() -> None:
    with FileStore(SMALL) as store:
        worker = Service(Pretender("a/one", "two"), store, SMALL)  # type: ignore[arg-type]
        photo = sent(store, "a", "x.jpg")
        archives = [[*worker.batch([photo], name)][-1].archive for name in ("a/one", "two")]
        assert [path and path.name for path in archives] == ["labels_a-one.zip", "labels_two.zip"]


def test_a_batch_keeps_photos_apart_and_those_that_wait(service: tuple[Service, FileStore]) -> None:
    worker, store = service
    photos = [sent(store, "a", "x.jpg"), sent(store, "b", "x_overlay.jpg"), sent(store, "c", "x.png")]
    steps = worker.batch(photos, "<b>")
    next(steps)
    next(steps)
    os.utime(photos[2], (0, 0))  # as if the others had taken long
    store.clear(older=1)
    *_, last = steps
    assert last.archive is not None
    with zipfile.ZipFile(last.archive) as archive:
        names = archive.namelist()
        assert len(set(names)) == len(names) == 10
        assert archive.read("x_overlay.png") == b"x.jpg" and archive.read("x_overlay-2.png") == b"x_overlay.jpg"


def test_results_take_room_too(service: tuple[Service, FileStore], monkeypatch: pytest.MonkeyPatch) -> None:
    worker, store = service
    photo = sent(store, "a", "x.jpg")
    monkeypatch.setattr(store, "room", lambda: -1)
    with pytest.raises(UserError, match=FULL):
        worker.label(photo, ["<b>"])
    assert not list(store.results.iterdir())


def test_refusals_of_the_service(service: tuple[Service, FileStore]) -> None:
    worker, store = service
    photo = sent(store, "a", "x.jpg")
    for name in ("/etc/passwd", str(store.root / "gone"), "a\0b"):
        with pytest.raises(UserError, match="send it again"):
            worker.label(name, ["<b>"])
    with pytest.raises(UserError, match=r"model other: choose from <b>"):
        worker.label(photo, ["other"])
    with pytest.raises(UserError, match="model none"):
        worker.label(photo, [])
    with pytest.raises(UserError, match=r"model \['<b>'\]: choose from <b>"):
        worker.label(photo, [["<b>"]])  # type: ignore[list-item]
    with pytest.raises(UserError, match="4 photos: give 1 to 3"):
        list(worker.batch([photo] * 4, "<b>"))
    *_, last = worker.batch([sent(store, "a", "bad.png")], "<b>")
    assert last.archive is None
    with pytest.raises(UserError, match="broken"):
        worker.label(sent(store, "a", "bad.png"), ["<b>"])
    assert not list(store.results.iterdir())


def test_what_others_wrote_is_escaped(service: tuple[Service, FileStore]) -> None:
    worker, store = service
    page = result_panels(worker.label(sent(store, "a", "<img src=x>.jpg"), ["<b>"])) + heading([ABOUT, ABOUT])
    for word in ("<b>", "<i>", "<u>", "<script>", "<img src=x>"):
        assert word not in page
    assert "mIoU 50.0 % on 7 validation images" in page and "4 × 3 px in 12 ms" in page


def test_results_are_named(service: tuple[Service, FileStore]) -> None:
    worker, store = service
    result = worker.label(sent(store, "a", "x.jpg"), ["<b>"])
    assert isinstance(result, Result) and result.folder.parent == store.results


def test_added_classes_are_served(tmp_path: Path) -> None:
    model = with_added_classes(tiny())
    model.save(tmp_path / "more.safetensors")
    Image.fromarray(render_scene(0, 48)[0]).save(tmp_path / "scene.png")
    models = load_models(Setup(models=(str(tmp_path / "more.safetensors"),), device="cpu"))
    assert models[0].about.classes == model.classes and model.classes[8:] == ("cone", "dog", "bin")
    job = Job(photo=tmp_path / "scene.png", name="scene.png", models=("more",), folder=tmp_path / "out")
    (seen,) = label(job, models, SMALL).seen
    assert {"cone", "bin"} <= seen.shares.keys() and sum(seen.shares.values()) == pytest.approx(1)
    expected = np.bincount(segvit.predict(model, tmp_path / "scene.png").labels.flatten(), minlength=11) / 48**2
    assert seen.shares == {name: pytest.approx(share) for name, share in zip(model.classes, expected) if share}


def test_examples_of_one_name(tmp_path: Path) -> None:
    from segvit.app.examples import offer_examples

    for name in ("x.png", "x.bmp"):
        Image.new("RGB", (8, 8), "red" if name == "x.png" else "blue").save(tmp_path / name)
    (folder := tmp_path / "offered").mkdir()
    offered, _ = offer_examples(Setup(models=("m",), examples=tmp_path), folder, Limits())
    assert [path.name for path in offered] == ["x.jpg", "x.jpg"]
    blue, red = (Image.open(path).convert("RGB").getpixel((0, 0)) for path in offered)
    assert blue != red


def test_examples_of_a_run_wherever_the_page_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from segvit.app.examples import offer_examples

    for name in ("photos", "masks", "runs/one", "elsewhere/photos", "elsewhere/masks"):
        (tmp_path / name).mkdir(parents=True)
    for number in range(4):
        Image.new("RGB", (8, 8), "red").save(tmp_path / "photos" / f"{number}.png")
        Image.new("L", (8, 8)).save(tmp_path / "masks" / f"{number}.png")
    settings = "data: {images: photos, labels: masks, classes: [a, b], val_fraction: 0.5}\n"
    (tmp_path / "runs/one/config.yaml").write_text(settings)
    (model := tmp_path / "runs/one/best.safetensors").touch()
    monkeypatch.chdir(tmp_path / "elsewhere")  # has folders of these names, but not those of the run
    (offered_to := tmp_path / "offered").mkdir()
    offered, note = offer_examples(Setup(models=(str(model),)), offered_to, Limits())
    assert len(offered) == 2 and Image.open(offered[0]).convert("RGB").getpixel((0, 0))[0] > 200  # type: ignore[index]
    assert note.endswith(f"config.yaml, whose paths start in {tmp_path}")
    (tmp_path / "photos").rename(tmp_path / "moved")
    offered, note = offer_examples(Setup(models=(str(model),)), offered_to, Limits())
    assert not offered and "photos" in note and note.endswith("give a folder of photos with --examples")


# --- start and end ----------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken() -> None:
    with listen("127.0.0.1", 0) as place:
        port = place.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} of 127.0.0.1 cannot be opened"), listen("127.0.0.1", port):
            pass
    with pytest.raises(UserError, match=r"--host nowhere.invalid"), listen("nowhere.invalid", 0):
        pass
    with pytest.raises(UserError, match="--port 70000"), listen("127.0.0.1", 70_000):
        pass


def test_paths_of_a_proxy() -> None:
    assert [checked_root_path(text) for text in ("", "/", "/seg", "/a/b-1/")] == ["", "", "/seg", "/a/b-1"]
    assert checked_root_path("/predictor") == "/predictor"
    for own in ("/api", "/docs/x", "/health"):
        with pytest.raises(UserError, match="addresses of its own there"):
            checked_root_path(own)
    for wrong in ("seg", "http://x/seg", "/a b", "/seg?x", "//"):
        if wrong.rstrip("/"):
            with pytest.raises(UserError, match=r"--root-path .*: give the path .* such as /seg"):
                checked_root_path(wrong)


def test_a_proxy_may_pass_its_path_on_or_not() -> None:
    for path, inside in (("/seg/", "/"), ("/seg/assets/a b.js", "/assets/a b.js"), ("/other/", "/other/")):
        assert below({"path": path}, "/seg")["path"] == inside
    assert below({"path": "/seg/a b"}, "/seg")["raw_path"] == b"/a%20b"
    for path in ("/segment/", "/seg"):
        assert below({"path": path}, "/seg")["path"] == path
    assert below({"path": "/seg/"}, "")["path"] == "/seg/"


def test_without_gradio(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError("No module named 'gradio'")

    monkeypatch.setattr(need, "import_module", missing)
    with pytest.raises(UserError, match=r"pip install 'segvit\[app\]'"):
        run_app(Setup(models=("x",)), Limits(), host="127.0.0.1", port=0)
