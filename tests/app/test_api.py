"""The API of `segvit app`: one request, one answer, and the statuses of refusals; without models."""

import io
import os
import re
from collections.abc import Iterator
from dataclasses import fields
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from segvit.app.file_store import FileStore
from segvit.app.limits import Limits
from segvit.app.messages import Job, Labelled
from segvit.app.service import Service
from segvit.app.serving.api import models_of
from segvit.app.serving.api_html import ANSWERS, CURL, PARAMETERS, PYTHON, programs
from segvit.app.serving.refusals import STATUSES, Refusal, ServerFault, TooSlow
from segvit.errors import UserError
from tests.app.test_app import SMALL, Pretender

PHOTO = {"photo": ("street.jpg", b"x" * 100)}


class Moody(Pretender):
    """A pool that fails as the name of the photo says."""

    def ask(self, job: Job) -> Labelled:
        for word, error in (("slow", TooSlow), ("fault", ServerFault), ("unread", UserError)):
            if word in job.name:
                raise error(f"{job.name}: {word}")
        return super().ask(job)


@pytest.fixture(scope="module")
def store() -> Iterator[FileStore]:
    with FileStore(SMALL) as store:
        yield store


@pytest.fixture(scope="module")
def service(store: FileStore) -> Service:
    return Service(Moody("one", "two"), store, SMALL)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def client(store: FileStore, service: Service) -> Iterator[Any]:
    """A client of the page below /seg, without a port."""
    pytest.importorskip("gradio")
    from starlette.testclient import TestClient

    from segvit.app.server import Access, make_server

    before = dict(os.environ)
    os.environ["GRADIO_TEMP_DIR"] = str(store.uploads)
    yield TestClient(make_server(service, store, [], Access(root_path="/seg")).config.app)
    os.environ.clear()
    os.environ.update(before)


def post(client: Any, address: str = "/api/predict", files: Any = PHOTO, **options: Any) -> Any:
    return client.post(address, files=files, **options)


def test_the_format_is_chosen_by_address_or_header(client: Any, store: FileStore) -> None:
    plain = post(client)
    assert (plain.status_code, plain.headers["content-type"], plain.text) == (200, "image/png", "street.jpg")
    for address, accept, kind in (
        ("?format=json", "image/png", "json"),
        ("?model=two&format=png", "application/json", "png"),
        ("", "application/json", "json"),
        ("", "text/html, application/json;q=0.5, image/*;q=0.9", "png"),
        ("", "application/*;q=0.2, image/png;q=x", "json"),
        ("", "text/html,*/*;q=0.1", "png"),
    ):
        answer = post(client, f"/api/predict{address}", headers={"accept": accept})
        assert answer.status_code == 200 and answer.headers["content-type"].endswith(kind), (address, accept)
    facts = post(client, "/api/predict?format=json&model=two").json()
    polygons = facts.pop("polygons")
    assert facts.pop("model") == "two" and polygons == {"file_name": "street.jpg"}
    assert facts == {
        "width": 4,
        "height": 3,
        "milliseconds": 12.4,
        "shares": {"<i>": 0.75, "sky": 0.25},
        "notes": ["<u>"],
    }
    assert not [*store.uploads.iterdir(), *store.results.iterdir()]  # all is deleted


@pytest.mark.parametrize(
    ("status", "said", "options"),
    [
        (
            400,
            "parameter formt in the address: the parameters are model and format",
            {"address": "/api/predict?formt=png"},
        ),
        (400, "format=jpg: choose from png, json", {"address": "/api/predict?format=jpg"}),
        (400, "model three: choose from one, two", {"address": "/api/predict?model=three"}),
        (
            400,
            "no file in the field photo .file came.: send it as .* curl -F photo=@photo.jpg",
            {"files": {"file": b"x"}},
        ),
        (400, "no file in the field photo .text came.", {"files": {"photo": (None, "photo.jpg")}}),
        (400, "field model: a form has one field, photo; parameters go in the address", {"data": {"model": "two"}}),
        (400, "the form cannot be read .Too many files", {"files": [("photo", b"x"), ("photo", b"y")]}),
        (404, "nothing exists at this address", {"address": "/api/predict/"}),
        (406, "Accept: text/html: give image/png or application/json", {"headers": {"accept": "text/html"}}),
        (415, "the body of the request is no form", {"files": None, "content": b"x"}),
        (413, "the limit of a file is 2 MB: shrink it", {"files": {"photo": bytes(3 * 2**20)}}),
        (422, "unread.jpg: unread", {"files": {"photo": ("unread.jpg", b"x")}}),
        (500, "fault.jpg: fault", {"files": {"photo": ("fault.jpg", b"x")}}),
        (504, "slow.jpg: slow", {"files": {"photo": ("slow.jpg", b"x")}}),
    ],
)
def test_refusals(client: Any, store: FileStore, status: int, said: str, options: dict[str, Any]) -> None:
    answer = post(client, **options)
    assert answer.status_code == status and status in STATUSES
    assert answer.json().keys() == {"error"} and re.search(said, answer.json()["error"]), answer.json()
    assert not [*store.uploads.iterdir(), *store.results.iterdir()]


