"""The pool of workers where none can be started, without processes. test_app_page.py has it with real ones."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from segvit.app import worker_pool
from segvit.app.limits import Limits
from segvit.app.messages import Job, Setup
from segvit.app.serving.refusals import Ended, ServerFault
from segvit.app.worker_pool import WorkerPool
from segvit.errors import UserError

JOB = Job(photo=Path("photo.png"), name="photo.png", models=("street",), folder=Path("out"))


class Broken:
    """A worker that has ended; `made` counts how many were started, by their number of failures."""

    made: list[int]

    def __init__(self, number: int, *_: object, failures: int = 0) -> None:
        self.made.append(failures)
        self.number, self.failures, self.begun = number, failures, time.monotonic()
        self.was_ready, self.has_ended = False, True

    def answer(self, *_: object) -> Any:
        raise EOFError

    def end(self) -> None:
        pass


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerPool]:
    """A pool whose only worker was ready and has ended. Nobody watches it."""
    monkeypatch.setattr(Broken, "made", [], raising=False)
    monkeypatch.setattr(worker_pool, "Worker", Broken)
    made = WorkerPool(Setup(models=("street",)), Limits(), examples=Path("examples"))
    (worker := Broken(0)).was_ready = True
    Broken.made.clear()
    made._workers = [worker]  # type: ignore[list-item]
    made._free.put(worker)  # type: ignore[arg-type]
    yield made
    made.close()


def waits(pool: WorkerPool) -> None:
    """Check that a request waits, starts no worker, and ends when the pool is closed."""
    before, errors = [*Broken.made], []

    def ask() -> None:
        try:
            pool.ask(JOB)
        except UserError as error:
            errors.append(type(error))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(0.5)
    assert thread.is_alive() and pool.waiting == 1 and Broken.made == before
    pool.close()
    thread.join(10)
    assert errors == [Ended] and Broken.made == before


def test_requests_do_not_start_workers_during_a_pause(pool: WorkerPool) -> None:
    with pytest.raises(ServerFault):
        pool.ask(JOB)
    assert Broken.made == [0, 1] and pool.restarts == 2  # at once, and once more; the next one after 2 s
    waits(pool)


def test_a_pause_follows_where_no_process_can_be_started(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("cannot allocate memory")

    with monkeypatch.context() as full:
        full.setattr(worker_pool, "Worker", refuse)
        with pytest.raises(ServerFault):
            pool.ask(JOB)
    assert capsys.readouterr().err.count("a worker cannot be replaced: cannot allocate memory") == 1
    waits(pool)
