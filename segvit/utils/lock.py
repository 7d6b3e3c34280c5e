"""Hold a folder for one process. The lock ends with the process, however that ends.

with held(Path("runs/photos"), what="a run", say=print): ...
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import IO

from segvit.errors import UserError
from segvit.utils.files import writing

LOCK = ".lock"
"""File in a folder that its process holds locked."""
HOLDER = 1
"""Byte at which the text about the holder begins; Windows locks the byte before it."""


@contextmanager
def held(folder: Path, *, what: str, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a folder during the block.

    Args:
        folder: must exist.
        what: thing that is under way in the folder, such as "a run".
        say: prints a warning if the file system has no locks.

    Raises:
        UserError: another process holds it, or the lock file cannot be written.
    """
    path = folder / LOCK
    with writing(path, "give another folder"):
        file = path.open("a+", encoding="utf-8")
    with file:
        try:
            _lock(file)
        except (BlockingIOError, PermissionError) as error:
            file.seek(HOLDER)
            raise UserError(
                f"{folder}: {what} is under way in this folder ({file.read().strip()}): wait for its end, or give "
                "another folder"
            ) from error
        except OSError as error:
            say(f"warning: {folder} cannot be locked ({error.strerror}): start nothing else in it")
        file.truncate(0)
        file.write(f" process {os.getpid()}, since {datetime.now():%Y-%m-%d %H:%M}\n")
        file.flush()
        try:
            yield
        finally:
            _unlock(file)


def _unlock(file: IO[str]) -> None:
    """Release the lock of a file. Closing it is not enough while a forked process has it open too."""
    if os.name == "posix":
        fcntl = import_module("fcntl")
        with suppress(OSError):  # the file system has no locks
            fcntl.flock(file, fcntl.LOCK_UN)


def _lock(file: IO[str]) -> None:
    """Lock an open file until it is closed.

    Raises:
        OSError: another process holds it (BlockingIOError, on Windows PermissionError), or there are no locks.
    """
    if os.name == "posix":
        fcntl = import_module("fcntl")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        file.seek(0)
        msvcrt = import_module("msvcrt")
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
