"""SIGTERM and SIGINT as a wish: a step is finished, a checkpoint written, and the process leaves with a clear code.

    with Stop() as stop:
        for ...:
            if stop.wished: ...

A second signal is not waited for. Batch systems send SIGTERM some time before they kill (docs/scaling.md).
"""

import signal
import threading
from types import FrameType, TracebackType

from segvit.errors import UserError

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(UserError):
    """A run that was asked to stop, and did so with nothing lost."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.exit_code = 128 + number


class Stop:
    """Whether this process has been asked to stop, since the block was entered."""

    def __init__(self) -> None:
        self.number: int | None = None
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
        """The first signal is noted; the next one ends the process at once, as signals do."""
        if self.number is not None:
            raise KeyboardInterrupt
        self.number = number
