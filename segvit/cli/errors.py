"""Errors on the terminal, each of them once: the processes that torchrun starts mostly make the same mistake.

    say_once("error: no config file 'camvid/vit_tny'")
    with parser_errors() as console:            # what a parser prints to it is said once as well

torchrun gives the processes of a machine a folder of their own, in which the first to say something leaves a note.
Where another launcher started them, each says what it has to say.
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
"""Seconds that a process waits for another to say what both have to say."""


def say_once(text: str) -> None:
    """Print a text on stderr, unless a process beside this one has said the same."""
    folder = _shared_folder()
    if folder is None:
        print(text, file=sys.stderr, flush=True)
        return
    own = os.environ.get("LOCAL_RANK", "0")
    note = folder / f"said-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    try:
        with note.open("x") as file:  # which one process alone can
            print(text, file=sys.stderr, flush=True)
            file.write(own)
        return
    except FileExistsError:
        # Waits, for torchrun ends all when the first one leaves. A note of its own is from an earlier command.
        if _content_of(note) not in ("", own):
            return
    except OSError:  # the folder is gone, or the disk is full
        pass
    print(text, file=sys.stderr, flush=True)


@contextmanager
def parser_errors() -> "Iterator[Console | None]":
    """A console whose content is said once at the end of the block; None, for the usual one, to a process alone."""
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
    """The folder that torchrun has made for its processes on this machine; None to a process alone."""
    error_file = os.environ.get("TORCHELASTIC_ERROR_FILE")  # FOLDER/RANK/error.json
    if not error_file or os.environ.get("LOCAL_WORLD_SIZE", "1") == "1":
        return None
    return Path(error_file).parent.parent


def _content_of(note: Path) -> str:
    """Who has left a note, once it is written; nothing where that takes too long."""
    end = time.monotonic() + PATIENCE
    while not (content := note.read_text()) and time.monotonic() < end:
        time.sleep(0.02)
    return content
