"""Read a table of run lengths, as competitions publish masks: `ImageId,EncodedPixels`, with or without a class.

    ImageId,ClassId,EncodedPixels
    0002cc93b.jpg,1,29102 12 29346 24

The pairs are the first pixel, counted from 1, and the number of pixels. Pixels are counted down the columns, or along
the rows with `order: rows`. An empty cell or -1 is no mask. `ImageId_ClassId` holds both with an underscore between.
Pixels of no run are background.

Letters: H, W size of an image.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from segvit.data.annotations.format import Content, Index, ShapeLabels, SharedLabels
from segvit.data.annotations.names import image_name
from segvit.data.annotations.shapes import Drawing, PlacedMask, Shape
from segvit.data.annotations.summary import Summary
from segvit.data.images import Unreadable, read_size
from segvit.data.labels.memory import LabelMemory
from segvit.data.pairs import Pair
from segvit.errors import UserError

RUNS = "encodedpixels"
"""Column of the run lengths, in lower case."""
IMAGE = ("imageid", "image_id", "image", "id", "filename")
"""Columns of the image's file, in lower case."""
CLASS = ("classid", "class_id", "class", "label")
"""Columns of the class, in lower case."""
BOTH = ("imageid_classid", "image_label")
"""Columns of the image's file and the class."""
ONLY = "object"
"""Name of the class in a table without classes."""
NONE = ("", "-1", "nan")
"""Cells without a mask."""


@dataclass(frozen=True, kw_only=True)
class RunLengthLabels(SharedLabels):
    """Tables of run lengths."""

    name: ClassVar[str] = "run_lengths"
    title: ClassVar[str] = "a table of run lengths"
    suffixes: ClassVar[Sequence[str]] = (".csv",)
    nameless: ClassVar[str | None] = ONLY
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {**ShapeLabels.choices, "order": ("columns", "rows")}

    order: Literal["columns", "rows"] = "columns"
    """Order in which the pixels are counted: down the columns, or along the rows."""

    @classmethod
    def recognises(cls, content: Content) -> bool:
        """Return True for a table with the column of run lengths."""
        first = content.value.partition("\n")[0] if isinstance(content.value, str) else ""
        return RUNS in [cell.strip().strip('"').lower() for cell in first.split(",")]

    def index(self, path: Path) -> Index:
        """Read the whole table once.

        Raises:
            UserError: it lacks a column, or a line has no image.
        """
        summary = Summary()
        rows: dict[str, list[tuple[str, str]]] = {}
        for where, file, label, runs in _read_table(path):
            name = image_name(file)
            if not name:
                raise UserError(f"{where}: names no image; write its file")
            found = rows.setdefault(name, [])
            if runs.strip().lower() not in NONE:
                summary.kinds["mask"] += 1
                summary.names[label] += 1
                found.append((label, runs))
        return Index(summary, {name: json.dumps(found).encode() for name, found in rows.items()})

    def drawing(self, pair: Pair, memory: LabelMemory) -> Drawing:
        """Return the masks of one image, in its size, which the table does not have."""
        drawing = super().drawing(pair, memory)
        index = self.indexed(pair.label_path, memory)
        name = index.lookup.match(pair.name)
        assert name is not None  # else an error above
        size = read_size(pair.image)
        shapes = tuple(
            Shape(name=label, kind="mask", area=PlacedMask(self.decode(runs, size, drawing.where), top=0, left=0))
            for label, runs in json.loads(index.images[name])
        )
        return Drawing(where=drawing.where, size=size, shapes=shapes)

    def draw(self, entry: bytes, path: Path, name: str) -> Drawing:
        """Return no shapes: `drawing` decodes them in the size of the image."""
        return Drawing(where=f"{path}: image {name!r}")

    def decode(self, runs: str, size: tuple[int, int], where: str) -> npt.NDArray[np.bool_]:
        """Decode the mask (H, W) of pairs of a first pixel and a length.

        Raises:
            Unreadable: the numbers are no pairs, or lie outside the image.
        """
        height, width = size
        words = runs.split()
        if len(words) % 2 or not all(word.isdecimal() and len(word) < 12 for word in words):
            raise Unreadable(f"{where}: run lengths are pairs of a first pixel and a length; found {runs[:60]!r}")
        pairs = np.array(words, dtype=np.int64).reshape(-1, 2)
        first, after = pairs[:, 0] - 1, pairs.sum(axis=1) - 1
        if len(pairs) and (first.min() < 0 or after.max() > height * width):
            raise Unreadable(
                f"{where}: run lengths reach from pixel {first.min() + 1} to {after.max()}, but the image has 1 to "
                f"{height * width} ({width} x {height}); check that it has its original size"
            )
        mask = np.zeros(height * width, dtype=np.bool_)
        for begin, end in zip(first.tolist(), after.tolist(), strict=True):
            mask[begin:end] = True
        return mask.reshape(height, width) if self.order == "rows" else mask.reshape(width, height).T


def _read_table(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """Yield the place, the file of the image, the class and the run lengths of each line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as CSV ({error}); export it again") from error
    header, *lines = [[cell.strip().strip('"') for cell in line.split(",")] for line in text.splitlines()] or [[]]
    header = [cell.lower() for cell in header]
    runs, label = _column(header, (RUNS,)), _column(header, CLASS)
    image, both = _column(header, IMAGE), _column(header, BOTH)
    if runs is None or (image is None and both is None):
        raise UserError(f"{path}: its columns are {', '.join(header)}; it needs ImageId and EncodedPixels")
    for number, cells in enumerate(lines, start=2):
        where = f"{path}: line {number}"
        if not any(cells):
            continue
        if len(cells) != len(header):
            raise UserError(f"{where}: has {len(cells)} cells, but the first line has {len(header)}; export it again")
        name, kind = (cells[image], ONLY) if image is not None else _apart(cells[both or 0])
        kind = cells[label] if label is not None else kind
        yield where, name, f"class_{kind}" if kind.isdecimal() else kind, cells[runs]


def _apart(cell: str) -> tuple[str, str]:
    """Return the file of the image and the class, which an underscore separates."""
    name, _, kind = cell.rpartition("_")
    return name, kind


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    """Return the position of the first of these columns, or None."""
    return next((header.index(name) for name in names if name in header), None)
