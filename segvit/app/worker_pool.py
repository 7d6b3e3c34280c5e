"""The workers of the page: processes with their own models. One that takes too long is ended and replaced.

with WorkerPool(setup, limits, examples=folder) as pool:
    labelled = pool.ask(job)                # waits for a free worker; a UserError if it fails
"""

import multiprocessing
import queue
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

from segvit.app.limits import Limits
from segvit.app.messages import Failed, Job, Labelled, Ready, Setup
from segvit.app.refusals import ServerFault, TooSlow
from segvit.app.worker import serve
from segvit.errors import UserError

OURS = "an error of the server; its terminal shows the details"
POLL = 0.2
"""Seconds between two checks whether the page is closing."""


class _Closed(UserError):
    """Raised for requests after the page has begun to close."""


class WorkerPool:
    """One worker for each photo processed at the same time. Any thread may call `ask`.

    Args:
        setup: models and their device.
        limits: number of workers, and limits of a photo.
        examples: folder to which the first worker writes the examples.

    Attributes:
        ready: message of the first worker when its models were loaded.

    Raises:
        UserError: on entering, if a model cannot be loaded.
    """

    ready: Ready

    def __init__(self, setup: Setup, limits: Limits, *, examples: Path) -> None:
        self._setup, self._limits, self._examples = setup, limits, examples
        self._free: queue.Queue[_Worker] = queue.Queue()
        self._closed = threading.Event()

    def __enter__(self) -> "WorkerPool":
        folders = [self._examples] + [None] * (self._limits.concurrency - 1)
        begun = [_Worker(self._setup, self._limits, folder) for folder in folders]
        try:
            self.ready, *_ = [worker.loaded(self._closed) for worker in begun]
        except BaseException:
            for worker in begun:
                worker.end()
            raise
        for worker in begun:
            self._free.put(worker)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all workers; requests that still wait get an error."""
        self._closed.set()
        for _ in range(self._limits.concurrency):
            self._free.get().end()

    def ask(self, job: Job) -> Labelled:
        """Label a photo.

        Raises:
            UserError: the photo is refused, cannot be read, or takes too long.
        """
        worker, fit = self._take(), False
        try:
            said = worker.answer(job, self._limits.timeout, self._closed)
            fit = True
        except TimeoutError:
            raise TooSlow(
                f"{job.name}: given up after {self._limits.timeout:g} s, the time limit of a photo; send a smaller one"
            ) from None
        except (EOFError, OSError):  # it has ended, and has printed why
            raise ServerFault(f"{job.name}: {OURS}") from None
        finally:
            self._free.put(worker if fit or self._closed.is_set() else self._replacement(worker))
        if isinstance(said, Failed):
            raise UserError(said.text)
        return said

    def _take(self) -> "_Worker":
        """Wait for a free worker, and return it."""
        while True:
            _check_open(self._closed)
            try:
                return self._free.get(timeout=POLL)
            except queue.Empty:
                continue

    def _replacement(self, worker: "_Worker") -> "_Worker":
        """Replace a broken worker; the new one loads its models in the background."""
        worker.end()
        try:
            return _Worker(self._setup, self._limits, None)
        except OSError as error:  # no memory or file handles left: the next request tries again
            print(f"a worker cannot be replaced: {error}", file=sys.stderr)
            return worker


class _Worker:
    """One process, and the pipe to it."""

    def __init__(self, setup: Setup, limits: Limits, examples: Path | None) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy the state of CUDA and of our threads
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, setup, limits, examples), daemon=True)
        self._process.start()
        theirs.close()
        self._ready: Ready | None = None

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
        except _Closed:
            raise
        except UserError as error:  # it could be loaded before: the file is gone, or the memory is full
            print(f"a worker cannot be replaced: {error}", file=sys.stderr)
            raise EOFError from error
        self._pipe.send(job)
        said = self._listen(seconds, closed)
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
            _check_open(closed)
            if until is not None and time.monotonic() >= until:
                raise TimeoutError
        return self._pipe.recv()


def _check_open(closed: threading.Event) -> None:
    """Raise an error if the page is closing."""
    if closed.is_set():
        raise _Closed("this page is closing")