def test_the_guide_and_the_page_list_statuses_and_limits(client: Any, service: Service) -> None:
    answer = client.get("/api/predict")
    assert answer.status_code == 405 in STATUSES and answer.headers["allow"] == "POST"
    assert {kind.status for kind in Refusal.__subclasses__()} < STATUSES.keys()
    guide = (Path(__file__).resolve().parents[2] / "docs" / "app.md").read_text()
    plain = guide.replace("`", "")
    told = unescape(programs("one"))
    assert dict(re.findall(r"^\| (\d{3}) \| (.*) \|$", plain, re.MULTILINE)) == {str(k): v for k, v in STATUSES.items()}
    for status, reason in STATUSES.items():
        assert f"<code>{status}</code></dt><dd>{reason}</dd>" in told
    for field in fields(Limits):
        flag, default = field.name.replace("_", "-"), f"{field.default:g}"
        assert re.search(rf"^\| --{flag} \| {default}( s)? \|", plain, re.MULTILINE), flag
    keys = post(client, "/api/predict?format=json").json().keys()
    for key in (*keys, *dict(PARAMETERS), *dict(ANSWERS)):
        assert f"`{key}`" in guide and key in told, key
    assert models_of(service)["limits"] == {"megabytes": 2, "megapixels": 1, "seconds": 60, "waiting": 32}


def test_a_photo_that_waits_is_kept(client: Any, service: Service, store: FileStore, monkeypatch: Any) -> None:
    """However long other photos take, and whatever it waits in."""
    found = []

    def late(photo: str, models: list[str], **_: object) -> Any:
        for place in (store.uploads, Path(photo).parent, Path(photo)):
            os.utime(place, (0, 0))
        store.clear(older=1)
        found.append(Path(photo).read_bytes())
        raise TooSlow("late")

    monkeypatch.setattr(service, "label", late)
    assert post(client).status_code == 504 and found == [b"x" * 100]
    assert not [*store.uploads.iterdir()]


def test_names_that_lead_elsewhere(client: Any, store: FileStore) -> None:
    for name in ("../../x.png", "/etc/x.png", "C:\\up\\x.png", "..", "..?", "..$", "a" * 400 + ".png", "x\0.png", ""):
        answer = post(client, files={"photo": (name, b"x")}) if name else post(client, files={"photo": ("", b"x")})
        assert answer.status_code in (200, 400), (name, answer.text)
        assert answer.status_code == 400 or "/" not in answer.text
    assert not [*store.uploads.iterdir(), *store.results.iterdir()]


def test_a_full_server_says_when_to_come_again(
    client: Any, service: Service, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = iter([10**9, -1])
    monkeypatch.setattr(store, "room", lambda: next(rooms))
    answer = post(client)
    assert answer.status_code == 503 and answer.headers["retry-after"] == "10"
    monkeypatch.undo()
    monkeypatch.setattr(service, "limits", SimpleNamespace(queue=0))
    answer = post(client)
    assert answer.status_code == 503 and "0 requests wait already" in answer.json()["error"]


def test_the_models_are_listed(client: Any) -> None:
    told = client.get("/api/models").json()
    assert [about["name"] for about in told["models"]] == ["one", "two"]
    assert told["models"][0]["classes"] == ["sky", "<i>"] and told["limits"]["megabytes"] == 2


def test_below_the_path_of_a_proxy(client: Any) -> None:
    """With the path cut off by the proxy, or passed on: the page asks for its parts below it."""
    for address in ("/", "/seg/"):
        page = client.get(address)
        assert page.status_code == 200
        assert re.search(r'"root": ?"http://testserver/seg"', page.text), address
    assert post(client, "/seg/api/predict").text == "street.jpg"


def test_the_examples_run(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx
    from PIL import Image

    asked: list[dict[str, Any]] = []

    def answering(address: str, **options: Any) -> Any:
        asked.append({"address": address, **options})
        answer = client.post(address.removeprefix("http://here"), params=options["params"], files=options["files"])
        Image.new("P", (5, 4)).save(drawn := io.BytesIO(), format="PNG")
        return httpx.Response(answer.status_code, content=drawn.getvalue())

    monkeypatch.setattr(httpx, "post", answering)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.jpg").write_bytes(b"x")
    known: dict[str, Any] = {}
    exec(PYTHON.format(origin="http://here", model="two"), known)
    assert known["labels"].shape == (4, 5) and asked[0]["params"]["model"] == "two"
    for line in CURL.format(origin="http://here", model="two").splitlines():
        address = re.search(r'"http://here(.*)"', line)
        assert address and post(client, address[1]).status_code == 200
    assert "<b>" not in programs("<b>") and '"model": "two"' in unescape(programs("two"))
