"""The Space starts as the Hugging Face Hub starts it, and labels a photo with a tiny model."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.newcomer import make_folder

ROOT = Path(__file__).resolve().parents[2]
APP = ROOT / "deploy" / "space" / "app.py"
STARTS_WITHIN = 120
"""Seconds."""
BOUNDARY = "segvit"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@pytest.fixture
def space(tmp_path: Path) -> Iterator[tuple["subprocess.Popen[str]", int, Path]]:
    """The files of the Space with a model, started; its port and its folder."""
    pytest.importorskip("gradio")
    folder = tmp_path / "space"
    folder.mkdir()
    make_folder(tmp_path)
    (folder / "app.py").write_bytes(APP.read_bytes())
    (tmp_path / "best.safetensors").rename(folder / "model.safetensors")
    port = free_port()
    own = {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=folder,
        env={**os.environ, **own, "PYTHONPATH": str(ROOT), "SEGVIT_MODEL": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process, port, tmp_path
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


@pytest.mark.slow
def test_space_labels_a_photo(space: tuple["subprocess.Popen[str]", int, Path]) -> None:
    process, port, folder = space
    until = time.monotonic() + STARTS_WITHIN
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as page:
                assert "segvit" in page.read().decode().lower()
                assert "frame-ancestors" not in page.headers["content-security-policy"]  # the Hub shows it in a frame
                assert "x-frame-options" not in page.headers
            break
        except (urllib.error.URLError, TimeoutError):
            assert process.poll() is None, process.stdout and process.stdout.read()
            assert time.monotonic() < until, "the page is not there"
            time.sleep(1)
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="photo"; filename="photo.jpg"\r\n\r\n'
    body = head.encode() + (folder / "photo.jpg").read_bytes() + f"\r\n--{BOUNDARY}--\r\n".encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/predict",
        data=body,
        headers={"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "Accept": "image/png"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.headers["content-type"] == "image/png" and answer.read().startswith(b"\x89PNG")


@pytest.mark.slow
def test_space_without_a_model_says_so(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_bytes(APP.read_bytes())
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SEGVIT_MODEL": ""}
    done = subprocess.run([sys.executable, "app.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "model.safetensors" in done.stderr and "Traceback" not in done.stderr
