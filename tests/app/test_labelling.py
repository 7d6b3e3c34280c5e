"""Label Studio's and CVAT's requests, in the forms that their documentation shows, and what they get."""

import base64
import http.server
import io
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from segvit.app.file_store import FileStore
from segvit.app.labelling import cvat_folder, images
from segvit.app.labelling.controls import read_form
from segvit.app.labelling.cvat import CvatFunction
from segvit.app.labelling.cvat_folder import settings_of, write_function
from segvit.app.labelling.images import LabelStudio, fetch
from segvit.app.labelling.label_studio import Backend
from segvit.app.labelling.regions import regions_for
from segvit.app.limits import Limits
from segvit.app.messages import Control
from segvit.app.service import Service
from segvit.app.serving.api import Predictor
from segvit.app.serving.refusals import Refusal, SlowUpload, Unreachable, WrongRequest
from segvit.data.annotations.brush import decode_brush, encode_brush
from segvit.data.spec import load_spec
from segvit.errors import UserError
from segvit.inference.exported import ExportedModel
from segvit.prediction.annotations.annotated import trace
from segvit.prediction.annotations.cvat_shapes import cvat_shapes
from segvit.prediction.photo import Prediction
from segvit.weights.names import MODELS
from tests.app.test_app import SMALL, Pretender
from tests.helpers.tiny import labelling_model

CLASSES = ("background", "Car", "road")
BOTH = """<View>
  <Image name="img" value="$photo" zoom="true"/>
  <Header value="Paint"/>
  <BrushLabels name="brush" toName="img"><Label value="car" background="#f00"/><Label value="tree"/></BrushLabels>
  <PolygonLabels name="outline" toName="img">
    <Label value="Road" alias="r"/><Label value="Car"/><Label value="Background"/>
  </PolygonLabels>
</View>"""
BRUSH = '<BrushLabels name="b" toName="a">'


# --- the labelling configuration --------------------------------------------------------------------------------------


def test_controls_and_labels_are_matched_with_classes() -> None:
    form = read_form(BOTH, CLASSES)
    assert form.key == "photo"
    assert form.controls == (
        Control(kind="brushlabels", name="brush", to_name="img", labels={1: "car"}),
        Control(kind="polygonlabels", name="outline", to_name="img", labels={2: "r"}),
    )
    exact = (
        '<View><Image name="a" value="$a"/><BrushLabels name="b" toName="a"><Label value="CAR"/><Label value="Car"/>'
    )
    assert read_form(f"{exact}</BrushLabels></View>", CLASSES).controls[0].labels == {1: "Car"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "is no XML text"),
        ("", "is no XML text"),
        ("x" * 1_000_001, "is no XML text"),
        ("<View>", "is no XML .no element found"),
        ("<View>\ud800</View>", "is no XML"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><View>&a;</View>', "has a document type"),
        ("<View/>", "has no <Image"),
        ('<View><Image name="a" value="a.png"/></View>', "has no <Image"),
        (
            '<View><Image name="a" value="$a"/><RectangleLabels name="b" toName="a"/></View>',
            "no <BrushLabels> or <PolygonLabels> labels the image; it has RectangleLabels",
        ),
        (BOTH.replace('toName="img"', 'toName="other"'), "no <BrushLabels> or <PolygonLabels> labels the image"),
        (
            BOTH.replace("car", "a").replace("Car", "b").replace("Road", "c"),
            "the labels are a, tree, c, b, Background; the classes are background, Car, road",
        ),
    ],
)
def test_configurations_that_do_not_fit(text: Any, said: str) -> None:
    with pytest.raises(WrongRequest, match=said):
        read_form(text, CLASSES)


def test_a_deep_configuration_is_read_in_one_pass() -> None:
    """Labels inside 60,000 elements took minutes while each was searched for its control."""
    deep = "<a>" * 60_000 + '<Label value="Car"/>' * 20_000 + "</a>" * 60_000
    begin = time.process_time()
    with pytest.raises(WrongRequest, match="no label is a class"):
        read_form(f'<View><Image name="a" value="$a"/>{BRUSH}</BrushLabels>{deep}</View>', CLASSES)
    assert time.process_time() - begin < 10
    nested = f'<View><Image name="a" value="$a"/>{BRUSH}<View><Label value="Car"/></View></BrushLabels></View>'
    assert read_form(nested, CLASSES).controls[0].labels == {1: "Car"}


