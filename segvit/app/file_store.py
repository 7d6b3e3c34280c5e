"""The only folder that the page writes to: uploads, results, examples. Old files are deleted, in the end all of it.

with FileStore(limits) as store:
    place = store.open()                    # a new folder for results, with a name that cannot be guessed
    store.find(place.name, "0", "photo.png")
"""

import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from segvit.app.limits import Limits

TOKEN = re.compile(r"[A-Za-z0-9_-]{22}")
GIGA = 1_000_000_000
FULL = "The server is out of space. Please try again in a few minutes."
"""Answer if there is no room."""
LOOK_EVERY = 15.0
"""Longest time in seconds between two searches for old files."""


class FileStore:
    """A temporary folder, with a thread that deletes files unused for `limits.keep_minutes`.

    A photo that waits for its turn counts as used.

    Attributes:
        root: the folder.
        uploads: folder where Gradio puts uploaded files.
        results: folders of `open`.
        examples: folder of the photos offered; they are not deleted.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="store", daemon=True)
        self._kept: frozenset[Path] = frozenset()
        self._held: Counter[Path] = Counter()
        self._lock = threading.Lock()
        """Held while a file is deleted, so that none goes that somebody has just begun to hold."""

    def __enter__(self) -> "FileStore":
        self.root = Path(tempfile.mkdtemp(prefix="segvit-app-")).resolve()
        self.uploads, self.results, self.examples = (self.root / name for name in ("uploads", "results", "examples"))
        for folder in (self.uploads, self.results, self.examples):
            folder.mkdir()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        shutil.rmtree(self.root, ignore_errors=True)  # on some systems a killed worker still holds a file

    def keep(self, files: Iterable[Path]) -> None:
        """Never delete these uploads: they are copies of the examples."""
        self._kept = frozenset(files)

    def open(self) -> Path:
        """Make a new folder for the results of one photo or batch."""
        folder = self.results / secrets.token_urlsafe(16)
        folder.mkdir()
        return folder

    @contextmanager
    def open_upload(self) -> Iterator[Path]:
        """Yield a new folder for a photo that does not come through Gradio. It is removed at the end of the block."""
        folder = self.uploads / secrets.token_urlsafe(16)
        try:
            with self.holding(folder):
                folder.mkdir()
                yield folder
        finally:
            self.remove(folder)

    @contextmanager
    def holding(self, *paths: Path) -> Iterator[None]:
        """Keep files, and folders with what is in them, until the end of the block. Then their age starts from 0."""
        with self._lock:
            self._held.update(paths)
        try:
            yield
        finally:
            for path in paths:
                self.touch(path)
            with self._lock:
                self._held -= Counter(paths)

    def remove(self, folder: Path) -> None:
        """Delete a folder of `open` with its files."""
        shutil.rmtree(folder, ignore_errors=True)

    def find(self, token: str, *names: str) -> Path | None:
        """Return a file in a folder of `open`, or None if there is none or the names lead out of the folder."""
        if TOKEN.fullmatch(token) is None or any(name in ("", ".", "..") or set("/\\\0") & set(name) for name in names):
            return None
        path = self.results.joinpath(token, *names)
        return path if path.is_file() else None

    def holds(self, path: str) -> bool:
        """True if a path is inside the folder of uploads, even if the file is gone."""
        return "\0" not in path and Path(path).resolve().is_relative_to(self.uploads)

    def use(self, path: str) -> bool:
        """True if a file is an upload that still exists. Its age then starts again from 0."""
        if not self.holds(path) or not Path(path).is_file():
            return False
        Path(path).touch()
        return True

    def wait_for_turn(self, path: str) -> None:
        """Let the age of an upload start only when its turn in the queue must have come."""
        turn = time.time() + self._limits.longest_wait
        with suppress(OSError):  # it has been deleted meanwhile, or no file can have this path
            os.utime(path, (turn, turn))

    def touch(self, path: Path) -> None:
        """Start the age of a file, or of a folder of `open` and all files in it, again from 0."""
        for file in (path, *path.rglob("*")):
            with suppress(FileNotFoundError):  # it has been deleted meanwhile
                os.utime(file)

    def room(self) -> int:
        """Return the number of bytes that are still free."""
        return round(self._limits.max_gigabytes * GIGA) - sum(size for _, size, _ in self._files())

    def clear(self, *, older: float) -> None:
        """Delete files unused for `older` seconds, and folders that have been empty for as long."""
        now = time.time()
        for path, _, used in self._files():
            if now - used >= older and path not in self._kept:
                with self._lock:
                    if not self._is_held(path):
                        path.unlink(missing_ok=True)
        for base, _, _ in os.walk(self.root, topdown=False):
            folder = Path(base)
            if folder.parent == self.root or folder == self.root:
                continue
            try:
                with self._lock:
                    if now - folder.stat().st_mtime >= min(older, LOOK_EVERY) and not self._is_held(folder):
                        folder.rmdir()
            except OSError:  # it is not empty, or another thread has removed it
                continue

    def _is_held(self, path: Path) -> bool:
        """True if somebody holds a file or folder, or one that it is in."""
        return any(each in self._held for each in (path, *path.parents))

    def _files(self) -> list[tuple[Path, int, float]]:
        """Return path, size in bytes and time of last use of every upload and result."""
        found = []
        for top in (self.uploads, self.results):
            for base, _, names in os.walk(top):  # copes with folders that are deleted meanwhile
                for name in names:
                    try:
                        facts = (path := Path(base, name)).stat()
                    except OSError:
                        continue
                    found.append((path, facts.st_size, facts.st_mtime))
        return found

    def _watch(self) -> None:
        """Delete old files until the store is closed."""
        older = 60 * self._limits.keep_minutes
        while not self._ended.wait(min(LOOK_EVERY, older)):
            self.clear(older=older)
