"""The server for programs: keys, health, metrics, the description of the API, a proxy's path, and the end."""

import asyncio
import json
import re
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from segvit.app.messages import Job, Labelled
from segvit.app.serving.front import ENDING, Front, Stopping
from segvit.app.serving.graceful import graceful_server
from segvit.app.serving.keys import ApiKeys
from segvit.app.serving.metrics import BUCKETS, MEDIA_TYPE, NO_ANSWER, Family, Metrics
from segvit.app.serving.refusals import Ended
from segvit.app.serving.routes import OPEN, ROUTES, route_of
from segvit.prediction.polygons import coco
from tests.app.test_app import ABOUT, SMALL, Pretender
from tests.app.test_keys import ONE, basic
from tests.helpers.app_client import client_of, server_of
from tests.helpers.prometheus import Sample, parse

FORM = (
    '<View><Image name="img" value="$photo"/><BrushLabels name="brush" toName="img"><Label value="sky"/></BrushLabels>'
    "</View>"
)
IMAGE = "data:image/png;base64,eA=="
BODIES: dict[str, dict[str, Any]] = {
    "/api/predict": {"files": {"photo": ("street.jpg", b"x")}},
    "/setup": {"json": {"project": "1.5", "schema": FORM, "hostname": "http://studio", "access_token": "x"}},
    "/predict": {"json": {"tasks": [{"id": 3, "data": {"photo": IMAGE}}], "label_config": FORM, "params": {}}},
    "/versions": {"json": {"project": "1.5"}},
    "/webhook": {"json": {"action": "ANNOTATION_CREATED"}},
}
"""A request for each address that takes a body."""


class Tracer(Pretender):
    """A pool that writes outlines as a worker does."""

    def ask(self, job: Job) -> Labelled:
        labelled = super().ask(job)
        labels = np.array([[0, 0, 1], [0, 1, 1]])
        for polygons in (seen.polygons for seen in labelled.seen if seen.polygons):
            polygons.write_text(json.dumps(coco(labels, ABOUT.classes, file_name=job.name)))
        return labelled


@pytest.fixture(scope="module")
def pool() -> Pretender:
    return Tracer("one", "two")


@pytest.fixture(scope="module")
def client(pool: Pretender) -> Iterator[Any]:
    """A client of a server with a key, below /segvit."""
    pytest.importorskip("gradio")
    from segvit.app.server import Access

    with server_of(pool, SMALL, Access(keys=ApiKeys([ONE]), root_path="/segvit")) as server:
        yield client_of(server)


KEY = {"X-API-Key": ONE}


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "/segvit"])
def test_each_address_but_health_needs_a_key(client: Any, prefix: str) -> None:
    addresses = [(method, path) for path, methods in ROUTES.items() for method in methods]
    pages = [("GET", path) for path in ("/", "/config", "/gradio_api/info", "/seen/x/0/y.png", "/nothing")]
    for method, path in (*addresses, *pages, ("POST", "/gradio_api/upload")):
        answer = client.request(method, prefix + path)
        if path in OPEN:
            assert answer.status_code == 200
            continue
        assert answer.status_code == 401, path
        assert answer.json().keys() == {"error"} and "Authorization: Bearer KEY" in answer.json()["error"]
        assert 'Basic realm="segvit"' in answer.headers["www-authenticate"]
    for wrong in ({"X-API-Key": "x"}, {"Authorization": f"Bearer {ONE[:-1]}"}, {"Authorization": basic("user:x")}):
        answer = client.get(f"{prefix}/api/models", headers=wrong)
        assert answer.status_code == 401 and ONE[:-1] not in answer.text


def test_both_headers_and_the_password_are_accepted(client: Any) -> None:
    for right in (KEY, {"Authorization": f"Bearer {ONE}"}, {"Authorization": basic(f"me:{ONE}")}):
        assert client.get("/api/models", headers=right).status_code == 200
        page = client.get("/segvit/", headers=right)
        assert page.status_code == 200 and re.search(r'"root": ?"http://testserver/segvit"', page.text)
    answer = client.post("/api/predict", files={"photo": ("street.jpg", b"x")}, headers=KEY)
    assert (answer.status_code, answer.text) == (200, "street.jpg")


# --- health and metrics -----------------------------------------------------------------------------------------------


