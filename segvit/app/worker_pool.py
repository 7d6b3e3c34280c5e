"""The workers of the page: processes with their own models. One that takes too long, or that ends, is replaced.

with WorkerPool(setup, limits, examples=folder) as pool:
    labelled = pool.ask(job)                # waits for a free worker; a UserError if it fails
    pool.states()                           # ["ready"]
"""

import queue
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

from segvit.app.limits import Limits
from segvit.app.messages import Failed, Job, Labelled, Ready, Setup
from segvit.app.serving.refusals import ServerFault, TooSlow
from segvit.app.worker_process import POLL, State, Worker, check_open
from segvit.errors import UserError

OURS = "an error of the server; its terminal shows the details"
LONGEST_PAUSE = 60
"""Seconds between two attempts to start a worker that cannot load its models; the first attempts come sooner."""


class WorkerPool:
    """One worker for each photo processed at the same time. Any thread may call `ask`.

    Args:
        setup: models and their device.
        limits: number of workers, and limits of a photo.
        examples: folder to which the first worker writes the examples.

    Attributes:
        ready: message of the first worker when its models were loaded.
        restarts: number of workers that were replaced.
        waiting: number of jobs that wait for a free worker.

    Raises:
        UserError: on entering, if a model cannot be loaded.
    """

    ready: Ready

    def __init__(self, setup: Setup, limits: Limits, *, examples: Path) -> None:
        self._setup, self._limits, self._examples = setup, limits, examples
        self.restarts = self.waiting = 0
        self._lock = threading.Lock()
        """Held while the counts change."""
        self._free: queue.Queue[Worker] = queue.Queue()
        self._workers: list[Worker] = []
        self._closed = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="workers", daemon=True)

    def __enter__(self) -> "WorkerPool":
        folders = [self._examples] + [None] * (self._limits.concurrency - 1)
        begun = [Worker(number, self._setup, self._limits, folder) for number, folder in enumerate(folders)]
        try:
            self.ready, *_ = [worker.loaded(self._closed) for worker in begun]
        except BaseException:
            for worker in begun:
                worker.end()
            raise
        self._workers = [*begun]
        for worker in begun:
            self._free.put(worker)
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all workers; requests that still wait get an error."""
        self.close()
        self._watcher.join()
        for _ in range(self._limits.concurrency):
            self._free.get().end()

    def close(self) -> None:
        """Let all requests that wait or run end with an error."""
        self._closed.set()

    def states(self) -> list[State]:
        """Return the state of each worker."""
        return [worker.state for worker in self._workers]

    def processes(self) -> list[int]:
        """Return the id of each worker's process."""
        return [worker.process_id for worker in self._workers]

    def ask(self, job: Job) -> Labelled:
        """Label a photo.

        Raises:
            UserError: the photo is refused, cannot be read, or takes too long.
        """
        worker, fit = self._take(), False
        try:
            if worker.has_ended:  # since the last look at it
                worker = self._replacement(worker)
            said = worker.answer(job, self._limits.timeout, self._closed)
            fit = True
        except TimeoutError:
            raise TooSlow(
                f"{job.name}: given up after {self._limits.timeout:g} s, the time limit of a photo; send a smaller one"
            ) from None
        except (EOFError, OSError):  # it has ended, and has printed why
            raise ServerFault(f"{job.name}: {OURS}") from None
        finally:
            kept = fit or self._closed.is_set() or self._rests(worker)
            self._free.put(worker if kept else self._replacement(worker))
        if isinstance(said, Failed):
            raise UserError(said.text)
        return said

    def _take(self) -> Worker:
        """Wait for a free worker that need not rest, and return it."""
        with self._lock:
            self.waiting += 1
        try:
            while True:
                check_open(self._closed)
                try:
                    worker = self._free.get(timeout=POLL)
                except queue.Empty:
                    continue
                if not self._rests(worker):
                    return worker
                self._free.put(worker)
                self._closed.wait(POLL)
        finally:
            with self._lock:
                self.waiting -= 1

    def _replacement(self, worker: Worker) -> Worker:
        """Replace a broken worker; the new one loads its models in the background."""
        worker.end()
        failures = 0 if worker.was_ready else worker.failures + 1
        try:
            new = Worker(worker.number, self._setup, self._limits, None, failures=failures)
        except OSError as error:  # no memory or file handles left: tried again after a pause
            print(f"a worker cannot be replaced: {error}", file=sys.stderr)
            worker.failures, worker.begun = worker.failures + 1, time.monotonic()
            return worker
        self._workers[worker.number] = new
        with self._lock:
            self.restarts += 1
        return new

    def _rests(self, worker: Worker) -> bool:
        """True if a worker has ended, and the last attempt to replace it failed too short a time ago."""
        pause = min(2**worker.failures, LONGEST_PAUSE) if worker.failures else 0
        return worker.has_ended and time.monotonic() - worker.begun < pause

    def _watch(self) -> None:
        """Replace workers that have ended without being asked, until the page closes."""
        while not self._closed.wait(POLL):
            for _ in range(self._free.qsize()):
                try:
                    worker = self._free.get_nowait()
                except queue.Empty:
                    break
                worker.look()
                if worker.has_ended and not self._rests(worker):
                    worker = self._replacement(worker)
                self._free.put(worker)
