"""Check a dataset before training: report the class of every label value, and what is wrong with the files.

    report = check_dataset(open_dataset(config, "train"))
    print(report.verdict); report.raise_on_error()

Label files are read in full. Of the images, only the header is read unless `decode` is set. report.py checks both
splits.
"""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from segvit.data.check.finding import Finding
from segvit.data.check.findings import ignored_share, judge
from segvit.data.check.scan import Size, Tally, scan_all
from segvit.data.dataset import Samples
from segvit.data.spec import IGNORE_INDEX
from segvit.errors import UserError
from segvit.utils.progress import Progress
from segvit.utils.text import counted


class ClassRow(NamedTuple):
    """Share and images of one class in the checked label maps."""

    name: str
    raw: int
    """Its value in the files, or the first of its values."""
    color: tuple[int, int, int]
    share: float
    """Share of all checked pixels, ignored ones included; 0..1."""
    images: int
    """Number of images that show it."""


class ValueRow(NamedTuple):
    """Pixels and images of one raw value in the checked label maps."""

    value: int
    pixels: int
    images: int
    """Number of label maps that hold it."""
    becomes: str
    """Class name, `(ignored)` or `(unknown)`."""


class UnknownValue(NamedTuple):
    """A raw value that is neither a class nor ignored."""

    value: int
    pixels: int
    files: tuple[str, ...]
    """The first twenty files that hold it."""
    images: int
    """Number of label maps that hold it."""


