"""Read parts of a tar shard: a file, or a URL that answers Range requests.

    shard = look_at("https://host/train-000000.tar")
    shard.read(offset=512, size=1024)

A shard holds no open file. Each read opens its own, so threads, workers and ranks can share one.
"""

import io
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from segvit.data.images import Unreadable
from segvit.data.member import Member, MemberStat
from segvit.data.packed.ranges import fetch_range, is_url, measure, shown
from segvit.errors import UserError

HEADER_BLOCK = 65_536
"""Bytes that are read ahead of a header of a remote shard."""


@dataclass(frozen=True)
class Shard:
    """A tar file at one moment."""

    place: str
    """Path or URL."""
    size: int
    """Bytes of the file."""
    version: int
    """Modification time in nanoseconds; of a URL, a number made of its ETag or its date. 0 if it has neither."""

    def __str__(self) -> str:
        return shown(self.place) if is_url(self.place) else self.place

    @property
    def stem(self) -> str:
        """Name without folder and suffix."""
        return Path(self.place.partition("?")[0]).stem

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`.

        Raises:
            Unreadable: the shard is gone or has changed.
        """
        if is_url(self.place):
            return fetch_range(self.place, offset, size, total=self.size)
        try:
            with Path(self.place).open("rb") as file:
                now = os.fstat(file.fileno()).st_size
                file.seek(offset)
                content = file.read(size)
        except OSError as error:
            raise Unreadable(f"{self.place}: cannot be read ({error}); restore the shard") from error
        if now != self.size or len(content) < size:
            raise Unreadable(
                f"{self.place}: had {self.size} bytes and has {now} now; restore it, or run the command again"
            )
        return content

    def open(self) -> BinaryIO:
        """Open the shard for reading its headers.

        Raises:
            UserError: it cannot be opened.
        """
        if is_url(self.place):
            return io.BufferedReader(_Remote(self), HEADER_BLOCK)
        try:
            return Path(self.place).open("rb")
        except OSError as error:
            raise UserError(f"{self.place}: cannot be read ({error}); restore the shard") from error


class _Remote(io.RawIOBase):
    """A remote shard as a file that can be read and moved in."""

    def __init__(self, shard: Shard) -> None:
        self._shard, self._position = shard, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._shard.size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        size = min(len(buffer), max(self._shard.size - self._position, 0))
        if size:
            buffer[:size] = self._shard.read(self._position, size)
            self._position += size
        return size


@dataclass(frozen=True)
class TarMember(Member):
    """A file in a tar shard."""

    shard: Shard
    path: str
    """Name in the shard, with its folders."""
    offset: int
    """First byte of the content."""
    size: int
    """Bytes of the content."""

    @property
    def name(self) -> str:
        """Name in the shard, with its folders."""
        return self.path

    def __str__(self) -> str:
        return f"{self.shard}: {self.path}"

    def open(self, mode: Literal["rb"] = "rb") -> BinaryIO:
        """Read the content, and open it.

        Raises:
            Unreadable: the shard is gone or has changed.
        """
        return io.BytesIO(self.shard.read(self.offset, self.size))

    def stat(self) -> MemberStat:
        """Return the size of the member and the time of the shard."""
        return MemberStat(self.size, self.shard.version)


def look_at(place: str) -> Shard:
    """Return a shard with its size and version.

    Raises:
        UserError: there is no such file, or the server does not answer Range requests.
    """
    if is_url(place):
        size, tag = measure(place)
        return Shard(place, size, zlib.crc32(tag.encode()) if tag else 0)
    try:
        state = Path(place).stat()
    except OSError as error:
        raise UserError(f"{place}: cannot be read ({error}); give a .tar file that exists") from error
    return Shard(place, state.st_size, state.st_mtime_ns)
