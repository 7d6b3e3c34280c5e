"""The newest frame of a live video. Frames that are not taken in time are dropped and counted.

with Newest(video) as newest:
    for frame in newest.frames(stopped=lambda: stop.wished):
        ...
video.dropped
"""

import threading
from collections.abc import Callable, Iterator
from types import TracebackType

from segvit.video.reader import TIMEOUT, Frame, Video

LOOK_UP = 0.1
"""Seconds between two checks of whether to stop."""


class Newest:
    """A thread that reads a live video as fast as it comes and keeps its newest frame."""

    def __init__(self, video: Video, *, every: int = 1, seconds: float | None = None) -> None:
        self._video = video
        self._closing = threading.Event()
        self._frames = video.frames(every=every, seconds=seconds, closing=self._closing)
        self._change = threading.Condition()
        self._waiting: Frame | None = None
        self._ended = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._read, name=f"reading {video.name}", daemon=True)

    def __enter__(self) -> "Newest":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._thread.join(TIMEOUT + 1)
        self._video.abandoned = self._thread.is_alive()  # a driver that hangs

    def frames(self, *, stopped: Callable[[], bool]) -> Iterator[Frame]:
        """Yield the newest frame, again and again, until the source ends or `stopped()` is true.

        Raises:
            Exception: any error of the thread.
        """
        while not stopped():
            with self._change:
                self._change.wait_for(lambda: self._waiting is not None or self._ended, LOOK_UP)
                frame, self._waiting = self._waiting, None
                ended = self._ended
            if frame is not None:
                yield frame
            elif ended:
                if self._error is not None:
                    raise self._error
                return

    def _read(self) -> None:
        try:
            for frame in self._frames:
                with self._change:
                    self._video.dropped += self._waiting is not None
                    self._waiting = frame
                    self._change.notify()
        except Exception as error:  # noqa: BLE001  # `frames` raises it
            self._error = error
        finally:
            with self._change:
                self._ended = True
                self._change.notify()