class Sizes(NamedTuple):
    """Heights and widths of the images that could be read, in pixels."""

    smallest: Size
    """Size of the image with the fewest pixels."""
    largest: Size
    """Size of the image with the most pixels."""
    sides: tuple[int, int]
    """Shortest and longest side of any image."""
    landscape: int
    """Number of images wider than high."""
    portrait: int
    square: int
    distinct: int
    """Number of different sizes."""

    def __str__(self) -> str:
        low, high = ("{1} x {0}".format(*size) for size in (self.smallest, self.largest))
        span = f"all {low}" if low == high else f"{low} to {high}, {self.distinct} sizes"
        kinds = {"landscape": self.landscape, "portrait": self.portrait, "square": self.square}
        return f"{span} (width x height); " + ", ".join(f"{count} {kind}" for kind, count in kinds.items() if count)


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """The findings of `check_dataset`. Errors stop training; warnings may be intended."""

    name: str
    total: int
    """Number of pairs in the dataset."""
    checked: int
    """Number of pairs that were checked."""
    rows: tuple[ClassRow, ...]
    """One row per class (K,)."""
    values: tuple[ValueRow, ...]
    """One row per raw value found, ascending."""
    ignored_share: float
    """Share of ignored pixels among all checked pixels; 0..1."""
    unknown: tuple[UnknownValue, ...]
    mismatches: tuple[str, ...]
    """Pairs whose image and label map differ in size, as text."""
    unreadable: tuple[str, ...]
    """Files that cannot be read, as text."""
    uniform: tuple[str, ...]
    """Samples whose label map shows one class or none."""
    sizes: Sizes | None
    """None if no image could be read."""
    findings: tuple[Finding, ...]
    digests: dict[bytes, list[str]]
    """Image files by the hash of their pixels; empty if images were not decoded."""
    classes: tuple[bytes | None, ...]
    """Indices of the classes that each checked sample shows. None if the sample cannot be drawn."""
    turned: tuple[int, ...]
    """Checked samples, by position, whose image EXIF may turn and whose label map it does not."""

    @property
    def errors(self) -> tuple[str, ...]:
        """Texts of the errors."""
        return tuple(finding.text for finding in self.findings if finding.level == "error")

    @property
    def warnings(self) -> tuple[str, ...]:
        """Texts of the warnings."""
        return tuple(finding.text for finding in self.findings if finding.level == "warning")

    @property
    def smallest(self) -> Size | None:
        """Height and width of the checked image with the fewest pixels. None if no image could be read."""
        return self.sizes.smallest if self.sizes else None

    @property
    def largest(self) -> Size | None:
        """Height and width of the checked image with the most pixels. None if no image could be read."""
        return self.sizes.largest if self.sizes else None

    @property
    def verdict(self) -> str:
        """The result in one line."""
        part = "all" if self.checked == self.total else f"{self.checked} of"
        found = counted(len(self.errors), "error") if self.errors else "no errors"
        found += f", {counted(len(self.warnings), 'warning')}" if self.warnings else ""
        pairs = "1 pair" if self.checked == self.total == 1 else f"{part} {counted(self.total, 'pair')}"
        return f"{self.name}: {pairs} checked, {found}"

    def raise_on_error(self, *, skip_unreadable: int = 0) -> None:
        """Raise the errors of the report, if there are any.

        Args:
            skip_unreadable: number of unreadable files that are not an error.

        Raises:
            UserError: the dataset has errors. The text lists them.
        """
        spared = "unreadable" if len(self.unreadable) <= skip_unreadable else None
        if any(finding.level == "error" and finding.kind != spared for finding in self.findings):
            raise UserError("\n".join([self.verdict, *(f"- {error}" for error in self.errors)]))

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the hashes, as plain values for JSON."""
        return {
            "dataset": self.name,
            "verdict": self.verdict,
            "pairs": self.total,
            "checked": self.checked,
            "sizes": self.sizes._asdict() if self.sizes else None,
            "classes": [row._asdict() for row in self.rows],
            "values": [row._asdict() for row in self.values],
            "ignored_share": self.ignored_share,
            "unknown": [value._asdict() for value in self.unknown],
            "size_mismatches": list(self.mismatches),
            "unreadable": list(self.unreadable),
            "uniform": list(self.uniform),
            "findings": [asdict(finding) for finding in self.findings],
        }


def check_dataset(
    samples: Samples,
    *,
    limit: int | None = None,
    decode: bool = False,
    extends: bool = False,
    progress: Progress | None = None,
) -> CheckReport:
    """Read label maps and image headers, and report what they hold.

    Args:
        samples: the dataset.
        limit: number of samples to check, evenly spaced. None checks all.
        decode: read the images in full as well, which finds truncated files and copies.
        extends: the classes are added to those of a model (`TrainConfig.extend`), so one is enough.
        progress: called after each sample.

    Raises:
        UserError: `limit` is below 1. Findings are not raised: see `CheckReport.raise_on_error`.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit is {limit}; give the number of samples to check, at least 1")
    total = len(samples)
    count = min(total, limit or total)
    tally = Tally(samples.spec)
    indices = [i * total // count for i in range(count)]
    for done, scan in enumerate(scan_all(samples, indices, decode=decode), start=1):
        tally.add(scan)
        if progress:
            progress(done, count)
    findings = tuple(judge(tally, checked=count, extends=extends))
    return _report(tally, findings, total=total, checked=count)


def _report(tally: Tally, findings: tuple[Finding, ...], *, total: int, checked: int) -> CheckReport:
    """Return the sums as a report."""
    spec, pixels = tally.spec, max(tally.pixels.total(), 1)
    by_class: Counter[int] = Counter()
    for value in tally.pixels.keys() - tally.unknown.keys():
        by_class[spec.class_of(value)] += tally.pixels[value]
    rows = tuple(
        ClassRow(name, raw, color, by_class[k] / pixels, tally.images[k])
        for k, (name, raw, color) in enumerate(zip(spec.classes, spec.raw_ids, spec.palette, strict=True))
    )
    unknown = (
        UnknownValue(value, tally.pixels[value], tuple(named.names), named.count)
        for value, named in sorted(tally.unknown.items())
    )
    return CheckReport(
        name=spec.name,
        total=total,
        checked=checked,
        rows=rows,
        values=tuple(_value_row(value, tally) for value in sorted(tally.pixels)),
        ignored_share=ignored_share(tally),
        unknown=tuple(unknown),
        mismatches=tuple(tally.mismatches),
        unreadable=(*tally.unreadable, *tally.painted),
        uniform=tuple(tally.uniform),
        sizes=_sizes(tally.sizes),
        findings=findings,
        digests=tally.digests,
        classes=tuple(tally.classes),
        turned=tuple(tally.turned_at),
    )


def _value_row(value: int, tally: Tally) -> ValueRow:
    """Return the pixels, the images and the class of one raw value."""
    spec = tally.spec
    if value in tally.unknown:
        becomes = "(unknown)"
    else:
        index = spec.class_of(value)
        becomes = "(ignored)" if index == IGNORE_INDEX else spec.classes[index]
    return ValueRow(value, tally.pixels[value], tally.files[value], becomes)


def _sizes(counts: Counter[Size]) -> Sizes | None:
    """Summarise the number of images of each height and width."""
    if not counts:
        return None
    ordered = sorted(counts, key=lambda size: (size[0] * size[1], size))
    return Sizes(
        smallest=ordered[0],
        largest=ordered[-1],
        sides=(min(map(min, ordered)), max(map(max, ordered))),
        landscape=sum(count for (height, width), count in counts.items() if width > height),
        portrait=sum(count for (height, width), count in counts.items() if width < height),
        square=sum(count for (height, width), count in counts.items() if width == height),
        distinct=len(ordered),
    )