# --- where images come from -------------------------------------------------------------------------------------------


def test_only_files_of_that_label_studio_are_asked_for() -> None:
    source = LabelStudio(url="http://studio:8080/ls/")
    for text, address in (
        ("/data/upload/1/a.jpg", "http://studio:8080/ls/data/upload/1/a.jpg"),
        ("/ls/data/upload/1/a.jpg", "http://studio:8080/ls/data/upload/1/a.jpg"),
        ("/data/local-files/?d=set/a%20b.jpg", "http://studio:8080/ls/data/local-files/?d=set/a%20b.jpg"),
        ("http://studio:8080/ls/data/upload/1/a.jpg", "http://studio:8080/ls/data/upload/1/a.jpg"),
        ("http://studio:8080/ls/tasks/7/resolve/?fileuri=czM6", "http://studio:8080/ls/tasks/7/resolve/?fileuri=czM6"),
    ):
        assert source.address_of(text) == address
    for text in (
        "http://elsewhere/data/upload/1/a.jpg",
        "https://studio:8080/ls/data/upload/1/a.jpg",
        "http://studio/ls/data/upload/1/a.jpg",
        "http://studio:8081/ls/data/upload/1/a.jpg",
        "http://studio:80800000/ls/data/upload/1/a.jpg",
        "http://studio:8080@elsewhere/ls/data/upload/1/a.jpg",
        "http://user:word@studio:8080/ls/data/upload/1/a.jpg",
        "http://studio.elsewhere:8080/ls/data/upload/1/a.jpg",
        "//elsewhere/data/upload/1/a.jpg",
        "s3://bucket/a.jpg",
        "file:///data/upload/a.jpg",
        "/api/users",
        "/data/../api/users",
        "/data/%2e%2e/api/users",
        "/data/..\\api",
        "/database/a.jpg",
        "data/upload",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1/ls/data/a.jpg",
        "http://[studio]/ls/data/a.jpg",
        "http://@studio:8080/ls/data/a.jpg",
        "/data/\ud800.jpg",
    ):
        if text == "data/upload":
            assert source.address_of(text).endswith("/ls/data/upload")
            continue
        with pytest.raises(WrongRequest, match=r"is asked for images|are fetched|no address"):
            source.address_of(text)
    for wrong in (
        "studio:8080",
        "ftp://studio",
        "http://",
        "http://user@studio",
        "http://:zebra@studio",
        "http://studio/?x",
        "http://studio/#x",
        "http://studio:port",
        "http://[::1",
    ):
        with pytest.raises(UserError, match="--label-studio-url") as caught:
            LabelStudio(url=wrong)
        assert "zebra" not in str(caught.value)
    with pytest.raises(UserError, match=r"LABEL_STUDIO_API_KEY. is empty or has spaces") as caught:
        LabelStudio(url="http://studio", token="zebra crossing")
    assert "zebra" not in str(caught.value)


class Studio(http.server.BaseHTTPRequestHandler):
    """A Label Studio that gives a file to those with a token."""

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization")))  # type: ignore[attr-defined]
        if "redirect" in self.path:
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:1/x")
            self.end_headers()
        elif self.headers.get("Authorization") not in ("Token legacy", "Bearer minutes"):
            self._send(401, b"")
        else:
            self._send(404 if "missing" in self.path else 200, bytes(3 * 2**20) if "large" in self.path else b"photo")

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        right = self.path == "/api/token/refresh" and sent == {"refresh": "a.b.c"}
        self._send(200 if right else 401, json.dumps({"access": "minutes"} if right else {}).encode())

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def studio() -> Iterator[Any]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Studio) as server:
        server.asked = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_images_are_fetched_with_the_token(studio: Any, tmp_path: Path) -> None:
    pytest.importorskip("httpx")
    url = f"http://127.0.0.1:{studio.server_port}"
    for token in ("legacy", "a.b.c"):
        source = LabelStudio(url=url, token=token)
        path = fetch({"photo": "/data/upload/1/a%20b.jpg"}, "photo", source, tmp_path, SMALL)
        assert path.read_bytes() == b"photo" and path == tmp_path / "a_b.jpg"
    assert [header for _, header in studio.asked[-2:]] == ["Token legacy", "Bearer minutes"]
    source = LabelStudio(url=url, token="legacy")
    for text, kind, said in (
        ("/data/missing.jpg", Unreachable, "answers 404 for /data/missing.jpg"),
        ("/data/redirect.jpg", Unreachable, "redirects /data/redirect.jpg to another server"),
        ("/data/large.jpg", WrongRequest, "large.jpg is too large: the limit is 2 MB"),
    ):
        with pytest.raises(kind, match=said):
            fetch({"photo": text}, "photo", source, tmp_path, SMALL)
    for token in (None, "wrong", "d.e.f"):
        with pytest.raises(Unreachable, match="refuses") as caught:
            fetch({"photo": "/data/a.jpg"}, "photo", LabelStudio(url=url, token=token), tmp_path, SMALL)
        assert token is None or token not in str(caught.value)
    with pytest.raises(Unreachable, match=r"cannot be reached .ConnectError."):
        fetch({"photo": "/data/a.jpg"}, "photo", LabelStudio(url="http://127.0.0.1:1"), tmp_path, SMALL)


