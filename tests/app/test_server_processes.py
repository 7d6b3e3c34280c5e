"""The server with keys, below the path of a proxy: in a browser, in `ps`, and at its end. Real processes, slow."""

import http.client
import http.server
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.app_robustness import Server, serving
from benchmarks.hostile import picture
from tests.app.test_keys import ONE, TWO
from tests.helpers import browser as browsers
from tests.helpers.axe import serious_faults
from tests.helpers.browser import Visit
from tests.helpers.tiny import labelling_model

browser, visit = browsers.browser, browsers.visit  # fixtures
pytestmark = pytest.mark.slow
ROOT = "/segvit"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "street.safetensors"
    labelling_model(image_size=32, patch_size=8).save(path)
    return path


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a key of a file and one of the environment, below a path."""
    pytest.importorskip("gradio")
    (file := tmp_path_factory.mktemp("keys") / "keys.txt").write_text(f"{ONE}\n")
    os.environ["SEGVIT_API_KEYS"] = TWO
    flags = ["--port", "0", "--root-path", ROOT, "--api-keys-file", str(file), "--stop-seconds", "30"]
    try:
        with serving(model, flags=flags) as running:
            yield running
    finally:
        os.environ.pop("SEGVIT_API_KEYS")
    assert ONE not in "".join(running.said) and TWO not in "".join(running.said)


class Proxy(http.server.BaseHTTPRequestHandler):
    """Passes requests below ROOT on, with the path cut off; all others are not found."""

    def answer(self) -> None:
        if not self.path.startswith(f"{ROOT}/"):
            self.send_error(404)
            return
        port = self.server.behind  # type: ignore[attr-defined]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        connection.request(self.command, self.path.removeprefix(ROOT), body, headers)
        response = connection.getresponse()
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in ("transfer-encoding", "connection"):
                self.send_header(name, value)
        self.end_headers()  # without a length, the end of the connection is the end of the answer
        while piece := response.read1(65536):
            self.wfile.write(piece)
            self.wfile.flush()
        connection.close()

    do_GET = do_POST = do_HEAD = answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(server: Server) -> Iterator[str]:
    """Address of the page behind a proxy."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        proxy.behind = int(server.address.rpartition(":")[2])  # type: ignore[attr-defined]
        proxy.daemon_threads = True
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_port}{ROOT}"
        proxy.shutdown()


def test_the_page_with_a_key_below_a_path(address: str, visit: Callable[..., Visit], tmp_path: Path) -> None:
    seen = visit()
    page = seen.page.context.browser.new_context(http_credentials={"username": "me", "password": ONE}).new_page()
    (photo := tmp_path / "street.png").write_bytes(picture("PNG", side=96))
    page.goto(f"{address}/")
    page.locator("#photo input[type=file]").wait_for(state="attached", timeout=60_000)
    page.set_input_files("#photo input[type=file]", [str(photo)])
    page.locator("#result iframe").wait_for(timeout=60_000)
    inside = page.frame_locator("#result iframe")
    inside.locator(".viewer[data-ready]").wait_for(timeout=60_000)
    assert inside.locator(".viewer-title").inner_text() == "street.png"
    with page.expect_download() as waiting:
        page.locator("#result footer").get_by_text("Polygons").click()
    assert Path(waiting.value.path()).stat().st_size > 100
    page.get_by_role("tab", name="API").click()
    example = page.locator(".programs pre").first
    example.wait_for()
    assert f'"{address}/api/predict?model=street"' in example.inner_text()
    page.goto(f"{address}/docs")
    assert page.locator("h2").first.inner_text() == "POST /api/predict"
    page.locator("summary").first.click()
    assert not serious_faults(page)
    page.get_by_role("link", name="the same as OpenAPI").click()
    assert page.url == f"{address}/openapi.json"
    page.context.close()


def test_the_page_without_a_key(address: str, visit: Callable[..., Visit]) -> None:
    seen = visit()
    answer = seen.page.goto(f"{address}/health")
    assert answer is not None and answer.status == 200
    answer = seen.page.request.get(f"{address}/")
    assert answer.status == 401 and "needs a key" in answer.json()["error"]


def test_the_api_below_a_path(address: str) -> None:
    import httpx

    for key in (ONE, TWO):
        headers = {"Authorization": f"Bearer {key}"}
        described = httpx.get(f"{address}/openapi.json", headers=headers).json()
        assert described["servers"] == [{"url": ROOT}]
        answer = httpx.post(
            f"{address}/api/predict", headers=headers, files={"photo": ("a.png", picture())}, timeout=60
        )
        assert answer.status_code == 200 and answer.content.startswith(b"\x89PNG")


def test_no_process_shows_a_key(server: Server) -> None:
    top = psutil.Process(server.process.pid)
    workers = top.children(recursive=True)
    for process in (top, *workers):
        assert ONE not in " ".join(process.cmdline()) and TWO not in " ".join(process.cmdline())
    for process in workers:
        assert TWO not in process.environ().values()


def test_sigterm_lets_a_photo_finish(server: Server) -> None:
    """The last test of this server, which it ends."""
    import httpx

    answers: list[Any] = []
    headers = {"X-API-Key": ONE}

    def ask() -> None:
        photo = {"photo": ("a.png", picture("PNG", side=400))}
        answers.append(httpx.post(f"{server.address}/api/predict", headers=headers, files=photo, timeout=60))

    waiting = [threading.Thread(target=ask) for _ in range(3)]
    for thread in waiting:
        thread.start()
    queued = 'segvit_queue_length{name="api"} 3'
    end = time.monotonic() + 30
    while queued not in httpx.get(f"{server.address}/metrics", headers=headers).text and time.monotonic() < end:
        time.sleep(0.01)
    server.process.send_signal(signal.SIGTERM)
    statuses = []
    for _ in range(100):
        try:
            refused = httpx.get(f"{server.address}/api/models", headers=headers)
        except httpx.TransportError:  # it has ended
            break
        statuses.append(refused.status_code)
        if refused.status_code == 503:
            assert "is stopping" in refused.json()["error"] and refused.headers["retry-after"]
            assert httpx.get(f"{server.address}/health").json()["stopping"] is True
            break
        time.sleep(0.02)
    assert 503 in statuses
    for thread in waiting:
        thread.join(60)
    assert [answer.status_code for answer in answers] == [200] * 3
    assert server.process.wait(30) == 0
