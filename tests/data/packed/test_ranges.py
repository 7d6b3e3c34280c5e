"""Shards on a web server, read by Range requests: samples, bounded attempts, and servers without ranges."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from segvit.config import DataConfig
from segvit.data.dataset import open_dataset
from segvit.data.packed import ranges
from segvit.data.packed.ranges import fetch_range, measure, shown
from segvit.errors import UserError
from tests.helpers.packed import made_files, write_shards


class Server(ThreadingHTTPServer):
    """Files by their path, and how many of the next requests go wrong, and how."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: list[str] = []
        self.requests: list[str] = []
        self.ranges = True

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.server.requests.append(f"{self.path} {wanted}")
        content = self.server.files.get(self.path.partition("?")[0])
        fault = self.server.faults.pop(0) if self.server.faults else ""
        if fault == "drops":
            self.close_connection = True
            return
        if fault or content is None:
            self.send_error(int(fault) if fault.isdecimal() else 404)
            return
        begin, _, end = wanted.removeprefix("bytes=").partition("-")
        part = content[int(begin) : int(end) + 1] if self.server.ranges else content
        self.send_response(206 if self.server.ranges else 200)
        if self.server.ranges:
            self.send_header("Content-Range", f"bytes {begin}-{end}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", f'"{len(content)}"')
        self.end_headers()
        self.wfile.write(part)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """A server on this machine; waits between attempts are short."""
    monkeypatch.setenv("SEGVIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(ranges, "FIRST_WAIT", 0.001)
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield found
        finally:
            found.shutdown()
            thread.join()


def test_remote_shards_give_the_samples_of_local_ones(server: Server, tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", made_files(6), size=3)
    for path in (tmp_path / "shards").iterdir():
        server.files[f"/{path.name}"] = path.read_bytes()
    settings: dict[str, Any] = {"classes": ("a", "b", "c"), "val_fraction": 0}
    local = open_dataset(DataConfig(shards=str(tmp_path / "shards"), **settings), "train")
    config = DataConfig(shards=f"{server.address}/{{000000..000001}}.tar?key=secret", **settings)
    remote = open_dataset(config, "train")
    assert len(remote) == len(local) == 6
    for index in range(6):
        assert torch.equal(remote.read(index).image, local.read(index).image)
        assert torch.equal(remote.read(index).labels, local.read(index).labels)
        assert remote.read(index).name == local.read(index).name
    assert remote.describe(4) == f"{server.address}/000001.tar: 04.jpg with {server.address}/000001.tar: 04.png"
    server.requests.clear()
    open_dataset(config, "train")
    assert len(server.requests) == 2, "headers are kept: one request per shard asks for its size"
    server.files["/000001.tar"] += bytes(512)
    with pytest.raises(UserError, match=r"000001\.tar: had \d+ bytes and has \d+ now"):
        remote.read(4)


@pytest.mark.parametrize("faults", [["503"], ["drops", "429"], ["500", "502", "drops"]])
def test_passing_faults_are_survived(server: Server, faults: list[str]) -> None:
    server.files["/x.tar"] = bytes(range(200))
    server.faults = list(faults)
    assert fetch_range(f"{server.address}/x.tar", 10, 5, total=200) == bytes(range(10, 15))
    assert len(server.requests) == len(faults) + 1


def test_attempts_are_bounded(server: Server) -> None:
    server.faults = ["503"] * 20
    with pytest.raises(UserError, match=r"x\.tar: no answer in 4 attempts \(HTTP status 503\)"):
        measure(f"{server.address}/x.tar?key=secret")
    assert len(server.requests) == ranges.ATTEMPTS
    with pytest.raises(UserError, match=r"x\.tar: HTTP status 404") as caught:
        server.faults = []
        measure(f"{server.address}/x.tar?key=secret")
    assert "secret" not in str(caught.value)
    assert len(server.requests) == ranges.ATTEMPTS + 1, "a missing file is not asked for again"


def test_a_server_that_does_not_listen_or_knows_no_ranges_is_refused(server: Server) -> None:
    server.files["/x.tar"] = bytes(2000)
    server.ranges = False
    with pytest.raises(UserError, match=r"x\.tar: the server does not answer Range requests \(status 200\); download"):
        measure(f"{server.address}/x.tar")
    with pytest.raises(UserError, match=r"no answer in 4 attempts"):
        measure("http://127.0.0.1:9/x.tar")


def test_secrets_are_not_shown() -> None:
    assert shown("https://user:password@host:8/a/b.tar?token=1#x") == "https://host:8/a/b.tar"