def test_health_follows_the_workers(client: Any, pool: Pretender, monkeypatch: pytest.MonkeyPatch) -> None:
    for state, status in (("ready", 200), ("busy", 200), ("dead", 503), ("loading", 503), ("ready", 200)):
        monkeypatch.setattr(pool, "state", state)
        answer = client.get("/health")
        told = answer.json()
        assert answer.status_code == status and told["alive"] is True
        assert (told["ready"], told["status"]) == ((True, "UP") if status == 200 else (False, "DOWN"))
        assert told["workers"] == {"loading": 0, "ready": 0, "busy": 0, "dead": 0} | {state: 1}
        assert told["models"] == ["one", "two"]


def scraped(client: Any) -> dict[str, list[Sample]]:
    answer = client.get("/metrics", headers=KEY)
    assert answer.status_code == 200 and answer.headers["content-type"] == MEDIA_TYPE
    return parse(answer.text)


def value(families: dict[str, list[Sample]], family: str, **labels: str) -> float:
    samples = [each for each in families.get(family, []) if each.name == family]
    return sum(each.value for each in samples if labels.items() <= each.labels.items())


def test_metrics_count_requests(client: Any, pool: Pretender) -> None:
    before = scraped(client)
    for _ in range(3):
        client.get("/segvit/api/models", headers=KEY)
    client.get("/api/models")
    client.get(f"/nothing/{'x' * 40}", headers=KEY)
    pool.restarts, pool.waiting = 2, 5
    after = scraped(client)

    def grown(family: str, **labels: str) -> float:
        return value(after, family, **labels) - value(before, family, **labels)

    assert grown("segvit_requests_total", route="/api/models", status="200") == 3
    assert grown("segvit_requests_total", route="/api/models", status="401") == 1
    assert grown("segvit_requests_total", route="other", status="404") == 1
    assert grown("segvit_requests_total") == 6  # with the first look
    assert value(after, "segvit_requests_in_flight") == 1 == value(after, "segvit_requests_in_flight", route="/metrics")
    assert value(after, "segvit_worker_restarts_total") == 2
    assert value(after, "segvit_queue_length", name="workers") == 5
    assert value(after, "segvit_workers", state="ready") == 1
    assert value(after, "segvit_resident_memory_bytes", process="server") > 10**7
    assert value(after, "segvit_resident_memory_bytes", process="worker 0") > 10**7
    seconds = [each for each in after["segvit_request_seconds"] if each.labels["route"] == "/api/models"]
    buckets = [each for each in seconds if each.name.endswith("_bucket")]
    assert [each.labels["le"] for each in buckets][-2:] == ["120", "+Inf"] and len(buckets) == len(BUCKETS) + 1
    counts = [each.value for each in buckets]
    (total,) = [each.value for each in seconds if each.name.endswith("_count")]
    assert counts == sorted(counts) and counts[-1] == total == value(
        after, "segvit_requests_total", route="/api/models"
    )
    (spent,) = [each.value for each in seconds if each.name.endswith("_sum")]
    assert 0 < spent < 60


def test_metrics_of_known_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.1, 10.0, 10.1001, 20.0, 320.0])  # at a bound, above it, above all
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    metrics = Metrics()
    for status in (200, 200, None):
        with metrics.request("/x") as answered:
            if status:
                answered(status)
    odd = Family("segvit_odd", "gauge", "Odd.", {(("name", 'a"b\\c\nd'),): 0.25})
    families = parse(metrics.text([odd]))
    (sample,) = families["segvit_odd"]
    assert (sample.labels, sample.value) == ({"name": 'a"b\\c\nd'}, 0.25)
    assert value(families, "segvit_requests_total", status=str(NO_ANSWER)) == 1
    counts = {each.labels.get("le"): each.value for each in families["segvit_request_seconds"]}
    assert (counts["0.05"], counts["0.1"], counts["0.25"], counts["120"], counts["+Inf"]) == (0, 1, 2, 2, 3)


def test_the_parser_of_the_tests_can_fail() -> None:
    head = "# HELP a A.\n# TYPE a counter\n"
    for wrong in ("a 1\n", head + "a{x=1} 1\n", head + "a one\n", head + "b 1\n", head + "a 1\na 1\n", head + "a 1"):
        with pytest.raises(AssertionError):
            parse(wrong)


