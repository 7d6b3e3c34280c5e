"""List the members of tar shards with their offsets, and keep the lists in the cache folder.

    entries = read_index(look_at("train-000000.tar"))
    entries[0]                                  # Entry(path="0001.jpg", offset=512, size=20480)

Only headers are read, by Python's tarfile. Nothing is extracted.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from segvit.data.packed.ranges import is_url
from segvit.data.packed.shard import Shard
from segvit.errors import UserError
from segvit.utils.files import PARTIAL, cache_folder, whole_file, writing

FORMAT = 1
"""Version of the kept lists. A list of another version is made again."""
LONGEST_HEADER = 2**20
"""Bytes that a header with its extensions may have. A damaged one may claim any size."""
TAIL = 65_536
"""Bytes behind the end mark of a shard that are searched for further members."""
THREADS = 16
"""Number of shards whose headers are read at the same time."""
REMEDY = "write the shard again"


class Entry(NamedTuple):
    """A regular file in a shard."""

    path: str
    """Name with folders."""
    offset: int
    """First byte of the content."""
    size: int
    """Bytes of the content."""


def read_indexes(shards: Sequence[Shard]) -> list[list[Entry]]:
    """Return the entries of each shard, from several threads.

    Raises:
        UserError: as `read_index`.
    """
    pool = ThreadPoolExecutor(max_workers=max(1, min(THREADS, len(shards))))
    try:
        return list(pool.map(read_index, shards))
    finally:
        pool.shutdown(cancel_futures=True)


def read_index(shard: Shard) -> list[Entry]:
    """Return the entries of a shard, from the cache folder if it was read before and has not changed since.

    Raises:
        UserError: the shard is no tar file, is compressed, damaged or truncated, or the list cannot be kept.
    """
    place = shard.place if is_url(shard.place) else str(Path(shard.place).absolute())
    digest = hashlib.sha256(json.dumps([place, shard.size, shard.version]).encode()).hexdigest()
    file = cache_folder() / "shards" / f"{digest}.json"
    entries = _load(file, shard)
    if entries is None:
        with shard.open() as opened:
            entries = list(_entries(opened, shard))
        _store(file, entries)
    return entries


def _entries(opened: BinaryIO, shard: Shard) -> Iterator[Entry]:
    """Yield the regular files of a shard, and check that it is complete."""
    headers = _Headers(opened, shard)
    end = 0
    try:
        with tarfile.open(fileobj=headers, mode="r:", errorlevel=2) as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # tarfile keeps every header otherwise
                if member.size < 0 or member.offset < end:
                    raise UserError(f"{shard}: the header of {member.name!r} is damaged; {REMEDY}")
                end = member.offset_data + (
                    -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE if _has_data(member) else 0
                )
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise UserError(f"{shard}: {member.name!r} is a link or a special file; store the file itself")
                if member.offset_data + member.size > shard.size:
                    raise UserError(f"{shard}: truncated in {member.name!r}; copy the shard again")
                yield Entry(member.name, member.offset_data, member.size)
    except (tarfile.TarError, OSError, ValueError, EOFError, OverflowError) as error:
        raise UserError(f"{shard}: cannot be read as a tar file ({error}){_explain(opened)}") from error
    _check_end(opened, shard, end)


def _has_data(member: tarfile.TarInfo) -> bool:
    """True if the content of a member follows its header."""
    return member.isreg() or member.type not in tarfile.SUPPORTED_TYPES


def _check_end(opened: BinaryIO, shard: Shard, end: int) -> None:
    """Check that tarfile stopped at the end mark or the end of the file, and not at a damaged header."""
    opened.seek(end)
    tail = opened.read(min(TAIL, max(shard.size - end, 0)))
    if not any(tail):
        return
    if any(tail[: tarfile.BLOCKSIZE]):
        raise UserError(f"{shard}: the header at byte {end} is damaged; {REMEDY}")
    raise UserError(
        f"{shard}: further members follow its end mark, as after `cat` of two archives; join archives with `tar -A`"
    )


def _explain(opened: BinaryIO) -> str:
    """Return what is wrong with a file that is no tar file, and the remedy."""
    opened.seek(0)
    head = opened.read(6)
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        return "; it is compressed, but samples are read by their offsets: unpack it to a plain .tar"
    return f"; {REMEDY}"


class _Headers(io.RawIOBase):
    """A shard as tarfile reads it, which refuses to read more than headers need."""

    def __init__(self, opened: BinaryIO, shard: Shard) -> None:
        self._opened, self._shard = opened, shard

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= LONGEST_HEADER:
            raise UserError(f"{self._shard}: a header claims {size} bytes; {REMEDY}")
        return self._opened.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._opened.seek(offset, whence)

    def tell(self) -> int:
        return self._opened.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


def _load(file: Path, shard: Shard) -> list[Entry] | None:
    """Read a kept list. None if it is missing or damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            return None
        entries = [Entry(path, offset, size) for path, offset, size in content["entries"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return entries if all(_is_entry(entry, shard.size) for entry in entries) else None


def _is_entry(entry: Entry, total: int) -> bool:
    """True if an entry has the right types and is inside its shard."""
    values: tuple[Any, ...] = entry
    if not (isinstance(values[0], str) and type(values[1]) is int and type(values[2]) is int):
        return False
    return 0 <= entry.offset <= entry.offset + entry.size <= total


def _store(file: Path, entries: Sequence[Entry]) -> None:
    """Write a list under another name and rename it, because other processes may do the same."""
    with writing(file, "name another folder for the indexes of shards in SEGVIT_CACHE"):
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(file, flush=False, ending=PARTIAL) as aside:
            aside.write_text(json.dumps({"format": FORMAT, "entries": entries}), encoding="utf-8")
