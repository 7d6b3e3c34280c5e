"""A filter in front of Gradio: which addresses exist, how much may be sent, and what a browser may load.

    server = RequestFilter(gradio_app, store, limits)        # an ASGI application

Gradio serves more than this page needs: it fetches addresses for visitors, takes recordings, shows monitoring pages.
Addresses that are not listed here do not exist. The filter also serves the results, each page in its own sandbox.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from segvit.app.file_store import FULL, FileStore
from segvit.app.limits import MEGA, MEGABYTE, Limits
from segvit.app.serving.asgi import Application, Counted, Message, Overflow, Receive, Scope, Send, answer, length_of
from segvit.app.serving.routes import (
    LABELLING,
    PREDICT,
    READ,
    RESULTS,
    ROUTES,
    SENT,
    UPLOAD,
    is_for_programs,
)

MOST_JSON = MEGA
"""Largest size in bytes of a request that is no upload."""
ENVELOPE = 8192
"""Number of bytes that multipart/form-data may add per file."""
PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; frame-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'"
)
"""Content policy of the page. Gradio needs inline scripts and compiled templates; nothing loads from other sites."""
SHARING = b"access-control-"
"""Begin of the headers that let other sites read a response."""
RESULT_POLICY = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; connect-src data: blob:"
)
"""Content policy of a result: it has no access to the page around it, even if it is opened alone."""


class RequestFilter:
    """An ASGI application around Gradio's.

    Args:
        inner: Gradio's application.
        store: the store of uploads and results.
        limits: limits of uploads.
    """

    def __init__(self, inner: Application, store: FileStore, limits: Limits) -> None:
        self._inner, self._store, self._limits = inner, store, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on to Gradio."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._inner(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        reads = method in ("GET", "HEAD")
        send = _with_headers(send, PAGE_POLICY)
        if reads and path.startswith(RESULTS):
            await self._result(scope, receive, send)
        elif path in ROUTES and ("GET" if reads else method) not in ROUTES[path]:
            usual = " and ".join(ROUTES[path])
            await _answer(scope, send, 405, f"{method} {path}: this address answers {usual}; /docs shows how")
        elif path == PREDICT:
            await self._upload(scope, receive, send, files=1)
        elif path in LABELLING and method == "POST":
            await self._labelling(scope, receive, send)
        elif path in ROUTES or (reads and READ.fullmatch(path) and "file=http" not in path.lower()):
            await self._inner(scope, receive, send)
        elif method == "POST" and path.rstrip("/") == UPLOAD:
            await self._upload(scope, receive, send, files=self._limits.batch_files)
        elif method == "POST" and SENT.fullmatch(path):
            await self._json(scope, receive, send)
        else:
            await _answer(scope, send, 404, "nothing exists at this address")

    async def _result(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a file of a result: its page, or a download."""
        token, *names = scope["path"].removeprefix(RESULTS).split("/")
        file = self._store.find(token, *names)
        if file is None:
            await _answer(scope, send, 404, "this result has been deleted: label the photo again")
            return
        from starlette.responses import FileResponse  # comes with Gradio

        if file.suffix == ".html":
            response = FileResponse(file, headers={"content-security-policy": RESULT_POLICY})
        else:
            response = FileResponse(file, filename=file.name)
        await response(scope, receive, send)

    async def _upload(self, scope: Scope, receive: Receive, send: Send, *, files: int) -> None:
        """Pass an upload of up to some files on as long as there is room for it."""
        limits = self._limits
        most = min(files * (limits.bytes + ENVELOPE), self._store.room())
        came = length_of(scope["headers"])
        if came is not None and came > most:
            await self._refuse(scope, send, self._too_large(came, most, files))
            return
        counted = Counted(receive, most, full=lambda: self._store.room() < 0)

        async def explain(message: Message) -> None:
            """Hold back Gradio's own refusal, which names only its limit."""
            if message["type"] == "http.response.start" and message["status"] == 413:
                counted.refused = True
                return
            if not counted.refused:
                await send(message)

        with suppress(Overflow):
            await self._inner(scope, counted, explain)
        if counted.refused:
            text = FULL if counted.found_full else self._too_large(came or counted.bytes, most, files)
            await self._refuse(scope, send, text)

    async def _labelling(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request of a labelling tool on, which may hold a photo as text: 4 characters for 3 bytes."""
        most = MOST_JSON + 2 * self._limits.bytes
        counted = Counted(receive, most)

        async def unless_refused(message: Message) -> None:
            if not counted.refused:
                await send(message)

        with suppress(Overflow):
            await self._inner(scope, counted, unless_refused)
        if counted.refused:
            text = f"a request may have up to {most / MEGABYTE:.0f} MB: send fewer tasks, or images by address"
            await _answer(scope, send, 413, text)

    async def _refuse(self, scope: Scope, send: Send, text: str) -> None:
        """Send the reason why an upload is refused. Gradio's page expects one status for all of them."""
        status = 503 if text == FULL and scope["path"] == PREDICT else 413
        await _answer(scope, send, status, text)

    def _too_large(self, came: int, most: int, files: int) -> str:
        """Return the reason why an upload is refused."""
        limits = self._limits
        if came > most and most < limits.bytes:
            return FULL
        batch = f", with up to {files} files in a batch" if files > 1 and came > limits.bytes + ENVELOPE else ""
        return f"{came / MEGABYTE:.1f} MB came; the limit of a file is {limits.max_megabytes:g} MB{batch}: shrink it"

    async def _json(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request in JSON, unless it names a file that was not uploaded here."""
        counted, body, more = Counted(receive, MOST_JSON), b"", True
        try:
            while more:
                message = await counted()
                if message["type"] == "http.disconnect":
                    return
                body, more = body + message.get("body", b""), message.get("more_body", False)
            paths = list(_paths_in(json.loads(body or b"null")))
        except Overflow:
            await _answer(
                scope, send, 413, f"a request may have up to {MOST_JSON} bytes: upload files first, give paths"
            )
            return
        except (ValueError, RecursionError):
            await _answer(scope, send, 400, "this is not JSON")
            return
        if not all(isinstance(path, str) and self._store.holds(path) for path in paths):
            await _answer(scope, send, 400, "a photo must be uploaded here first; no other file is read or fetched")
            return
        for path in paths:  # Gradio lets it wait in a queue, which may take longer than it would be kept
            self._store.wait_for_turn(path)
        given = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return given.pop() if given else await receive()

        await self._inner(scope, replay, send)


def _paths_in(content: object) -> Iterator[Any]:
    """Yield the files that plain values name. If one were an address, Gradio would fetch it."""
    if isinstance(content, dict) and "path" in content:
        yield content["path"]
    inside = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    for each in inside:
        yield from _paths_in(each)


def _with_headers(send: Send, policy: str) -> Send:
    """Add the security headers to a response; a content policy that it already has is kept.

    Gradio lets pages of every other site read its answers, with the password that the browser keeps. That is undone.
    """

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [each for each in message.get("headers", ()) if not each[0].lower().startswith(SHARING)]
            if all(name.lower() != b"content-security-policy" for name, _ in headers):
                headers.append((b"content-security-policy", policy.encode()))
            headers += [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
            message = {**message, "headers": headers}
        await send(message)

    return sending


async def _answer(scope: Scope, send: Send, status: int, text: str) -> None:
    """Send the reason of a refusal."""
    path = scope["path"]
    allowed = [(b"allow", ", ".join(ROUTES[path]).encode())] if status == 405 else []
    await answer(send, status, text, as_json=is_for_programs(path), headers=allowed)
