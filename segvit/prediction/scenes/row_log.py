"""Finished rows of tiles of a label map, in a file that a killed run can be resumed from.

    with RowLog.open(path, fingerprint) as log:
        for number in range(log.count, wanted):
            log.append(labels)              # (y, W) uint8 or uint16, on the disk when it returns
        log.read(0)

Each record holds its length, a checksum and the compressed rows. A record that was cut short by a kill is dropped.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

MAGIC = b"segvit rows 1\n"
HEAD = struct.Struct("<QIIIc")
"""Bytes of the compressed rows, their checksum, height and width, and the type of the values."""
TYPES: dict[bytes, np.dtype[Any]] = {b"B": np.dtype("uint8"), b"H": np.dtype("<u2")}
FASTEST = 1
"""Level of zlib."""


class _Record(NamedTuple):
    """Place of a record in the file."""

    offset: int
    length: int
    shape: tuple[int, int]
    kind: bytes


class RowLog:
    """An open file of finished rows of tiles."""

    def __init__(self, file: BinaryIO, records: list[_Record], end: int) -> None:
        self._file, self._records = file, records
        file.seek(end)
        file.truncate()

    @classmethod
    @contextmanager
    def open(cls, path: Path, fingerprint: str) -> Iterator["RowLog"]:
        """Open the file of an earlier run with the same fingerprint, or begin a new one."""
        start = MAGIC + fingerprint.encode() + b"\n"
        path.touch()
        with path.open("rb+") as file:
            if file.read(len(start)) == start:
                records, end = _records(file, len(start))
            else:
                file.seek(0)
                file.truncate()
                file.write(start)
                records, end = [], len(start)
            yield cls(file, records, end)

    @property
    def count(self) -> int:
        """Number of finished rows of tiles."""
        return len(self._records)

    def append(self, labels: npt.NDArray[Any]) -> None:
        """Add the labels (y, W) of a row of tiles, and put them on the disk."""
        kind = next(kind for kind, dtype in TYPES.items() if dtype == labels.dtype)
        content = zlib.compress(np.ascontiguousarray(labels).tobytes(), FASTEST)
        shape = (labels.shape[0], labels.shape[1])
        self._file.write(HEAD.pack(len(content), zlib.crc32(content), *shape, kind))
        self._records.append(_Record(self._file.tell(), len(content), shape, kind))
        self._file.write(content)
        self._file.flush()
        os.fsync(self._file.fileno())

    def read(self, number: int) -> npt.NDArray[Any]:
        """Return the labels (y, W) of a finished row of tiles."""
        record = self._records[number]
        here = self._file.tell()
        self._file.seek(record.offset)
        content = self._file.read(record.length)
        self._file.seek(here)
        values: npt.NDArray[Any] = np.frombuffer(zlib.decompress(content), dtype=TYPES[record.kind])
        return values.reshape(record.shape)


def _records(file: BinaryIO, offset: int) -> tuple[list[_Record], int]:
    """Return the whole records of a file from an offset on, and the end of the last one."""
    records: list[_Record] = []
    while len(head := file.read(HEAD.size)) == HEAD.size:
        length, checksum, height, width, kind = HEAD.unpack(head)
        left = os.fstat(file.fileno()).st_size - file.tell()
        if kind not in TYPES or length > left or zlib.crc32(content := file.read(length)) != checksum:
            break
        offset += HEAD.size + len(content)
        records.append(_Record(offset - length, length, (height, width), kind))
    return records, offset
