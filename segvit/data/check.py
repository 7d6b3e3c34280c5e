"""A look at a dataset before training: what every label value becomes, and what is wrong with the files.

    report = check_dataset(open_dataset(config, "train"))
    rich.print(report.table()); report.raise_on_error()

Label files are read in full, of images only the header (`decode` reads them too); threads share the work.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from segvit.data.dataset import Samples, SegmentationDataset, explain_sizes, explain_values, remap
from segvit.data.files import first, read_image, read_labels, read_size
from segvit.data.spec import IGNORE_INDEX, DatasetSpec
from segvit.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = 5
"""Findings of a kind that a report spells out; the others are counted."""
MOSTLY_IGNORED = 0.5
"""Share of ignored pixels from which the report warns."""

Size = tuple[int, int]
Progress = Callable[[int, int], None]
"""Called with the number of samples done and in all."""


class ClassRow(NamedTuple):
    """What the checked label maps hold of one class."""

    name: str
    raw: int
    """Its value in the files."""
    color: tuple[int, int, int]
    share: float
    """Of all pixels checked, ignored ones included; 0..1."""
    images: int
    """Images that show it."""


class UnknownValue(NamedTuple):
    """A raw value that is neither a class nor ignored."""

    value: int
    pixels: int
    files: tuple[str, ...]
    """Files that hold it."""


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """The findings of `check_dataset`. Errors forbid training; warnings may be meant."""

    name: str
    total: int
    """Pairs of the dataset."""
    checked: int
    """Pairs looked at."""
    rows: tuple[ClassRow, ...]
    """One for each class (K,)."""
    ignored_share: float
    """Share of all pixels checked that is ignored; 0..1."""
    unknown: tuple[UnknownValue, ...]
    mismatches: tuple[str, ...]
    """Pairs whose image and label map differ in size, as text."""
    unreadable: tuple[str, ...]
    """Files that cannot be read, as text."""
    uniform: tuple[str, ...]
    """Samples whose label map shows one class or none."""
    smallest: Size | None
    """Height and width of the checked image with the fewest pixels; None where no image could be read."""
    largest: Size | None
    """The same of the one with the most."""
    errors: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """The result in a line."""
        part = "all" if self.checked == self.total else f"{self.checked} of"
        found = "no errors" if not self.errors else f"{len(self.errors)} error" + "s" * (len(self.errors) > 1)
        found += f", {len(self.warnings)} warning" + "s" * (len(self.warnings) != 1) if self.warnings else ""
        return f"{self.name}: {part} {self.total} pairs checked, {found}"

    def raise_on_error(self) -> None:
        """Raise a UserError that lists the errors, if there are any."""
        if self.errors:
            raise UserError("\n".join([self.verdict, *(f"- {error}" for error in self.errors)]))

    def table(self) -> "Table":
        """Value, class, share of pixels and number of images, for a terminal."""
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=escape(self.verdict))
        table.add_column("value", justify="right")
        table.add_column("")
        table.add_column("class", overflow="fold")
        table.add_column("pixels", justify="right")
        table.add_column("images", justify="right")
        for row in self.rows:
            style = "" if row.images else "yellow"
            swatch = f"[rgb({','.join(map(str, row.color))})]██[/]"
            table.add_row(str(row.raw), swatch, escape(row.name), f"{row.share:.2%}", str(row.images), style=style)
        table.add_row("", "", "(ignored)", f"{self.ignored_share:.2%}", "", style="dim")
        for value in self.unknown:
            table.add_row(str(value.value), "", "(unknown)", f"{value.pixels} px", str(len(value.files)), style="red")
        return table


class _Scan(NamedTuple):
    """What one sample holds."""

    where: str
    """Its label file, or where else it comes from."""
    size: Size | None = None
    pixels: dict[int, int] | None = None
    """Pixels by raw value; None where the label map cannot be read."""
    mismatch: str | None = None
    unreadable: tuple[str, ...] = ()


@dataclass
class _Tally:
    """Sums over the scans."""

    pixels: Counter[int] = field(default_factory=Counter)
    images: Counter[int] = field(default_factory=Counter)
    files: dict[int, list[str]] = field(default_factory=dict)
    uniform: list[str] = field(default_factory=list)
    mismatches: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    sizes: list[Size] = field(default_factory=list)

    def add(self, scan: _Scan, spec: DatasetSpec) -> None:
        self.unreadable.extend(scan.unreadable)
        if scan.mismatch:
            self.mismatches.append(scan.mismatch)
        if scan.size:
            self.sizes.append(scan.size)
        if scan.pixels is None:
            return
        self.pixels.update(scan.pixels)
        self.images.update(scan.pixels.keys())
        for value in scan.pixels.keys() - {*spec.raw_ids, *spec.ignore}:
            self.files.setdefault(value, []).append(scan.where)
        if len(scan.pixels.keys() - set(spec.ignore)) < 2:
            self.uniform.append(scan.where)


def check_dataset(
    samples: Samples, *, limit: int | None = None, decode: bool = False, progress: Progress | None = None
) -> CheckReport:
    """Read label maps and image headers, and report what they hold.

    Args:
        samples: the dataset.
        limit: look at this many samples, evenly spaced; None looks at all.
        decode: read the images in full as well, which finds those cut short.
        progress: called after each sample.

    Raises:
        UserError: `limit` is below 1. Findings are in the report; `raise_on_error` raises them.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit is {limit}; give the number of samples to check, at least 1")
    total = len(samples)
    count = min(total, limit or total)
    tally = _Tally()
    for done, scan in enumerate(_scan_all(samples, [i * total // count for i in range(count)], decode), start=1):
        tally.add(scan, samples.spec)
        if progress:
            progress(done, count)
    return _report(tally, samples.spec, total=total, checked=count)


def _scan_all(samples: Samples, indices: Sequence[int], decode: bool) -> Iterator[_Scan]:
    """The scans in order, made by a pool of threads (decoding frees the interpreter)."""
    pool = ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1))
    try:
        yield from pool.map(lambda index: _scan(samples, index, decode), indices)
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt ends at once


def _scan(samples: Samples, index: int, decode: bool) -> _Scan:
    """Look at one sample."""
    spec = samples.spec
    if not isinstance(samples, SegmentationDataset):
        image, labels, _ = samples.read(index)
        values, counts = np.unique(labels.numpy(), return_counts=True)
        ignored = spec.ignore[0] if spec.ignore else IGNORE_INDEX
        raw = [ignored if value == IGNORE_INDEX else spec.raw_ids[value] for value in values]
        return _Scan(
            samples.describe(index),
            size=(image.shape[-2], image.shape[-1]),
            pixels=dict(zip(raw, counts.tolist(), strict=True)),
        )
    pair = samples.pairs[index]
    size, shape, pixels, unreadable = None, None, None, []
    try:
        size = read_image(pair.image).size[::-1] if decode else read_size(pair.image)
    except UserError as error:
        unreadable.append(str(error))
    try:
        labels = read_labels(pair.labels)
        shape = (labels.shape[0], labels.shape[1])
        pixels = _count(labels)
    except UserError as error:
        unreadable.append(str(error))
    differ = size is not None and shape is not None and size != shape
    mismatch = explain_sizes(pair, size, shape) if differ and size and shape else None
    return _Scan(str(pair.labels), size=size, pixels=pixels, mismatch=mismatch, unreadable=tuple(unreadable))


def _count(labels: np.ndarray[tuple[int, ...], np.dtype[np.integer]]) -> dict[int, int]:
    """Pixels by value."""
    if labels.dtype.itemsize <= 2:
        counts = np.bincount(labels.ravel())
        values = counts.nonzero()[0]
        return dict(zip(values.tolist(), counts[values].tolist(), strict=True))
    values, counts = np.unique(labels, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _report(tally: _Tally, spec: DatasetSpec, *, total: int, checked: int) -> CheckReport:
    """The sums as a report."""
    pixels = max(tally.pixels.total(), 1)
    rows = tuple(
        ClassRow(name, raw, color, tally.pixels[raw] / pixels, tally.images[raw])
        for name, raw, color in zip(spec.classes, spec.raw_ids, spec.palette, strict=True)
    )
    ignored_share = sum(tally.pixels[value] for value in spec.ignore) / pixels
    sizes = sorted(tally.sizes, key=lambda size: size[0] * size[1])
    return CheckReport(
        name=spec.name,
        total=total,
        checked=checked,
        rows=rows,
        ignored_share=ignored_share,
        unknown=tuple(UnknownValue(v, tally.pixels[v], tuple(tally.files[v])) for v in sorted(tally.files)),
        mismatches=tuple(tally.mismatches),
        unreadable=tuple(tally.unreadable),
        uniform=tuple(tally.uniform),
        smallest=sizes[0] if sizes else None,
        largest=sizes[-1] if sizes else None,
        errors=tuple(_errors(tally, spec)),
        warnings=tuple(_warnings(tally, spec, rows, ignored_share, checked)),
    )


def _errors(tally: _Tally, spec: DatasetSpec) -> Iterator[str]:
    """What forbids training."""
    for findings, what in ((tally.unreadable, "unreadable files"), (tally.mismatches, "pairs of unequal size")):
        yield from findings[:SHOWN]
        if len(findings) > SHOWN:
            yield f"and {len(findings) - SHOWN} more {what}"
    if tally.files:
        files = sorted({file for named in tally.files.values() for file in named})
        text = explain_values(sorted(tally.pixels), spec, what="all files together hold")
        yield f"{first(files)} ({len(files)} in all): {text}"
    labelled = {value for value in tally.pixels if value not in spec.ignore}
    if tally.pixels and not labelled:
        yield f"every pixel is ignored (values {first(sorted(tally.pixels), 10)}): correct `ignore`"
    elif set(tally.pixels) == {0, 255} and 255 in spec.ignore and spec.num_classes > 1:
        yield (
            f"the label maps hold 0 and 255 only, and 255 is ignored, so nothing but {spec.classes[0]!r} would be "
            f"learnt; for 0/255 masks {remap(spec, {0: 0, 1: 255})}"
        )


def _warnings(
    tally: _Tally, spec: DatasetSpec, rows: Sequence[ClassRow], ignored_share: float, checked: int
) -> Iterator[str]:
    """What may be meant, but seldom is."""
    if absent := [f"{row.raw} {row.name}" for row in rows if not row.images]:
        text = f"{len(absent)} of {spec.num_classes} classes are in none of the {checked} label maps checked"
        yield f"{text}: {first(absent, 10)}"
    if tally.uniform:
        yield f"{len(tally.uniform)} label maps show one class or none: {first(tally.uniform)}"
    if ignored_share > MOSTLY_IGNORED:
        yield f"{ignored_share:.0%} of the pixels are ignored (values {first(spec.ignore, 10)})"