def test_few_names_of_routes() -> None:
    assert route_of("/api/predict") == "/api/predict" and route_of("/seen/token/0/x.png") == "/seen"
    assert route_of("/gradio_api/queue/data") == "/gradio_api" and route_of("/assets/x.js") == "/"
    assert {route_of(path) for path in ("/api/x", "/wp-login.php", "/health/", "")} == {"other"}


# --- the description of the API ---------------------------------------------------------------------------------------


def test_a_client_made_from_the_description_works(client: Any) -> None:
    """Each operation is asked as the description says, and each answer is checked against its schema."""
    described = client.get("/openapi.json", headers=KEY).json()
    assert described["openapi"] == "3.1.0" and described["servers"] == [{"url": "/segvit"}]
    found = {(path, method.upper()) for path, methods in described["paths"].items() for method in methods}
    assert found == {(path, method) for path, methods in ROUTES.items() for method in methods}
    names = [each["operationId"] for methods in described["paths"].values() for each in methods.values()]
    assert len(set(names)) == len(names) and all(name.isidentifier() for name in names)
    ways = {name for each in described["security"] for name in each}
    assert ways == described["components"]["securitySchemes"].keys()
    for schema in described["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            _ask_each_way(client, described, path, method, operation)


def _ask_each_way(client: Any, described: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> None:
    address = described["servers"][0]["url"] + path
    body = BODIES[path] if "requestBody" in operation else {}
    if "json" in body:
        (schema,) = [content["schema"] for content in operation["requestBody"]["content"].values()]
        check(described, schema, body["json"])
    queries: list[dict[str, str]] = [{}]
    queries += [{each["name"]: word} for each in operation.get("parameters", ()) for word in each["schema"]["enum"]]
    for query in queries:
        answer = client.request(method.upper(), address, params=query, headers=KEY, **body)
        assert answer.status_code == 200, (address, query, answer.text)
        validate(described, operation, answer)
    if operation.get("security") != []:
        refused = client.request(method.upper(), address, **body)
        assert refused.status_code == 401
        validate(described, operation, refused)
    if operation.get("requestBody", {}).get("required") and path != "/webhook":
        refused = client.request(method.upper(), address, headers=KEY, content=b"{")
        assert refused.status_code in (400, 415)
        validate(described, operation, refused)


def validate(described: dict[str, Any], operation: dict[str, Any], answer: Any) -> None:
    contents = operation["responses"][str(answer.status_code)]["content"]
    kind = answer.headers["content-type"]
    schema = contents.get(kind, contents.get(kind.partition(";")[0]))["schema"]
    if kind == "application/json":
        check(described, schema, answer.json())
    else:
        assert schema["type"] == "string" and answer.content


def check(described: dict[str, Any], schema: dict[str, Any], content: Any) -> None:
    """Check a value, and that each object has no property that the schema does not name."""
    Draft202012Validator({**schema, "components": described["components"]}).validate(content)
    found = schema
    while "$ref" in found:
        found = described["components"]["schemas"][found["$ref"].rpartition("/")[2]]
    if isinstance(content, dict) and "properties" in found:
        assert content.keys() <= found["properties"].keys(), content.keys() - found["properties"].keys()


def test_the_page_of_the_description(client: Any) -> None:
    answer = client.get("/segvit/docs", headers=KEY)
    assert answer.headers["content-type"].startswith("text/html")
    for path in ROUTES:
        assert path in answer.text
    assert 'href="openapi.json"' in answer.text and "polygons.annotations[].bbox" in answer.text
    assert "<script" not in answer.text and "src=" not in answer.text and "http://" not in answer.text


# --- the end ----------------------------------------------------------------------------------------------------------


def test_what_runs_is_finished_and_nothing_new_begins() -> None:
    """A server on a real port gets SIGTERM in the middle of a request."""
    uvicorn = pytest.importorskip("uvicorn")
    told: dict[str, Any] = {}

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await asyncio.sleep(0.5 if scope["path"] == "/slow" else 0)
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
            await send({"type": "http.response.body", "body": b"done"})

    async def ask(port: int, method: str, path: str) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
        text = (await asyncio.wait_for(reader.read(2000), 5)).decode()
        writer.close()
        return text

    async def story(seconds: float) -> None:
        stopping = Stopping(seconds)
        front = Front(inner, keys=ApiKeys(), metrics=Metrics(), stopping=stopping)
        config = uvicorn.Config(front, port=0, log_level="critical", timeout_graceful_shutdown=1, lifespan="off")
        server = graceful_server(
            config, stopping, running=lambda: front.posts, give_up=lambda: told.update(given_up=True)
        )
        running = asyncio.create_task(server._serve())  # serve() would put the signals of the tests aside
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        slow = asyncio.create_task(ask(port, "POST", "/slow"))
        await asyncio.sleep(0.1)
        server.handle_exit(signal.SIGTERM, None)
        told["new"] = await ask(port, "POST", "/quick")
        told["slow"] = await slow
        await asyncio.wait_for(running, 5)

    asyncio.run(story(5))
    assert told["slow"].startswith("HTTP/1.1 200") and told["slow"].endswith("done")
    assert told["new"].startswith("HTTP/1.1 503") and ENDING in told["new"] and "retry-after: 10" in told["new"]
    assert "given_up" not in told
    asyncio.run(story(0.1))  # shorter than the request takes
    assert told["given_up"]


def test_health_while_the_server_stops() -> None:
    stopping = Stopping(60)
    reached: list[str] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["path"])

    async def send(message: Any) -> None:
        pass

    front = Front(inner, keys=ApiKeys(), metrics=Metrics(), stopping=stopping)
    assert not stopping.begun and not stopping.overdue
    stopping.begin()
    for path in ("/health", "/metrics", "/api/predict", "/"):
        scope = {"type": "http", "method": "GET", "path": path, "headers": []}
        asyncio.run(front(scope, send, send))  # type: ignore[arg-type]
    assert reached == ["/health", "/metrics"] and stopping.begun and not stopping.overdue
    assert Ended.status == 503


def test_answers_of_label_studio_are_json(client: Any) -> None:
    answer = client.post("/predict", headers=KEY, content=b"[" * 100_000)
    assert answer.status_code == 400
    assert json.loads(answer.text)["error"].startswith("the body of the request is no JSON")


def test_text_that_is_no_unicode_is_quoted(client: Any) -> None:
    """JSON may hold half of a surrogate pair, which UTF-8 cannot hold."""
    for path, content, said in (
        ("/setup", {"schema": "<View>\ud800</View>"}, "is no XML"),
        ("/predict", {"tasks": [{"data": {"photo": "\ud800.png"}}], "label_config": FORM}, "--label-studio-url"),
    ):
        answer = client.post(path, headers=KEY, content=json.dumps(content).encode())
        assert answer.status_code == 400 and said in answer.json()["error"]


def test_other_sites_cannot_read_answers(client: Any) -> None:
    """A browser that keeps the password would send it along."""
    for path in ("/", "/config", "/gradio_api/info", "/api/models"):
        answer = client.get(path, headers={**KEY, "Host": "segvit.example", "Origin": "http://elsewhere.example"})
        assert answer.status_code == 200
        assert not [name for name in answer.headers if name.startswith("access-control-")], path


@pytest.mark.parametrize("answers", [False, True])
def test_a_client_that_leaves_is_counted_without_a_trace(answers: bool) -> None:
    requests = pytest.importorskip("starlette.requests")
    messages = [{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}]
    metrics = Metrics()

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        pass

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] == "http.request":
            continue
        if answers:  # as the layer does that catches all errors
            await send({"type": "http.response.start", "status": 500, "headers": []})
        raise requests.ClientDisconnect if scope["path"] == "/predict" else ValueError("broken")

    front = Front(inner, keys=ApiKeys(), metrics=metrics, stopping=Stopping(1))
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": []}
    again = [*messages]
    asyncio.run(front(scope, receive, send))
    assert 'segvit_requests_total{route="/predict",status="499"} 1' in metrics.text()
    messages += again
    with pytest.raises(ValueError, match="broken"):
        asyncio.run(front({**scope, "path": "/setup"}, receive, send))
    assert front.posts == 0


def test_a_second_signal_ends_what_runs() -> None:
    uvicorn = pytest.importorskip("uvicorn")
    stopping, given_up = Stopping(60), []

    async def inner(*_: Any) -> None:
        pass

    server = graceful_server(
        uvicorn.Config(inner), stopping, running=lambda: 1, give_up=lambda: given_up.append(stopping.begun)
    )
    server.handle_exit(signal.SIGTERM, None)
    assert stopping.begun and not given_up and not server.should_exit
    server.handle_exit(signal.SIGTERM, None)
    assert given_up == [True] and server.should_exit
