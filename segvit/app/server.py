"""Run the page: open the port, the folder, the workers and the server, and clean up everything at Ctrl-C.

run_app(Setup(models=("best.safetensors",)), Limits(), host="127.0.0.1", port=7860)
"""

import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

from segvit.app.file_store import FileStore
from segvit.app.labelling.images import LabelStudio
from segvit.app.labelling.label_studio import add_label_studio
from segvit.app.limits import Limits
from segvit.app.messages import About, Setup
from segvit.app.page import gradio, look_of, make_page
from segvit.app.service import Service
from segvit.app.serving.api import add_api
from segvit.app.serving.asgi import is_loopback
from segvit.app.serving.front import Front, Stopping
from segvit.app.serving.graceful import graceful_server
from segvit.app.serving.health import add_health
from segvit.app.serving.keys import ApiKeys
from segvit.app.serving.metrics import Metrics
from segvit.app.serving.openapi import add_schema
from segvit.app.serving.request_filter import RequestFilter
from segvit.app.serving.routes import ROUTES
from segvit.app.worker_pool import WorkerPool
from segvit.errors import UserError
from segvit.utils.text import counted, percentage

ROOT_PATH = re.compile(r"(/[\w.~-]+)+", re.ASCII)
OWN_PATHS = ("/api", "/assets", "/static", "/gradio_api", *ROUTES)
"""Addresses of the server itself, which a proxy's path must not begin with."""
GRACE = 3
"""Seconds that open connections get to finish at the end."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """Access to the server, and of the server to others."""

    keys: ApiKeys = field(default_factory=ApiKeys)
    """Keys of which a request needs one. If there are none, every request is answered."""
    label_studio: LabelStudio | None = None
    """Label Studio that images may be fetched from."""
    root_path: str = ""
    """Path below which a proxy serves the page, such as "/seg"."""


def run_app(setup: Setup, limits: Limits, *, host: str, port: int, access: Access = Access()) -> None:
    """Serve the page until Ctrl-C, SIGTERM, or the end of its terminal.

    Args:
        setup: models and their device.
        limits: limits of what visitors may ask for.
        host: address to listen on; 0.0.0.0 means all addresses of this machine.
        port: port to listen on; 0 picks a free one.
        access: keys, Label Studio, and the path of a proxy.

    Raises:
        UserError: Gradio is missing, the port is taken, the address is not this machine's, the root path is no path, or
            a model cannot be loaded.
    """
    access = replace(access, root_path=checked_root_path(access.root_path))
    gradio()
    own = setup.own_examples and is_loopback(host)  # so that others don't see private data by accident
    with suppress(KeyboardInterrupt), _signals_unwind():
        _run(replace(setup, own_examples=own), limits, host, port, access)
    print("\nstopped; photos and results are deleted")


def _run(setup: Setup, limits: Limits, host: str, port: int, access: Access) -> None:
    """Serve the page until an exception ends it."""
    with ExitStack() as held:
        place = held.enter_context(listen(host, port))
        store = held.enter_context(FileStore(limits))
        _keep_inside(store)
        count = f"{len(setup.models)} models" if len(setup.models) > 1 else setup.models[0]
        print(f"loading {count}", flush=True)
        pool = held.enter_context(WorkerPool(setup, limits, examples=store.examples))
        server = make_server(Service(pool, store, limits), store, pool.ready.examples, access)
        for about in pool.ready.models:
            print(_told(about))
        print(pool.ready.note)
        address = f"http://{_for_browser(host)}:{place.getsockname()[1]}"
        if not is_loopback(host):
            who = "everybody with a key" if access.keys else "everybody"
            print(f"{host} can be reached from other machines: {who} can send photos")
        if access.root_path:
            print(f"behind a proxy that serves it below {access.root_path}/")
        if access.keys:
            print(f"{counted(len(access.keys), 'key')}: in a browser, give any user name, and a key as the password")
        print(f"open {address} in a browser, {address}/?view=api for programs; Ctrl-C stops the page", flush=True)
        server.run(sockets=[place])


def make_server(service: Service, store: FileStore, examples: list[Path], access: Access) -> Any:
    """Return a uvicorn.Server for the page; it stops when its `should_exit` is set."""
    gr = gradio()
    import uvicorn  # comes with Gradio
    from fastapi import FastAPI

    page = make_page(service, examples)
    store.keep(path for path in store.uploads.rglob("*") if path.is_file())  # Gradio's copies of the examples
    outer = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    metrics, stopping = Metrics(), Stopping(service.limits.stop_seconds)
    predictor = add_api(outer, service, store)
    backend = add_label_studio(outer, service, store, access.label_studio)
    add_health(outer, service, metrics, stopping, lambda: predictor.waiting + backend.waiting)
    names = [about.name for about in service.models]
    add_schema(outer, names, root_path=access.root_path, with_keys=bool(access.keys))
    application = gr.mount_gradio_app(
        outer,
        page,
        path="/",
        root_path=access.root_path or None,
        max_file_size=service.limits.bytes,
        allowed_paths=[],
        show_error=False,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        **look_of(gr),
    )
    page.has_launched = True  # makes Gradio refuse paths of files that nobody uploaded
    front = Front(
        RequestFilter(application, store, service.limits),
        keys=access.keys,
        metrics=metrics,
        stopping=stopping,
        root_path=access.root_path,
    )
    config = uvicorn.Config(front, log_level="warning", server_header=False, timeout_graceful_shutdown=GRACE, ws="none")
    return graceful_server(config, stopping, running=lambda: front.posts + service.running, give_up=service.pool.close)


def checked_root_path(text: str) -> str:
    """Return the path below which a proxy serves the page: "" or "/seg", without a slash at its end.

    Raises:
        UserError: it is no path, such as a whole address.
    """
    path = text.rstrip("/")
    if path and ROOT_PATH.fullmatch(path) is None:
        raise UserError(
            f"--root-path {text}: give the path below which the proxy serves the page, such as /seg: letters, digits "
            "and . _ ~ - between slashes, without the host"
        )
    if any(f"{path}/".startswith(f"{own}/") for own in OWN_PATHS):
        raise UserError(f"--root-path {text}: the page has addresses of its own there: give another path, such as /seg")
    return path


def _keep_inside(store: FileStore) -> None:
    """Keep all files in the store: these libraries read their folders only from the environment."""
    os.environ["GRADIO_TEMP_DIR"] = str(store.uploads)
    os.environ["GRADIO_EXAMPLES_CACHE"] = str(store.examples)
    os.environ["MPLCONFIGDIR"] = str(store.root / "matplotlib")
    os.environ["MPLBACKEND"] = "agg"  # else Gradio, which asks for the backend at each event, loads all of Matplotlib


@contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """Yield a socket that listens on an address.

    Raises:
        UserError: the port is taken, or this machine does not have the address.
    """
    if not 0 <= port <= 65_535:
        raise UserError(f"--port {port}: give 1 to 65535, or 0 for any that is free")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise UserError(f"--host {host}: no address of this machine ({error}); give 127.0.0.1 or 0.0.0.0") from error
    with socket.socket(family, kind, protocol) as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            place.bind(address)
            place.listen(128)
        except OSError as error:
            raise UserError(
                f"port {port} of {host} cannot be opened ({error.strerror}); give another --port, or 0 for a free one"
            ) from error
        yield place


@contextmanager
def _signals_unwind() -> Iterator[None]:
    """Let signals that would kill the process act like Ctrl-C, so that folders are removed and workers ended."""

    def stop(number: int, frame: FrameType | None) -> None:
        for each in before:  # further signals do not interrupt the removal of folders
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    def hang_up(number: int, frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGTERM)  # uvicorn handles it with an orderly end

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, stop)}
    closed = getattr(signal, "SIGHUP", None)  # sent when the terminal closes; not on Windows, and nohup ignores it
    if closed is not None and signal.getsignal(closed) is not signal.SIG_IGN:
        before[closed] = signal.signal(closed, hang_up)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _told(about: About) -> str:
    """Describe a model in one line."""
    score = "" if about.miou is None else f", mIoU {percentage(about.miou)}"
    data = f" of {about.dataset}" if about.dataset else ""
    return f"{about.name}: {about.structure} {about.backbone}, {len(about.classes)} classes{data}{score}; {about.place}"


def _for_browser(host: str) -> str:
    """Return the address of a host for a browser."""
    if host in ("0.0.0.0", "::", ""):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
