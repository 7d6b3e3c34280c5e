"""Read cells of the tables of the Hugging Face library `datasets` as files.

    pairs = table_pairs(rows, "train", keys, where="user/dataset")
    picture = read_image(pairs[0].image)

Tables are memory-mapped, so a cell is read without the rest. hub_source.py opens them.

Letters: N rows.
"""

import functools
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from segvit.data.images import Unreadable
from segvit.data.member import Member, MemberStat
from segvit.data.packed.keys import IMAGE_NAMES, LABEL_NAMES, Keys, Parts, is_named
from segvit.data.pairs import Pair, first

BYTES = ("binary", "large_binary")
"""Types of columns without the feature Image that may hold files."""
CHUNK = 1000
"""Number of rows whose sizes are measured at a time."""


class Table:
    """One column of a split, whose cells are image files."""

    def __init__(self, rows: Any, column: str, where: str) -> None:
        """Keep the column in memory-mapped form.

        Args:
            rows: `datasets.Dataset`.
            column: name of the column.
            where: name of dataset and split, for messages.
        """
        from datasets import Image

        rows = rows.with_format(None).select_columns([column])
        if isinstance(rows.features[column], Image):
            rows = rows.cast_column(column, Image(decode=False))
        self.rows, self.column, self.where = rows, column, where

    def read(self, row: int) -> bytes:
        """Return the bytes of a cell.

        Raises:
            Unreadable: the cell is empty, or names a file that does not exist.
        """
        content, file = self._look(row)
        where = f"{self.where}, row {row}: column {self.column!r}"
        if content is not None:
            return content
        if file is None:
            raise Unreadable(f"{where} is empty; remove the row, or set data.skip_unreadable")
        try:
            return file.read_bytes()
        except OSError as error:
            raise Unreadable(f"{where} names the file {file}, which cannot be read ({error}); restore it") from error

    def _look(self, row: int) -> tuple[bytes | None, Path | None]:
        """Return the bytes of a cell, or the local file that it names, as in a folder of images."""
        cell = self.rows[row][self.column]
        if not isinstance(cell, dict):
            return cell, None
        path = cell.get("path")
        return cell.get("bytes"), Path(path) if path and Path(path).is_absolute() else None

    def stat(self, row: int) -> MemberStat:
        """Return size and time of a cell: of the file that it names, or of its bytes and the table."""
        size = int(self.sizes[row])
        if size == 0 and (file := self._look(row)[1]) is not None and file.is_file():
            state = file.stat()
            return MemberStat(state.st_size, state.st_mtime_ns)
        return MemberStat(size, self.time)

    @functools.cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Bytes in each cell (N,), measured without reading them. A cell that is empty or names a file has 0."""
        import pyarrow.compute as compute

        found = [np.zeros(0, np.int64)]
        for batch in self.rows.with_format("arrow").iter(CHUNK):
            for chunk in batch.column(self.column).chunks:  # to join them would copy their contents
                contents = chunk.field("bytes") if chunk.type.num_fields else chunk
                lengths = compute.fill_null(compute.binary_length(contents), 0)
                found.append(lengths.to_numpy(zero_copy_only=False))
        return np.concatenate(found).astype(np.int64)

    @functools.cached_property
    def time(self) -> int:
        """Time of the newest file of the table in nanoseconds, or 0 for a table in memory."""
        return max((Path(file["filename"]).stat().st_mtime_ns for file in self.rows.cache_files), default=0)


@dataclass(frozen=True)
class Cell(Member):
    """One image file in a table."""

    table: Table
    row: int

    @property
    def name(self) -> str:
        """Name of the column, which has no suffix."""
        return self.table.column

    @property
    def suffix(self) -> str:
        """Empty text: a column may hold files of several kinds."""
        return ""

    def __str__(self) -> str:
        return f"{self.table.where}, row {self.row}: {self.table.column}"

    def open(self, mode: Literal["rb"] = "rb") -> BinaryIO:
        """Open the bytes of the cell.

        Raises:
            Unreadable: the cell is empty, or names a file that does not exist.
        """
        return io.BytesIO(self.table.read(self.row))

    def stat(self) -> MemberStat:
        """Return size and time of the cell."""
        return self.table.stat(self.row)


def table_pairs(rows: Any, split: str, keys: Keys, where: str) -> list[Pair]:
    """Return the pairs of a split: one per row, in order.

    Args:
        rows: `datasets.Dataset`.
        split: its name.
        keys: columns of images and labels.
        where: name of the dataset in messages.
    """
    images, labels = (Table(rows, key, f"{where}, split {split}") for key in keys)
    width = len(str(max(len(rows) - 1, 0)))
    return [Pair(f"{split}/{row:0{width}d}", Cell(images, row), Cell(labels, row)) for row in range(len(rows))]


def parts_of(rows: Any, where: str) -> Parts:
    """Return the columns of a table (`datasets.Dataset`), with those that may hold pictures.

    Args:
        rows: the table.
        where: name of the dataset in messages.
    """
    from datasets import Image

    kinds = {name: getattr(kind, "dtype", None) for name, kind in rows.features.items()}
    pictures = [name for name, kind in rows.features.items() if isinstance(kind, Image) or kinds[name] in BYTES]
    listed = [f"{name} ({_kind(kind)})" for name, kind in rows.features.items()]
    return Parts(
        where=f"{where}: the columns",
        listed=first(listed, 30),
        names=list(rows.features),
        pictures=pictures,
        label_maps=pictures,
        usual_images=[name for name in pictures if is_named(name, IMAGE_NAMES)],
        usual_labels=[name for name in pictures if is_named(name, LABEL_NAMES)],
    )


def _kind(feature: Any) -> str:
    """Return the type of a column in one word."""
    dtype = getattr(feature, "dtype", None)
    return dtype if type(feature).__name__ == "Value" and isinstance(dtype, str) else type(feature).__name__
