"""What ends a run with an answer: a disk that is full, a process of the loader that dies, losses that fp16 cannot hold.

    with writing(path, run=output): ...         # a UserError that names the file and the last checkpoint
    with written(path, run=output) as aside: ...    # the same, and the file is there whole or not at all
    for batch in watched(loader, run=output): ...   # a UserError that says which signal ended which process

The other guards: not_finite.py, checkpoint.py, and data/sampling/{unreadable,manifest}.py.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from segvit.errors import UserError
from segvit.training.checkpoint import checkpoints
from segvit.utils.files import cannot_write, whole_file

MAX_SKIPPED = 50
"""Steps in a row that fp16's scaler may leave out; it halves its scale at each, from 65,536 to nothing."""
CAUSES = {
    "SIGKILL": "memory ran out, most often, and the system or the batch system ended it",
    "SIGBUS": "the shared memory (/dev/shm) is full, most often",
    "SIGTERM": "somebody asked it to end",
    "SIGSEGV": "a library crashed, most often on a damaged image: segvit check-data finds those",
}
"""What usually ends a process that loads, by the signal."""


def going_on(run: Path) -> str:
    """How a run that has ended goes on."""
    saved = checkpoints(run)
    return f"--resume goes on from {saved[0]}" if saved else "start it again: no checkpoint had been written yet"


@contextmanager
def writing(path: Path, *, run: Path) -> Iterator[None]:
    """A block that writes `path`, in the folder of a run.

    Raises:
        UserError: the disk does not take it.
    """
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error, f"make room, then {going_on(run)}") from error


@contextmanager
def written(path: Path, *, run: Path) -> Iterator[Path]:
    """A path aside to write to, which becomes `path` at the end: see `whole_file`.

    Raises:
        UserError: the disk does not take it.
    """
    with writing(path, run=run), whole_file(path) as aside:
        yield aside


class LoaderDied(UserError):
    """A process that loads images has ended."""


def watched(loader: DataLoader[Any], *, run: Path) -> Iterator[Any]:
    """The batches of a loader; the death of one of its processes is told between two batches.

    torch tells as soon as it hears of it, wherever the main thread is: in the middle of an optimizer's step, or of a
    checkpoint. Here its handler rests, and the loader itself finds out within 5 seconds.

    Raises:
        LoaderDied: a process has.
    """
    before = multiprocessing.active_children()
    batches = iter(loader)
    processes = [process for process in multiprocessing.active_children() if process not in before]
    main = bool(processes) and threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD")
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if main else None
    dead: list[multiprocessing.process.BaseProcess] = []
    try:
        while not dead:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError):  # the latter where it dies while it hands over a batch
                wait([process.sentinel for process in processes], timeout=1)
                dead = [process for process in processes if process.exitcode is not None]
                if not dead:
                    raise
            else:
                yield batch
        raise LoaderDied(_explain_death(dead[0].pid, dead[0].exitcode or 0, len(processes), run))
    finally:
        del batches  # which ends the other processes: torch's handler would tell of them as well
        if main:
            signal.signal(signal.SIGCHLD, handler)


def _explain_death(pid: int | None, code: int, workers: int, run: Path) -> str:
    """What is said of a process of the loader that has ended with an exit code (negative: by a signal)."""
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    cause = CAUSES.get(name, "the messages above may tell why")
    fewer = f"--data.workers {workers // 2}" + (" (load in the main process)" if workers == 1 else "")
    return (
        f"a process that loads images (pid {pid}, one of {workers}) was ended by {name}: {cause}. Type fewer, such as "
        f"{fewer}; {going_on(run)}"
    )


def shield_from_sigterm(_: int) -> None:
    """Let a process of the loader live on where a batch system sends SIGTERM to all processes of a run.

    Its parent ends the step, writes a checkpoint and ends it then, by the same signal. Where the system cannot say who
    sent a signal (not Linux), nothing is changed, and `watched` tells of its end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches it too, and is its parent's to answer
    if not hasattr(signal, "sigwaitinfo"):
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def listen() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()


def count_skipped(before: int, *, skipped: bool) -> int:
    """Steps in a row that fp16's scaler has left out because gradients were not finite.

    Raises:
        UserError: too many, so nothing is learnt any more.
    """
    count = before + 1 if skipped else 0
    if count >= MAX_SKIPPED:
        raise UserError(
            f"fp16 has skipped the last {count} steps, whose gradients were not finite at any scale: type --precision "
            "bf16 or fp32, or a lower --optim.lr"
        )
    return count
