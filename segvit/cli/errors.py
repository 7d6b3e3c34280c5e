"""Print each error once, although all processes started by torchrun usually fail in the same way.

    say_once("error: no config file 'camvid/vit_tny'")
    with parser_errors() as console:            # text that a parser prints to it is printed once as well

torchrun gives the processes of a machine a shared folder. The first process to print a text leaves a note in it. With
other launchers, every process prints its own errors.
"""

import hashlib
import io
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PATIENCE = 10.0
"""Seconds that a process waits for another one to print the same text."""


def say_once(text: str) -> None:
    """Print a text on stderr, unless another process on this machine has printed the same."""
    folder = _shared_folder()
    if folder is None:
        print(text, file=sys.stderr, flush=True)
        return
    own = os.environ.get("LOCAL_RANK", "0")
    note = folder / f"said-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    try:
        with note.open("x") as file:  # only one process can create it
            print(text, file=sys.stderr, flush=True)
            file.write(own)
        return
    except FileExistsError:
        # Wait: torchrun ends all processes when the first one exits. A note by this rank is from an earlier command.
        if _content_of(note) not in ("", own):
            return
    except OSError:  # the folder was deleted, or the disk is full
        pass
    print(text, file=sys.stderr, flush=True)


@contextmanager
def parser_errors() -> "Iterator[Console | None]":
    """Yield a console whose text is printed once at the end of the block, or None in a single process."""
    if _shared_folder() is None:
        yield None
        return
    from rich.console import Console

    held = io.StringIO()
    try:
        yield Console(file=held)
    finally:
        if text := held.getvalue().rstrip():
            say_once(text)


def _shared_folder() -> Path | None:
    """Return the folder that torchrun made for its processes on this machine, or None in a single process."""
    error_file = os.environ.get("TORCHELASTIC_ERROR_FILE")  # FOLDER/RANK/error.json
    if not error_file or os.environ.get("LOCAL_WORLD_SIZE", "1") == "1":
        return None
    return Path(error_file).parent.parent


def _content_of(note: Path) -> str:
    """Return the rank written in a note, or "" if the note stays empty for too long."""
    end = time.monotonic() + PATIENCE
    while not (content := note.read_text()) and time.monotonic() < end:
        time.sleep(0.02)
    return content
