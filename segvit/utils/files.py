"""Write files that are there whole or not at all, and report the ones that cannot be written.

with writing(path, "give another file"):        # an OSError becomes a UserError that names the file
    with whole_file(path) as aside:             # flushed to the disk, then renamed to `path`
        aside.write_text(text, encoding="utf-8")
"""

import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from segvit.errors import UserError

PARTIAL = ".partial"
"""Ending of the names of unfinished files."""
CACHE_VARIABLE = "SEGVIT_CACHE"
"""Environment variable for the cache folder. Default: the platform's."""


def expanded(path: str | Path) -> str:
    """Return a path whose first part `~` or `~user` is replaced by that home folder. Other text is unchanged.

    Raises:
        UserError: there is no such user.
    """
    text = str(path)
    if not text.startswith("~") or (text != "~" and len(Path(text).parts) == 1) or Path(text).exists():
        return text
    try:
        return str(Path(text).expanduser())
    except RuntimeError as error:
        raise UserError(f"{path}: there is no home folder {Path(text).parts[0]}; write the path in full") from error


def cache_folder() -> Path:
    """Return the cache folder for converted models, class counts and indexes of shards.

    It is $SEGVIT_CACHE, or segvit's own in the platform's folder for caches.
    """
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "segvit"


@contextmanager
def whole_file(path: Path, *, flush: bool = True, ending: str | None = None) -> Iterator[Path]:
    """Yield a path beside `path` to write a file or a folder to, and rename it to `path` at the end of the block.

    After an error the unfinished file is removed, and what `path` held before is untouched.

    Args:
        path: final place.
        flush: put the file on the disk before it gets its name. Otherwise a power cut can leave an empty file. Files
            inside a folder are not flushed: call `flush_file` on each.
        ending: give the unfinished file a unique, hidden name with this ending, for files that several processes may
            write at once. Default: the name of `path` plus `.partial`, so that a killed process leaves at most one.
    """
    name = path.name + PARTIAL if ending is None else f".{uuid.uuid4().hex}{ending}"
    aside = path.with_name(name)
    try:
        yield aside
        if flush and aside.is_file():
            flush_file(aside)
        aside.replace(path)
    finally:
        with suppress(OSError):  # the error that led here says more
            remove(aside)


def flush_file(path: Path) -> None:
    """Put a written file on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def flush_folder(path: Path) -> None:
    """Put the names in a folder on the disk, where the system can (POSIX)."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check_writable(path: Path, *, folder: bool, remedy: str) -> None:
    """Check by trial that a file, or files in a folder, can be created. Nothing is left behind.

    Args:
        path: the file or folder; its parents may be missing.
        folder: `path` is a folder.
        remedy: what the user can do, in the imperative.

    Raises:
        UserError: it cannot be written.
    """
    place = path if folder else path.parent
    own = f".{uuid.uuid4().hex[:8]}{PARTIAL}"
    with writing(path, remedy):
        if os.path.lexists(place):
            _try_writing(place / own if folder else path)
            return
        there = next(parent for parent in place.parents if os.path.lexists(parent))
        aside = there / own  # the missing folders are created in here, where no other process creates or removes them
        try:
            aside.mkdir()
        except OSError as error:
            # Some folders, such as /proc, say that they do not exist if something is created in them.
            error.filename = str(path if isinstance(error, FileNotFoundError) else there)
            raise
        try:
            inside = aside / place.relative_to(there)
            inside.mkdir(parents=True)
            _try_writing(inside / (own if folder else path.name))
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _try_writing(path: Path) -> None:
    """Open a file for writing. A new file is removed again.

    Raises:
        OSError: it cannot be opened.
    """
    try:
        path.open("xb").close()
    except FileExistsError:
        path.open("ab").close()
    else:
        path.unlink(missing_ok=True)  # another process may have removed it


def files_below(folder: Path, *, follow: bool) -> Iterator[Path]:
    """Yield the files in a folder and its subfolders, sorted, without hidden ones (.DS_Store, ._photo.jpg).

    Args:
        folder: where to search.
        follow: also search folders that are symbolic links.

    Raises:
        UserError: a folder cannot be read.
    """
    for base, folders, files in os.walk(folder, followlinks=follow, onerror=_refuse_folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(base, name) for name in sorted(files) if not name.startswith("."))


def _refuse_folder(error: OSError) -> NoReturn:
    """Raise the error for a folder that cannot be read."""
    raise UserError(
        f"{error.filename}: the folder cannot be read ({error.strerror}); allow reading it, or move it elsewhere"
    ) from error


def cannot_write(path: str | Path, reason: object, remedy: str) -> UserError:
    """Return the error for a file or folder that cannot be written.

    Args:
        path: file or folder, or the flag and the file.
        reason: the system's error, or a few words.
        remedy: what the user can do, in the imperative.
    """
    if isinstance(reason, OSError) and reason.strerror:
        parent = str(reason.filename)
        reason = f"{reason.strerror}: {parent}" if parent in map(str, Path(path).parents) else reason.strerror
    return UserError(f"{path}: cannot be written ({reason}); {remedy}")


@contextmanager
def writing(path: str | Path, remedy: str) -> Iterator[None]:
    """Turn an OSError inside the block into the UserError of `cannot_write`.

    Raises:
        UserError: something inside the block could not be written.
    """
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error, remedy) from error
