"""The workers of the page: each a process with models of its own, given up and replaced where a photo takes too long.

with WorkerPool(setup, limits, examples=folder) as pool:
    labelled = pool.ask(job)                # waits for a worker that is free; UserError where nothing comes of it
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
from segvit.app.worker import serve
from segvit.errors import UserError

OURS = "an error on our side; whoever runs this page sees more in the terminal"
POLL = 0.2
"""Seconds between looks at whether the page is being closed."""


class _Closed(UserError):
    """Asked when it was too late."""


class WorkerPool:
    """As many workers as photos are worked on at the same time. Any thread may ask.

    Args:
        setup: which models, and where they run.
        limits: how many workers, and what they take.
        examples: folder that the first one writes examples to.

    Attributes:
        ready: what the first worker said when its models were loaded.

    Raises:
        UserError: on entering, where a model cannot be loaded.
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
        """End all workers; those who still ask are told."""
        self._closed.set()
        for _ in range(self._limits.concurrency):
            self._free.get().end()

    def ask(self, job: Job) -> Labelled:
        """What becomes of a photo.

        Raises:
            UserError: it is not taken, cannot be read, or takes longer than it may.
        """
        worker, fit = self._take(), False
        try:
            said = worker.answer(job, self._limits.timeout, self._closed)
            fit = True
        except TimeoutError:
            raise UserError(
                f"{job.name}: given up after {self._limits.timeout:g} s, the time that a photo may take here; a "
                "smaller one is quicker"
            ) from None
        except (EOFError, OSError):  # it has ended; what it printed says why
            raise UserError(f"{job.name}: {OURS}") from None
        finally:
            self._free.put(worker if fit or self._closed.is_set() else self._replacement(worker))
        if isinstance(said, Failed):
            raise UserError(said.text)
        return said

    def _take(self) -> "_Worker":
        """A worker that is free, as soon as there is one."""
        while True:
            _check_open(self._closed)
            try:
                return self._free.get(timeout=POLL)
            except queue.Empty:
                continue

    def _replacement(self, worker: "_Worker") -> "_Worker":
        """Another worker in the place of one that is beyond use; it loads its models meanwhile."""
        worker.end()
        try:
            return _Worker(self._setup, self._limits, None)
        except OSError as error:  # no memory or no file left for a process: the next one who asks tries again
            print(f"a worker cannot be replaced: {error}", file=sys.stderr)
            return worker


class _Worker:
    """One process, and the pipe to it."""

    def __init__(self, setup: Setup, limits: Limits, examples: Path | None) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would share the state of CUDA, and of our threads
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, setup, limits, examples), daemon=True)
        self._process.start()
        theirs.close()
        self._ready: Ready | None = None

    def loaded(self, closed: threading.Event) -> Ready:
        """What it says when its models are loaded; waits for that.

        Raises:
            UserError: it cannot load them.
        """
        if self._ready is None:
            try:
                said = self._listen(None, closed)
            except (EOFError, OSError):
                raise UserError("a worker ended while it loaded the models; what it printed says why") from None
            if not isinstance(said, Ready):
                raise UserError(said.text if isinstance(said, Failed) else repr(said))
            self._ready = said
        return self._ready

    def answer(self, job: Job, seconds: float, closed: threading.Event) -> Labelled | Failed:
        """What it makes of a job, within some seconds from when it can begin.

        Raises:
            TimeoutError: it takes longer.
            EOFError, OSError: it has ended.
            UserError: the page is being closed.
        """
        try:
            self.loaded(closed)
        except _Closed:
            raise
        except UserError as error:  # it was loaded once: the file is gone, or the memory is full
            print(f"a worker cannot be replaced: {error}", file=sys.stderr)
            raise EOFError from error
        self._pipe.send(job)
        said = self._listen(seconds, closed)
        assert isinstance(said, Labelled | Failed)
        return said

    def end(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _listen(self, seconds: float | None, closed: threading.Event) -> object:
        """The next thing that it says."""
        until = None if seconds is None else time.monotonic() + seconds
        while not self._pipe.poll(POLL if until is None else min(POLL, max(until - time.monotonic(), 0))):
            _check_open(closed)
            if until is not None and time.monotonic() >= until:
                raise TimeoutError
        return self._pipe.recv()


def _check_open(closed: threading.Event) -> None:
    """Refuse where the page is being closed."""
    if closed.is_set():
        raise _Closed("this page is being closed")