def test_a_proxy_is_not_asked_for_what_is_here(studio: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("httpx")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    here = LabelStudio(url=f"http://127.0.0.1:{studio.server_port}", token="legacy")
    assert fetch({"photo": "/data/a.jpg"}, "photo", here, tmp_path, SMALL).read_bytes() == b"photo"
    urls = ("http://localhost:8080", "http://[::1]:8080", "http://10.0.0.1", "http://studio")
    assert [LabelStudio(url=url).is_here for url in urls] == [True, True, False, False]


def test_a_slow_download_is_given_up(studio: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("httpx")
    monkeypatch.setattr(images, "LONGEST", -1)
    source = LabelStudio(url=f"http://127.0.0.1:{studio.server_port}", token="legacy")
    with pytest.raises(Unreachable, match=r"needs more than -1 s for a\.jpg"):
        fetch({"photo": "/data/a.jpg"}, "photo", source, tmp_path, SMALL)


def test_images_that_come_as_text(tmp_path: Path) -> None:
    text = "data:image/png;base64," + base64.b64encode(b"photo").decode()
    assert fetch({"image": text}, "image", None, tmp_path, SMALL).read_bytes() == b"photo"
    for data, said in (
        ({}, "has no image under 'image'"),
        (None, "has no image under 'image'"),
        ({"image": 7}, "has no image under 'image'"),
        ({"image": "data:image/png,abc"}, "is text without base64"),
        ({"image": "data:image/png;base64,%%%"}, "is no base64"),
        ({"image": "data:image/png;base64,\u00e4"}, "is no base64"),
        ({"image": "data:image/png;base64," + "A" * 3_000_000}, "is too large: the limit is 2 MB"),
        ({"image": "/data/upload/a.jpg"}, "start the server with --label-studio-url"),
        ({"image": "http://elsewhere/a.jpg"}, "start the server with --label-studio-url"),
    ):
        with pytest.raises(WrongRequest, match=said):
            fetch(data, "image", None, tmp_path, SMALL)


# --- Label Studio's requests ------------------------------------------------------------------------------------------


class Request:
    """A request with a body."""

    def __init__(self, content: object) -> None:
        self._content = content

    async def body(self) -> bytes:
        return self._content if isinstance(self._content, bytes) else json.dumps(self._content).encode()

    async def stream(self) -> AsyncIterator[bytes]:
        yield await self.body()


@pytest.fixture
def backend() -> Iterator[Backend]:
    with FileStore(SMALL) as store:
        made = Backend(Service(Pretender("one", "two"), store, SMALL), store, None)  # type: ignore[arg-type]
        yield made
        assert not [*store.uploads.iterdir(), *store.results.iterdir()]  # all is deleted


SKY = BOTH.replace('value="car"', 'value="sky"')
RECORDED = {
    "tasks": [
        {
            "id": 112,
            "data": {"photo": "data:image/png;base64,eA=="},
            "meta": {},
            "created_at": "2024-04-18T19:17:00.000000Z",
            "updated_at": "2024-04-18T19:17:00.000000Z",
            "is_labeled": False,
            "overlap": 1,
            "project": 5,
            "annotations": [],
            "predictions": [],
        }
    ],
    "project": "5.1713467820",
    "label_config": SKY,
    "params": {"login": None, "password": None, "context": None},
}
"""A request in the form of Label Studio 1.12."""


def run(action: Any, content: object) -> Any:
    import asyncio

    return asyncio.run(action(Request(content)))


def test_recorded_requests_of_label_studio(backend: Backend, capsys: pytest.CaptureFixture[str]) -> None:
    setup = {"project": "5.17", "schema": SKY, "hostname": "http://studio", "access_token": "x", "extra_params": None}
    assert run(backend.setup, setup) == {"model_version": "one"}
    assert run(backend.versions, {"project": "5.17"}) == {"versions": ["one", "two"]}
    assert "nothing is trained" in run(backend.webhook, {"action": "PROJECT_UPDATED"})["message"]
    for version, model in ((None, "one"), ("two", "two"), ("INITIAL", "one")):
        answer = run(backend.predict, {**RECORDED, "model_version": version})
        assert answer["model_version"] == model
        (prediction,) = answer["results"]
        assert (prediction["model_version"], prediction["score"]) == (model, 0.5)
        (control,) = prediction["result"]  # the pool writes what it was asked for
        assert control == asdict(Control(kind="brushlabels", name="brush", to_name="img", labels={0: "sky"})) | {
            "labels": {"0": "sky"}
        }
    assert capsys.readouterr().err == "Label Studio asks for INITIAL, which is not on this server: one answers\n"


def test_a_slow_upload_gives_its_place_back() -> None:
    import asyncio

    from starlette.requests import Request as Upload

    async def never() -> dict[str, Any]:
        await asyncio.sleep(60)
        raise AssertionError

    headers = [(b"content-type", b"multipart/form-data; boundary=x")]
    upload = Upload({"type": "http", "method": "POST", "headers": headers, "query_string": b""}, never)
    limits = replace(SMALL, timeout=0.05)
    with FileStore(limits) as store:
        service = Service(Pretender("one"), store, limits)  # type: ignore[arg-type]
        backend, predictor = Backend(service, store, None), Predictor(service, store)
        with pytest.raises(SlowUpload, match=r"longer than 0\.05 seconds"):
            asyncio.run(backend.predict(upload))
        answer = asyncio.run(predictor.answer(upload))
        assert answer.status_code == 408 and b"longer than 0.05 seconds" in answer.body
        assert (backend.waiting, predictor.waiting) == (0, 0) and not [*store.uploads.iterdir()]


def test_a_task_that_fails_leaves_the_others(backend: Backend, capsys: pytest.CaptureFixture[str]) -> None:
    bad = {"id": 113, "data": {"photo": "http://elsewhere/a.jpg"}}
    answer = run(backend.predict, {**RECORDED, "tasks": [*RECORDED["tasks"], bad, "x"]})
    assert [bool(each["result"]) for each in answer["results"]] == [True, False, False]
    assert answer["results"][1]["error"].startswith("task 113: the image is at http://elsewhere")
    assert "task 113" in capsys.readouterr().err
    with pytest.raises(WrongRequest, match="--label-studio-url"):
        run(backend.predict, {**RECORDED, "tasks": [bad]})


def test_requests_that_are_malformed(backend: Backend) -> None:
    for content, said in (
        (b"{", "is no JSON"),
        (b"[]", "is no JSON object"),
        (b'{"tasks": [NaN]}', "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        ({}, "`tasks` is no list"),
        ({"tasks": []}, "`tasks` is no list of 1 to 100"),
        ({"tasks": [{}] * 101}, "`tasks` is no list of 1 to 100"),
        ({"tasks": [{}]}, "configuration is no XML text"),
        ({"tasks": [{}], "label_config": BOTH}, "no label is a class of the model"),
    ):
        with pytest.raises(WrongRequest, match=said):
            run(backend.predict, content)
    assert backend.waiting == 0
    backend.waiting = SMALL.queue
    for content in (RECORDED, b"{"):  # before the body is read
        with pytest.raises(Refusal, match="requests wait already"):
            run(backend.predict, content)
    assert backend.waiting == SMALL.queue


# --- regions ----------------------------------------------------------------------------------------------------------


def prediction(labels: np.ndarray, classes: tuple[str, ...] = CLASSES) -> Prediction:
    confidence = np.linspace(0, 1, labels.size, dtype=np.float32).reshape(labels.shape)
    return Prediction(
        image=np.zeros((*labels.shape, 3), np.uint8),
        labels=labels.astype(np.int64),
        classes=classes,
        palette=tuple((number, 0, 0) for number in range(len(classes))),
        confidence=confidence,
    )


def blocks(seed: int = 0) -> np.ndarray:
    """A label map of squares, some of which enclose others."""
    generator = np.random.default_rng(seed)
    labels = np.kron(generator.integers(0, 3, (4, 5)), np.ones((6, 6), int))
    labels[7:11, 8:16], labels[8:10, 10:12] = 2, 1
    return labels


def test_brushes_and_polygons_give_the_label_map_back() -> None:
    labels = blocks()
    result = prediction(labels)
    controls = read_form(BOTH, CLASSES).controls
    found = regions_for(controls, result, name="a.jpg")
    assert {(each["from_name"], each["to_name"], each["type"]) for each in found} == {
        ("brush", "img", "brushlabels"),
        ("outline", "img", "polygonlabels"),
    }
    (brush,) = [each for each in found if each["type"] == "brushlabels"]
    assert brush["value"]["brushlabels"] == ["car"] and brush["value"]["format"] == "rle"
    mask = decode_brush(brush["value"]["rle"], labels.shape, "x")
    assert np.array_equal(mask, labels == 1)
    assert result.confidence is not None
    assert brush["score"] == pytest.approx(float(result.confidence[labels == 1].mean()), abs=1e-4)
    polygons = [each for each in found if each["type"] == "polygonlabels"]
    assert all(each["value"]["polygonlabels"] == ["r"] and each["value"]["closed"] for each in polygons)
    assert len({each["id"] for each in found}) == len(found)
    assert found == regions_for(controls, result, name="a.jpg")  # the same ids
    points = np.array(polygons[0]["value"]["points"])
    assert points.min() >= 0 and points.max() <= 100 and brush["original_width"] == labels.shape[1]


def reference_brush(mask: np.ndarray) -> list[int]:
    """Bit by bit: each pixel is a block of four words that repeat."""
    bits = f"{4 * mask.size:032b}" + f"{7:05b}" + "".join(f"{width - 1:04b}" for width in (3, 4, 8, 16))
    for pixel in mask.ravel():
        bits += "1" + "00" + "011" + ("11111111" if pixel else "00000000")
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]


def test_brush_masks_of_any_size() -> None:
    generator = np.random.default_rng(0)
    for size in ((1, 1), (3, 5), (40, 60), (200, 300)):
        for share in (0, 0.02, 0.5, 1):
            mask = generator.random(size) < share
            runs = encode_brush(mask)
            assert np.array_equal(decode_brush(runs, size, "x"), mask)
            if mask.size < 3000:
                assert np.array_equal(decode_brush(reference_brush(mask), size, "x"), mask)
    # The first bytes of an export of Label Studio, of an image of 3332 x 2527 pixels.
    assert encode_brush(np.zeros((2527, 3332), bool))[:6] == [2, 1, 233, 240, 57, 27]
    assert len(encode_brush(np.zeros((2527, 3332), bool))) < 2000


def test_masks_of_cvat_give_the_label_map_back() -> None:
    labels = blocks(1)
    result = prediction(labels)
    item = trace(labels, CLASSES, image=Path("a"), stem="a", tolerance=0, confidence=result.confidence)
    shapes = cvat_shapes(item, CLASSES)
    painted = np.zeros_like(labels)
    for shape in shapes:
        *bits, left, top, right, bottom = shape["mask"]
        box = np.array(bits).reshape(bottom - top + 1, right - left + 1)
        assert shape["type"] == "mask" and set(bits) <= {0, 1} and box.any(0).all() and box.any(1).all()
        inside = painted[top : bottom + 1, left : right + 1]
        assert not inside[box == 1].any()
        inside[box == 1] = CLASSES.index(shape["label"])
        points = np.array(shape["points"]).reshape(-1, 2)
        assert (points.min(0) == (left, top)).all() and (points.max(0) == (right + 1, bottom + 1)).all()
        assert 0 <= float(shape["confidence"]) <= 1
    assert np.array_equal(painted, labels)
    kept = cvat_shapes(item, CLASSES, threshold=0.5)
    assert kept == [shape for shape in shapes if float(shape["confidence"]) >= 0.5] and 0 < len(kept) < len(shapes)


# --- CVAT's function --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "Street scenes.safetensors"
    labelling_model(image_size=32, patch_size=8).save(path)
    return path


class Context:
    """What Nuclio gives to a function."""

    def __init__(self) -> None:
        self.user_data = type("UserData", (), {})()

    def Response(self, **given: Any) -> dict[str, Any]:
        return given


def test_a_function_for_cvat(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "function"
    written = write_function(str(model), folder)
    assert sorted(path.name for path in written) == ["function.yaml", "main.py", "model.safetensors"]
    settings = yaml.safe_load((folder / "function.yaml").read_text())
    assert settings["metadata"]["name"] == "segvit-street-scenes"
    annotations = settings["metadata"]["annotations"]
    assert (annotations["name"], annotations["type"]) == ("Street scenes", "detector")
    classes = load_spec("shapes").classes
    spec = json.loads(annotations["spec"])
    assert {each["name"] for each in spec} <= set(classes) and {each["type"] for each in spec} == {"mask"}
    (install,) = [each["value"] for each in settings["spec"]["build"]["directives"]["preCopy"] if each["kind"] == "RUN"]
    assert "pip install" in install and "segvit" in install
    names: dict[str, Any] = {"__file__": str(folder / "main.py")}
    exec((folder / "main.py").read_text(), names)
    context = Context()
    names["init_context"](context)
    generator = np.random.default_rng(0)
    Image.fromarray(generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(content := io.BytesIO(), "PNG")
    event = type("Event", (), {"body": {"image": base64.b64encode(content.getvalue()).decode()}})
    answer = names["handler"](context, event)
    assert (answer["status_code"], answer["content_type"]) == (200, "application/json")
    shapes = json.loads(answer["body"])
    assert shapes and {shape["label"] for shape in shapes} <= {each["name"] for each in spec}
    event.body = {"image": "%%%"}  # type: ignore[attr-defined]
    answer = names["handler"](context, event)
    assert answer["status_code"] == 400 and "is no base64" in json.loads(answer["body"])["error"]
    with pytest.raises(UserError, match="is not an empty folder"):
        write_function(str(model), folder)


def test_a_function_of_an_openvino_model_has_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Exported(ExportedModel):
        def __init__(self, path: Path) -> None:
            torch.nn.Module.__init__(self)
            self.path = path

        @property
        def files(self) -> tuple[Path, ...]:
            return (self.path, self.path.with_suffix(".bin"))

    for suffix in (".xml", ".bin"):
        (tmp_path / f"street{suffix}").write_text(suffix)
    monkeypatch.setattr(cvat_folder, "load_network", lambda name, *, device: Exported(Path(name)))
    monkeypatch.setattr(cvat_folder, "classes_of", lambda network: (CLASSES, None))
    folder = tmp_path / "function"
    write_function(str(tmp_path / "street.xml"), folder)
    assert [(folder / f"model{suffix}").read_text() for suffix in (".xml", ".bin")] == [".xml", ".bin"]
    assert 'with_name("model.xml")' in (folder / "main.py").read_text()
    assert "segvit[openvino]" in (folder / "function.yaml").read_text()
    assert set(cvat_folder.EXTRAS) == set(MODELS)


def test_requests_of_cvat_that_are_malformed(model: Path) -> None:
    function = CvatFunction(str(model), device="cpu", limits=Limits(max_megabytes=0.01))
    for body, said in (
        (b"x", "is no object"),
        ({}, "has no image"),
        ({"image": 7}, "has no image"),
        ({"image": "A" * 20_000}, "is too large"),
        ({"image": "aGVsbG8="}, "image is not a photo"),
        ({"image": "\u00e4"}, "is no base64"),
        ({"image": "aGVsbG8=", "threshold": 10**400}, "threshold 1000.*: give a number"),
        ({"image": "aGVsbG8=", "threshold": "0.5"}, "threshold 0.5: give a number"),
        ({"image": "aGVsbG8=", "threshold": 2}, "threshold 2: give a number"),
        ({"image": "aGVsbG8=", "threshold": float("nan")}, "threshold nan: give a number"),
    ):
        with pytest.raises(UserError, match=said):
            function.answer(body)


def test_names_and_packages_of_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cvat_folder, "version", lambda name: "1.2.3")
    settings = settings_of(("background", "Bäume"), name="Ä ö / x", extra="export")
    assert settings["metadata"]["name"] == "segvit-x" and "Bäume" in settings["metadata"]["annotations"]["spec"]
    install = settings["spec"]["build"]["directives"]["preCopy"][1]["value"]
    assert install == "pip install --no-cache-dir 'segvit[export]==1.2.3'"
    with pytest.raises(UserError, match="no class besides the background"):
        settings_of(("background",), name="x")
    assert images.TOKEN == "LABEL_STUDIO_API_KEY"
