"""One worker of the page: its process, the pipe to it, and its state."""

import multiprocessing
import sys
import threading
import time
from multiprocessing.connection import wait
from pathlib import Path
from typing import Literal

from segvit.app.limits import Limits
from segvit.app.messages import Failed, Job, Labelled, Ready, Setup
from segvit.app.serving.refusals import Ended
from segvit.app.worker import serve
from segvit.errors import UserError

POLL = 0.2
"""Seconds between two checks whether the page is closing, and whether a worker has ended."""
State = Literal["loading", "ready", "busy", "dead"]
"""State of a worker: it loads its models, waits for a photo, labels one, or has ended and is not yet replaced."""


class Worker:
    """One process, and the pipe to it.

    Args:
        number: number of the worker, from 0; a replacement has the same.
        setup: models and their device.
        limits: limits of a photo.
        examples: folder to write the examples to, or None if another worker does.
        failures: number of attempts before this one, in a row, that did not lead to a worker with loaded models.

    Raises:
        OSError: no process can be started.
    """

    def __init__(self, number: int, setup: Setup, limits: Limits, examples: Path | None, *, failures: int = 0) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy the state of CUDA and of our threads
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, setup, limits, examples), daemon=True)
        self._process.start()
        theirs.close()
        self._ready: Ready | None = None
        self._busy = False
        self.number, self.failures, self.begun = number, failures, time.monotonic()

    @property
    def process_id(self) -> int:
        """Id of the process."""
        return self._process.pid or 0

    @property
    def was_ready(self) -> bool:
        """True if the models were loaded."""
        return self._ready is not None

    @property
    def has_ended(self) -> bool:
        """True if the process has ended."""
        return bool(wait([self._process.sentinel], timeout=0))

    @property
    def state(self) -> State:
        """State of the worker."""
        if self.has_ended:
            return "dead"
        if not self.was_ready:
            return "loading"
        return "busy" if self._busy else "ready"

    def look(self) -> None:
        """Take note of the worker's message that its models are loaded, without waiting for it."""
        if self._ready is None:
            try:
                said = self._pipe.recv() if self._pipe.poll(0) else None
            except (EOFError, OSError):  # it has ended
                return
            if isinstance(said, Ready):
                self._ready = said
            elif isinstance(said, Failed):  # it could be loaded before: the file is gone, or the memory is full
                print(f"a worker cannot be replaced: {said.text}", file=sys.stderr)

    def loaded(self, closed: threading.Event) -> Ready:
        """Wait until the models are loaded, and return the worker's message.

        Raises:
            UserError: the models cannot be loaded.
        """
        if self._ready is None:
            try:
                said = self._listen(None, closed)
            except (EOFError, OSError):
                raise UserError("a worker ended while it loaded the models; see its output above") from None
            if not isinstance(said, Ready):
                raise UserError(said.text if isinstance(said, Failed) else repr(said))
            self._ready = said
        return self._ready

    def answer(self, job: Job, seconds: float, closed: threading.Event) -> Labelled | Failed:
        """Return the answer to a job; `seconds` count from when the worker is ready.

        Raises:
            TimeoutError: the job takes longer than `seconds`.
            EOFError, OSError: the worker has ended.
            UserError: the page is closing.
        """
        try:
            self.loaded(closed)
        except Ended:
            raise
        except UserError as error:  # it could be loaded before: the file is gone, or the memory is full
            print(f"a worker cannot be replaced: {error}", file=sys.stderr)
            raise EOFError from error
        self._busy = True
        try:
            self._pipe.send(job)
            said = self._listen(seconds, closed)
        finally:
            self._busy = False
        assert isinstance(said, Labelled | Failed)
        return said

    def end(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _listen(self, seconds: float | None, closed: threading.Event) -> object:
        """Return the worker's next message."""
        until = None if seconds is None else time.monotonic() + seconds
        while not self._pipe.poll(POLL if until is None else min(POLL, max(until - time.monotonic(), 0))):
            check_open(closed)
            if until is not None and time.monotonic() >= until:
                raise TimeoutError
        return self._pipe.recv()


def check_open(closed: threading.Event) -> None:
    """Check that the page is not closing.

    Raises:
        Ended: it is.
    """
    if closed.is_set():
        raise Ended("this server is stopping: send the photo again")
