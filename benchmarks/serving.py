"""Requests per second, time to an answer and memory of `segvit app` under load, beside a naive server.

    python benchmarks/serving.py [--model MODEL] [--requests 200] [--at-once 16] [--side 512] [--rounds 3]

The naive server is what most people write first: a FastAPI route that loads the model once and predicts inside the
request. Both get the same photos, by turns, from as many clients as `--at-once` says. Both return the shares of the
classes as JSON; segvit app adds the outlines. Each server runs in processes of its own, with the same number of
threads. An answer is an error if its status is not 200. Memory is the largest sum over the processes of a server.
Run it on a machine with nothing else to do. Without a model: a ViT-Tiny with random weights.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.app_robustness import ROOT, serving, tiny_model
from benchmarks.hostile import picture
from segvit.utils.device import available_cores

NAIVE = """
import io, sys
import uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image
import segvit
from segvit.weights.load import load_network

model = load_network(sys.argv[1], device="cpu")
app = FastAPI()

@app.post("/predict")
def predict(photo: UploadFile):
    result = segvit.predict(model, Image.open(io.BytesIO(photo.file.read())).convert("RGB"))
    return {"shares": result.shares()}

uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")
"""
"""The naive server, whole."""
PHOTOS = 8
"""Number of different photos."""
SAMPLE = 0.1
"""Seconds between two looks at the memory."""


@dataclass
class Load:
    """Outcome of one round of requests."""

    seconds: float
    times: list[float]
    """Seconds of each answer that is no error."""
    errors: int
    memory: float
    """Largest sum over the processes in MB."""


@dataclass
class Target:
    """A server that can be asked."""

    name: str
    address: str
    process: int
    loads: list[Load] = field(default_factory=list)


def ask_all(target: Target, photos: Sequence[bytes], requests: int, at_once: int) -> Load:
    """Send all requests, and return what came of them."""
    times: list[float] = []
    errors = 0
    clients = [httpx.Client(timeout=600) for _ in range(at_once)]
    free = [*clients]
    lock = threading.Lock()

    def one(number: int) -> None:
        nonlocal errors
        with lock:
            client = free.pop()
        begin = time.perf_counter()
        try:
            answer = client.post(target.address, files={"photo": ("photo.png", photos[number % len(photos)])})
            fine = answer.status_code == 200 and "shares" in answer.json()
        except httpx.HTTPError:
            fine = False
        seconds = time.perf_counter() - begin
        with lock:
            free.append(client)
            if fine:
                times.append(seconds)
            else:
                errors += 1

    with watched(target.process) as peak, ThreadPoolExecutor(at_once) as pool:
        begin = time.perf_counter()
        list(pool.map(one, range(requests)))
        total = time.perf_counter() - begin
    for client in clients:
        client.close()
    return Load(total, times, errors, peak[0])


@contextmanager
def watched(process: int) -> Iterator[list[float]]:
    """Yield a list whose one number is the largest memory of a process and those below it, in MB."""
    peak, ended = [memory_of(process)], threading.Event()

    def watch() -> None:
        while not ended.wait(SAMPLE):
            peak[0] = max(peak[0], memory_of(process))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def memory_of(process: int) -> float:
    """Memory of a process and of all below it in MB."""
    total = 0
    for each in (top := psutil.Process(process), *top.children(recursive=True)):
        try:
            total += each.memory_info().rss
        except psutil.Error:  # it has ended
            continue
    return total / 2**20


@contextmanager
def naive(model: Path, threads: int) -> Iterator[Target]:
    """The naive server in a process of its own."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", NAIVE, str(model), str(port)], env=environment)
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 300
        while True:
            try:
                httpx.get(f"{address}/docs")
                break
            except httpx.TransportError:
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit("the naive server does not start") from None
                time.sleep(0.2)
        yield Target("naive FastAPI route", f"{address}/predict", process.pid)
    finally:
        process.terminate()
        process.wait(30)


def row(target: Target) -> list[str]:
    """A line of the table: medians over the rounds."""
    rate = statistics.median(len(load.times) / load.seconds for load in target.loads)
    times = sorted(seconds for load in target.loads for seconds in load.times)
    at = [f"{times[min(int(share * len(times)), len(times) - 1)]:.2f}" if times else "-" for share in (0.5, 0.95)]
    errors = sum(load.errors for load in target.loads)
    return [target.name, f"{rate:.2f}", *at, str(errors), f"{max(load.memory for load in target.loads):.0f}"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="default: a tiny one with random weights")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--side", type=int, default=512, help="side of the photos in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="--concurrency of segvit app")
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    threads = max(available_cores() // options.workers, 1)
    photos = [picture("PNG", side=options.side + 8 * number) for number in range(PHOTOS)]
    flags = ["--port", "0", "--queue", str(max(options.at_once, 32)), "--concurrency", str(options.workers)]
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or tiny_model(Path(folder))
        with serving(model, flags=flags, threads=threads) as server, naive(model, threads) as simple:
            app = Target("segvit app", f"{server.address}/api/predict?format=json", server.process.pid)
            targets = (app, simple)
            for target in targets:  # the first requests are slower
                ask_all(target, photos, options.at_once, options.at_once)
            for _ in track(range(options.rounds), description="rounds"):
                for target in targets:
                    target.loads.append(ask_all(target, photos, options.requests, options.at_once))
    table = Table("server", "requests/s", "median, s", "95 %, s", "errors", "memory, MB")
    table.title = f"{options.requests} requests, {options.at_once} at once, photos of {options.side} px and more"
    for target in targets:
        table.add_row(*row(target))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
