"""A look at a dataset before training: what every label value becomes, and what is wrong with the files.

    report = check_dataset(open_dataset(config, "train"))
    print(report.verdict); report.raise_on_error()

Label files are read in full, of images only the header (`decode` reads them too). survey.py checks both splits.
"""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from segvit.data.check.findings import Finding, ignored_share, judge
from segvit.data.check.scan import Size, Tally, scan_all
from segvit.data.dataset import Samples
from segvit.data.spec import IGNORE_INDEX
from segvit.errors import UserError
from segvit.utils.progress import Progress


class ClassRow(NamedTuple):
    """What the checked label maps hold of one class."""

    name: str
    raw: int
    """Its value in the files; of several, the first."""
    color: tuple[int, int, int]
    share: float
    """Of all pixels checked, ignored ones included; 0..1."""
    images: int
    """Images that show it."""


class ValueRow(NamedTuple):
    """What the checked label maps hold of one raw value."""

    value: int
    pixels: int
    images: int
    """Label maps that hold it."""
    becomes: str
    """Class name, `(ignored)` or `(unknown)`."""


class UnknownValue(NamedTuple):
    """A raw value that is neither a class nor ignored."""

    value: int
    pixels: int
    files: tuple[str, ...]
    """Files that hold it, the first twenty."""
    images: int
    """How many hold it."""


class Sizes(NamedTuple):
    """Heights and widths of the images that could be read, in pixels."""

    smallest: Size
    """Of the image with the fewest pixels."""
    largest: Size
    """Of the one with the most."""
    sides: tuple[int, int]
    """Shortest and longest side of any."""
    landscape: int
    """Images wider than high."""
    portrait: int
    square: int
    distinct: int
    """Number of sizes."""

    def __str__(self) -> str:
        low, high = ("{1} x {0}".format(*size) for size in (self.smallest, self.largest))
        span = f"all {low}" if low == high else f"{low} to {high}, {self.distinct} sizes"
        kinds = {"landscape": self.landscape, "portrait": self.portrait, "square": self.square}
        return f"{span} (width x height); " + ", ".join(f"{count} {kind}" for kind, count in kinds.items() if count)


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
    values: tuple[ValueRow, ...]
    """One for each raw value found, ascending."""
    ignored_share: float
    """Share of all pixels checked that is ignored; 0..1."""
    unknown: tuple[UnknownValue, ...]
    mismatches: tuple[str, ...]
    """Pairs whose image and label map differ in size, as text."""
    unreadable: tuple[str, ...]
    """Files that cannot be read, as text."""
    uniform: tuple[str, ...]
    """Samples whose label map shows one class or none."""
    sizes: Sizes | None
    """None where no image could be read."""
    findings: tuple[Finding, ...]
    digests: dict[bytes, list[str]]
    """Image files by the hash of their picture; empty where images were not decoded."""
    classes: tuple[bytes | None, ...]
    """Indices of the classes that each checked sample shows; None where it cannot be drawn."""
    turned: tuple[int, ...]
    """Positions among the checked samples of those that EXIF may have turned against their labels."""

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
        """Height and width of the checked image with the fewest pixels; None where no image could be read."""
        return self.sizes.smallest if self.sizes else None

    @property
    def largest(self) -> Size | None:
        """The same of the one with the most."""
        return self.sizes.largest if self.sizes else None

    @property
    def verdict(self) -> str:
        """The result in a line."""
        part = "all" if self.checked == self.total else f"{self.checked} of"
        found = "no errors" if not self.errors else f"{len(self.errors)} error" + "s" * (len(self.errors) > 1)
        found += f", {len(self.warnings)} warning" + "s" * (len(self.warnings) != 1) if self.warnings else ""
        return f"{self.name}: {part} {self.total} pairs checked, {found}"

    def raise_on_error(self, *, skip_unreadable: int = 0) -> None:
        """Refuse a dataset with errors.

        Args:
            skip_unreadable: so many files that cannot be read are no error.

        Raises:
            UserError: the list of its errors.
        """
        spared = "unreadable" if len(self.unreadable) <= skip_unreadable else None
        if any(finding.level == "error" and finding.kind != spared for finding in self.findings):
            raise UserError("\n".join([self.verdict, *(f"- {error}" for error in self.errors)]))

    def to_dict(self) -> dict[str, Any]:
        """Everything but the hashes, as plain values fit for JSON."""
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
    progress: Progress | None = None,
) -> CheckReport:
    """Read label maps and image headers, and report what they hold.

    Args:
        samples: the dataset.
        limit: look at this many samples, evenly spaced; None looks at all.
        decode: read the images in full as well, which finds those cut short, and copies.
        progress: called after each sample.

    Raises:
        UserError: `limit` is below 1. Findings are in the report; `raise_on_error` raises them.
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
    return _report(tally, total=total, checked=count)


def _report(tally: Tally, *, total: int, checked: int) -> CheckReport:
    """The sums as a report."""
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
        findings=tuple(judge(tally, checked=checked)),
        digests=tally.digests,
        classes=tuple(tally.classes),
        turned=tuple(tally.turned_at),
    )


def _value_row(value: int, tally: Tally) -> ValueRow:
    """What one raw value becomes."""
    spec = tally.spec
    if value in tally.unknown:
        becomes = "(unknown)"
    else:
        index = spec.class_of(value)
        becomes = "(ignored)" if index == IGNORE_INDEX else spec.classes[index]
    return ValueRow(value, tally.pixels[value], tally.files[value], becomes)


def _sizes(counts: Counter[Size]) -> Sizes | None:
    """Of images by height and width."""
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
