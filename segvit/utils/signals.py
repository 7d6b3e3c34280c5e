"""SIGTERM and SIGINT as a wish: a step is finished, a checkpoint written, and the process leaves with a clear code.

    with Stop() as stop:
        for ...:
            if stop.wished: ...

A second signal is not waited for, unless it comes so soon that a launcher has passed the first one on. Batch systems
send SIGTERM some time before they kill (docs/scaling.md).
"""

import signal
import threading
import time
from types import FrameType, TracebackType

from segvit.errors import UserError

SIGNALS = (signal.SIGTERM, signal.SIGINT)
ECHO = 3.0
"""Seconds within which another signal is the first one again: from the system, and from torchrun."""


class Interrupted(UserError):
    """A run that was asked to stop, and did so with nothing lost."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.exit_code = 128 + number


class Stop:
    """Whether this process has been asked to stop, since the block was entered."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._since = 0.0
        self._before: dict[int, object] = {}

    @property
    def wished(self) -> bool:
        """Whether a signal has come."""
        return self.number is not None

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        """The first signal is noted; a later one ends the process at once, as signals do."""
        now = time.monotonic()
        if self.number is None:
            self.number, self._since = number, now
        elif now - self._since > ECHO:
            raise KeyboardInterrupt
