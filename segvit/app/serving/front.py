"""The first layer of the server: it counts each request, and refuses those without a key or after the end has begun.

application = Front(inner, keys=keys, metrics=metrics, stopping=stopping, root_path="/seg")
"""

import time
from collections.abc import Callable

from segvit.app.serving.asgi import Application, Message, Receive, Scope, Send, answer, below
from segvit.app.serving.keys import CHALLENGES, REFUSED, ApiKeys
from segvit.app.serving.metrics import Metrics
from segvit.app.serving.refusals import RETRY_SECONDS
from segvit.app.serving.routes import METRICS, OPEN, route_of

ENDING = "this server is stopping: send the request again in some seconds, or to another server"
"""Answer to a request that comes after the end has begun."""
STILL_OPEN = (*OPEN, METRICS)
"""Addresses that are answered until the very end."""


class Stopping:
    """The end of the server: what runs may finish within a time, and nothing new begins.

    Args:
        seconds: longest time that is left to what runs.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: float | None = None

    @property
    def begun(self) -> bool:
        """True if the end has begun."""
        return self._until is not None

    @property
    def overdue(self) -> bool:
        """True if the time is over."""
        return self._until is not None and time.monotonic() >= self._until

    def begin(self) -> None:
        """Begin the end; a second call changes nothing."""
        if self._until is None:
            self._until = time.monotonic() + self._seconds


class Front:
    """An ASGI application around the others.

    Args:
        inner: answers the requests that pass.
        keys: accepted keys.
        metrics: counts of the requests.
        stopping: state of the end.
        root_path: path below which a proxy serves the page, such as "/seg". Requests may still have it or not.

    Attributes:
        posts: number of POST requests that are not yet answered.
    """

    def __init__(
        self, inner: Application, *, keys: ApiKeys, metrics: Metrics, stopping: Stopping, root_path: str = ""
    ) -> None:
        self._inner, self._keys, self._metrics, self._stopping = inner, keys, metrics, stopping
        self._root_path = root_path
        self.posts = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._inner(scope, receive, send)
            return
        scope = below(scope, self._root_path)
        with self._metrics.request(route_of(scope["path"])) as answered:
            client = _Client(receive, send, answered)
            try:
                await self._checked(scope, client.receive, client.send)
            except Exception as error:
                from starlette.requests import ClientDisconnect  # comes with Gradio

                if not isinstance(error, ClientDisconnect):  # else there is nobody to answer, and nothing to report
                    raise

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        path = scope["path"]
        if self._stopping.begun and path not in STILL_OPEN:
            retry = [(b"retry-after", str(RETRY_SECONDS).encode()), (b"connection", b"close")]
            await answer(send, 503, ENDING, as_json=True, headers=retry)
        elif path not in OPEN and not self._keys.accept(scope["headers"]):
            await answer(send, 401, REFUSED, as_json=True, headers=CHALLENGES)
        elif scope["method"] == "POST":
            self.posts += 1
            try:
                await self._inner(scope, receive, send)
            finally:
                self.posts -= 1
        else:
            await self._inner(scope, receive, send)


class _Client:
    """The channels of a client. They report the status of its response, unless it leaves before it is sent.

    Args:
        receive: returns the next message of the client.
        send: sends a message to it.
        answered: called with the status.
    """

    def __init__(self, receive: Receive, send: Send, answered: Callable[[int], None]) -> None:
        self._receive, self._send, self._answered = receive, send, answered
        self._left = False

    async def receive(self) -> Message:
        """Return the next message."""
        message = await self._receive()
        self._left |= message["type"] == "http.disconnect"
        return message

    async def send(self, message: Message) -> None:
        """Send a message."""
        if message["type"] == "http.response.start" and not self._left:
            self._answered(message["status"])
        await self._send(message)
