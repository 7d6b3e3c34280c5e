"""Parts that the layers of the server share: the types of ASGI, whole answers, counted requests, hosts and paths."""

import ipaddress
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import quote

from segvit.app.limits import MEGABYTE

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]
LOOK_EVERY = 4 * MEGABYTE
"""Number of bytes of an upload between two checks for free space, because other uploads run at the same time."""


class Overflow(Exception):
    """Raised if a request is larger than allowed."""


class Counted:
    """A receive channel that counts the bytes coming in.

    Args:
        receive: returns the next message.
        most: largest number of bytes allowed.
        full: returns True if the disk space is used up; called every LOOK_EVERY bytes.

    Attributes:
        bytes: number of bytes so far.
        refused: True if the request is refused.
        found_full: True if it is refused because the disk space is used up.

    Raises:
        Overflow: more than `most` bytes have come, or the disk space is used up.
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
            self.refused = True  # set before the application can answer with an error of its own
            raise Overflow
        return message


def below(scope: Scope, root_path: str) -> Scope:
    """Return a request without the path of a proxy, such as "/seg". The proxy may have cut it off or passed it on."""
    if not root_path or not scope["path"].startswith(f"{root_path}/"):
        return scope
    path = scope["path"].removeprefix(root_path)
    return {**scope, "path": path, "raw_path": quote(path).encode()}


def is_loopback(host: str) -> bool:
    """True if only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def length_of(headers: Headers) -> int | None:
    """Return the size in bytes that a request announces, if any."""
    given = dict(headers).get(b"content-length", b"")
    return int(given) if given.isdigit() else None


async def answer(send: Send, status: int, text: str, *, as_json: bool, headers: Headers = ()) -> None:
    """Send a reason as a whole response: as JSON to programs, else as text."""
    content = json.dumps({"error": text}).encode() if as_json else text.encode()
    kind = b"application/json" if as_json else b"text/plain; charset=utf-8"
    fixed = [(b"content-type", kind), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await send({"type": "http.response.body", "body": content})
