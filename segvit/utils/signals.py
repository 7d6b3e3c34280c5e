"""Stop cleanly at SIGTERM and SIGINT: finish the step, write a checkpoint, exit with a clear code.

    with Stop() as stop:
        for ...:
            if stop.wished: ...

A second signal ends the process at once, unless it comes so soon that it is an echo of the first from a launcher. Batch
systems send SIGTERM some time before they kill (docs/scaling.md).
"""

import signal
import threading
import time
from types import FrameType, TracebackType

from segvit.errors import UserError

SIGNALS = (signal.SIGTERM, signal.SIGINT)
ECHO = 3.0
"""Seconds in which a second signal counts as the first: the system sends one, and torchrun passes it on."""


class Interrupted(UserError):
    """Raised by a run that was asked to stop and has saved its state."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.exit_code = 128 + number


class Stop:
    """Remembers a signal that came since the block was entered."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._since = 0.0
        self._before: dict[int, object] = {}

    @property
    def wished(self) -> bool:
        """True if a signal has come."""
        return self.number is not None

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Remember the first signal; a later one ends the process at once."""
        now = time.monotonic()
        if self.number is None:
            self.number, self._since = number, now
        elif now - self._since > ECHO:
            raise KeyboardInterrupt
