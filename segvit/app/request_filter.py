"""What stands before Gradio: which addresses there are, how much may be sent, and what a browser may load.

    server = RequestFilter(gradio_app, store, limits)        # an ASGI application

Gradio serves more than this page needs: it fetches addresses for visitors, takes recordings, monitors. What is not
listed here does not exist. Results are served from here as well, each page of them in a sandbox of its own.
"""

import json
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from typing import Any

from segvit.app.file_store import FULL, FileStore
from segvit.app.limits import MEGA, MEGABYTE, Limits

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

RESULTS = "/seen/"
"""Where results are: token, number of the model, name of the file."""
UPLOAD = "/gradio_api/upload"
READ = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt|/(assets|static|svelte)/.+"
    r"|/gradio_api/(info/?|openapi\.json|app_id/?|startup-events|theme\.css|upload_progress|queue/data"
    r"|heartbeat/[\w-]+|call/\w+/[\w-]+|file=.+)"
)
"""Addresses to GET."""
SENT = re.compile(r"/gradio_api/(queue/join|cancel|reset/?|(run|api|call)/\w+/?|call/v2/\w+/?|upload)")
"""Addresses to POST to."""
MOST_JSON = MEGA
"""Bytes of a request that is no upload."""
ENVELOPE = 8192
"""Bytes that multipart/form-data may add for each file."""
LOOK_EVERY = 4 * MEGABYTE
"""Bytes of an upload after which it is seen again whether there is room: others come in at the same time."""
PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; frame-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'"
)
"""Gradio makes its page by scripts in the page, and compiles templates; nothing comes from elsewhere."""
RESULT_POLICY = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; connect-src data: blob:"
)
"""A result has no access to the page around it, even where it is opened by itself."""


class RequestFilter:
    """An ASGI application around Gradio's.

    Args:
        inner: Gradio's.
        store: of uploads and results.
        limits: of what is sent.
    """

    def __init__(self, inner: Application, store: FileStore, limits: Limits) -> None:
        self._inner, self._store, self._limits = inner, store, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._inner(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        send = _with_headers(send, PAGE_POLICY)
        if method in ("GET", "HEAD") and path.startswith(RESULTS):
            await self._result(scope, receive, send)
        elif method in ("GET", "HEAD") and READ.fullmatch(path) and "file=http" not in path.lower():
            await self._inner(scope, receive, send)
        elif method == "POST" and path.rstrip("/") == UPLOAD:
            await self._upload(scope, receive, send)
        elif method == "POST" and SENT.fullmatch(path):
            await self._json(scope, receive, send)
        else:
            await _answer(send, 404, "there is nothing at this address")

    async def _result(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A file of a result: its page, or a download."""
        token, *names = scope["path"].removeprefix(RESULTS).split("/")
        file = self._store.find(token, *names)
        if file is None:
            await _answer(send, 404, "this result is no longer kept: label the photo again")
            return
        from starlette.responses import FileResponse  # comes with Gradio

        if file.suffix == ".html":
            answer = FileResponse(file, headers={"content-security-policy": RESULT_POLICY})
        else:
            answer = FileResponse(file, filename=file.name)
        await answer(scope, receive, send)

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand an upload on, as far as there is room for it."""
        limits = self._limits
        most = min(limits.batch_files * (limits.bytes + ENVELOPE), self._store.room())
        came = _length(scope["headers"])
        if came is not None and came > most:
            await _answer(send, 413, self._too_large(came, most))
            return
        counted = Counted(receive, most, full=lambda: self._store.room() < 0)

        async def explain(message: Message) -> None:
            """Gradio's own refusal names its limit alone."""
            if message["type"] == "http.response.start" and message["status"] == 413:
                counted.refused = True
                return
            if not counted.refused:
                await send(message)

        with suppress(Overflow):
            await self._inner(scope, counted, explain)
        if counted.refused:
            text = FULL if counted.found_full else self._too_large(came or counted.bytes, most)
            await _answer(send, 413, text)

    def _too_large(self, came: int, most: int) -> str:
        """Why an upload is refused."""
        limits = self._limits
        if came > most and most < limits.bytes:
            return FULL
        batch = f", and {limits.batch_files} files together" if came > limits.bytes + ENVELOPE else ""
        return f"{came / MEGABYTE:.1f} MB came, and a file may have up to {limits.max_megabytes:g} MB{batch}: shrink it"

    async def _json(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on a request in JSON, unless it wants a file that was not sent here."""
        counted, body, more = Counted(receive, MOST_JSON), b"", True
        try:
            while more:
                message = await counted()
                body, more = body + message.get("body", b""), message.get("more_body", False)
            strange = _names_other_files(json.loads(body or b"null"), self._store)
        except Overflow:
            await _answer(send, 413, f"a request may have up to {MOST_JSON} bytes: upload files first, and name them")
            return
        except (ValueError, RecursionError):
            await _answer(send, 400, "this is no JSON")
            return
        if strange:
            await _answer(send, 400, "a photo must be sent here first; no other file is read or fetched")
            return
        given = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return given.pop() if given else await receive()

        await self._inner(scope, replay, send)


class Overflow(Exception):
    """More came than may."""


class Counted:
    """What comes in, counted.

    Args:
        receive: gives the next message.
        most: bytes that may come.
        full: whether there is room for nothing more; asked every LOOK_EVERY bytes.

    Attributes:
        bytes: that have come.
        refused: whether the answer is no.
        found_full: whether that is for want of room.

    Raises:
        Overflow: when more than `most` bytes have come, or there is no more room.
    """

    def __init__(self, receive: Receive, most: int, *, full: Callable[[], bool] = lambda: False) -> None:
        self._receive, self._most, self._full = receive, most, full
        self.bytes = 0
        self.refused = self.found_full = False

    async def __call__(self) -> Message:
        message = await self._receive()
        before, self.bytes = self.bytes, self.bytes + len(message.get("body", b""))
        if before // LOOK_EVERY != self.bytes // LOOK_EVERY:
            self.found_full = self._full()
        if self.bytes > self._most or self.found_full:
            self.refused = True  # before the application inside can answer that it stumbled
            raise Overflow
        return message


def _names_other_files(content: object, store: FileStore) -> bool:
    """Whether plain values name a file that no visitor has sent: Gradio would fetch it where it is an address."""
    if isinstance(content, list):
        return any(_names_other_files(each, store) for each in content)
    if not isinstance(content, dict):
        return False
    if "path" in content and not (isinstance(content["path"], str) and store.holds(content["path"])):
        return True
    return any(_names_other_files(each, store) for each in content.values())


def _length(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """What a request says of its size in bytes."""
    said = dict(headers).get(b"content-length", b"")
    return int(said) if said.isdigit() else None


def _with_headers(send: Send, policy: str) -> Send:
    """Add to a response what browsers shall mind; a policy that it has stays."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            if all(name.lower() != b"content-security-policy" for name, _ in headers):
                headers.append((b"content-security-policy", policy.encode()))
            headers += [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
            message = {**message, "headers": headers}
        await send(message)

    return sending


async def _answer(send: Send, status: int, text: str) -> None:
    """A whole response."""
    content = text.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
