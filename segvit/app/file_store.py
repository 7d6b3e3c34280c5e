"""The one folder that the page writes to: uploads, results, examples. Emptied as things grow old, removed at the end.

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
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from segvit.app.limits import Limits

TOKEN = re.compile(r"[A-Za-z0-9_-]{22}")
GIGA = 1_000_000_000
FULL = "too many photos and results are kept here at the moment: send yours again in some minutes"
"""What is said where there is no room."""
LOOK_EVERY = 15.0
"""Longest time in seconds between looks for what has grown old."""


class FileStore:
    """A temporary folder, and a thread that deletes what has not been used for `limits.keep_minutes`.

    Attributes:
        root: the folder.
        uploads: where Gradio puts what visitors send.
        results: folders of `open`.
        examples: photos that are offered; they stay.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="store", daemon=True)
        self._kept: frozenset[Path] = frozenset()

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
        shutil.rmtree(self.root, ignore_errors=True)  # a worker that was killed may still hold a file, on some systems

    def keep(self, files: Iterable[Path]) -> None:
        """Leave some uploads where they are, whatever their age: copies of the examples."""
        self._kept = frozenset(files)

    def open(self) -> Path:
        """A new folder for the results of one photo or batch."""
        folder = self.results / secrets.token_urlsafe(16)
        folder.mkdir()
        return folder

    def find(self, token: str, *names: str) -> Path | None:
        """A file in a folder of `open`; None where there is none, or the names lead elsewhere."""
        if TOKEN.fullmatch(token) is None or any(name in ("", ".", "..") or set("/\\\0") & set(name) for name in names):
            return None
        path = self.results.joinpath(token, *names)
        return path if path.is_file() else None

    def holds(self, path: str) -> bool:
        """Whether a path is that of something which a visitor sent, or may once have sent."""
        return "\0" not in path and Path(path).resolve().is_relative_to(self.uploads)

    def use(self, path: str) -> bool:
        """Whether a file is one that a visitor sent and that is still here; it counts as new from now on."""
        if not self.holds(path) or not Path(path).is_file():
            return False
        Path(path).touch()
        return True

    def room(self) -> int:
        """Bytes that may still come in."""
        return round(self._limits.max_gigabytes * GIGA) - sum(size for _, size, _ in self._files())

    def clear(self, *, older: float) -> None:
        """Delete what has not been used for some seconds, and folders that are empty as long."""
        now = time.time()
        for path, _, used in self._files():
            if now - used >= older and path not in self._kept:
                path.unlink(missing_ok=True)
        for base, _, _ in os.walk(self.root, topdown=False):
            folder = Path(base)
            if folder.parent == self.root or folder == self.root:
                continue
            try:
                if now - folder.stat().st_mtime >= min(older, LOOK_EVERY):
                    folder.rmdir()
            except OSError:  # it holds something, or another thread was quicker
                continue

    def _files(self) -> list[tuple[Path, int, float]]:
        """Path, bytes and time of last use of every upload and result."""
        found = []
        for top in (self.uploads, self.results):
            for base, _, names in os.walk(top):  # which minds no folder that is deleted meanwhile
                for name in names:
                    try:
                        facts = (path := Path(base, name)).stat()
                    except OSError:
                        continue
                    found.append((path, facts.st_size, facts.st_mtime))
        return found

    def _watch(self) -> None:
        """Delete what grows old, until the end."""
        older = 60 * self._limits.keep_minutes
        while not self._ended.wait(min(LOOK_EVERY, older)):
            self.clear(older=older)
