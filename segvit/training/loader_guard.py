"""Errors that stop a run with an explanation: a full disk, a dead loader process, losses that fp16 cannot hold.

    with writing(path, run=output): ...             # a UserError that names the file and the last checkpoint
    with written(path, run=output) as aside: ...    # the file is also complete or absent
    for batch in watched(loader, run=output): ...   # a UserError that names the signal and the process

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
"""Number of steps in a row that fp16's scaler may skip. It halves its scale at each, starting from 65,536."""
CAUSES = {
    "SIGKILL": "usually memory ran out, and the system or the batch system ended it",
    "SIGBUS": "usually the shared memory (/dev/shm) is full",
    "SIGTERM": "something asked it to end",
    "SIGSEGV": "a library crashed, usually on a damaged image: segvit check-data finds those",
}
"""Usual causes of the end of a loader process, by signal."""


def going_on(run: Path) -> str:
    """Return how to continue a run that has ended."""
    saved = checkpoints(run)
    if saved:
        return f"--resume continues from {saved[0]}"
    return f"start it again, with --output {run} --overwrite: there is no checkpoint yet"


@contextmanager
def writing(path: Path, *, run: Path) -> Iterator[None]:
    """Turn an error while `path`, in the folder of a run, is written into a UserError.

    Raises:
        UserError: `path` cannot be written.
    """
    try:
        yield
    except OSError as error:  # the remedy names the newest checkpoint, so it is looked for only now
        raise cannot_write(path, error, f"make room, then {going_on(run)}") from error


@contextmanager
def written(path: Path, *, run: Path) -> Iterator[Path]:
    """Yield a path to write to, which is renamed to `path` at the end: see `whole_file`.

    Raises:
        UserError: `path` cannot be written.
    """
    with writing(path, run=run), whole_file(path) as aside:
        yield aside


class LoaderDied(UserError):
    """A loader process has ended."""


def watched(loader: DataLoader[Any], *, run: Path) -> Iterator[Any]:
    """Yield the batches of a loader, and raise the death of one of its processes between two batches.

    torch raises it at once, wherever the main thread is: in the middle of an optimizer's step, or of a checkpoint. Here
    its signal handler is off, and the loader itself notices within 5 seconds.

    Raises:
        LoaderDied: a process has died.
    """
    before = multiprocessing.active_children()
    with _sigterm_held_back():
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
            except (RuntimeError, OSError, EOFError):  # EOFError: it died while it handed over a batch
                wait([process.sentinel for process in processes], timeout=1)
                dead = [process for process in processes if process.exitcode is not None]
                if not dead:
                    raise
            else:
                yield batch
        raise LoaderDied(_explain_death(dead[0].pid, dead[0].exitcode or 0, len(processes), run))
    finally:
        del batches  # ends the other processes, which torch's handler would report as well
        if main:
            signal.signal(signal.SIGCHLD, handler)


@contextmanager
def _sigterm_held_back() -> Iterator[None]:
    """Block SIGTERM inside the block. Processes that start in it keep it blocked until they wait for it."""
    if not hasattr(signal, "sigwaitinfo"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _explain_death(pid: int | None, code: int, workers: int, run: Path) -> str:
    """Explain the end of a loader process by its exit code (negative: a signal)."""
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    cause = CAUSES.get(name, "the messages above may say why")
    fewer = f"--data.workers {workers // 2}" + (" (load in the main process)" if workers == 1 else "")
    return (
        f"a loader process (pid {pid}, one of {workers}) was ended by {name}: {cause}. Use fewer, such as {fewer}; "
        f"{going_on(run)}"
    )


def shield_from_sigterm(_: int) -> None:
    """Keep a loader process alive if a batch system sends SIGTERM to all processes of a run.

    Its parent finishes the step, writes a checkpoint, and then ends the loader by the same signal. `watched`
    has blocked the signal before the process started, so one that comes before this function waits for it. If the
    system does not say who sent a signal (not Linux), nothing changes, and `watched` reports its end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches it too, and its parent answers
    if not hasattr(signal, "sigwaitinfo"):
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def listen() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()


def count_skipped(before: int, *, skipped: bool) -> int:
    """Count the steps in a row that fp16's scaler has skipped because gradients were not finite.

    Raises:
        UserError: too many, so the model no longer learns.
    """
    count = before + 1 if skipped else 0
    if count >= MAX_SKIPPED:
        raise UserError(
            f"fp16 has skipped the last {count} steps, because their gradients were not finite at any scale: type "
            "--precision bf16 or fp32, or a lower --optim.lr"
        )
    return count
