"""Folders that are served as a user does it (`python -m http.server`), and servers that note who asks.

from tests.helpers.served import served
with served(folder) as address: page.goto(address)
"""

import functools
import http.server
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
"""Headers that allow several threads."""


@contextmanager
def served(folder: Path, *, headers: Mapping[str, str] | None = None, asked: list[str] | None = None) -> Iterator[str]:
    """The address of a server of a folder. It sends more headers, and notes the paths that are asked for."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            if asked is not None:
                asked.append(self.path)

        def end_headers(self) -> None:
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            super().end_headers()

    handler = functools.partial(Handler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
