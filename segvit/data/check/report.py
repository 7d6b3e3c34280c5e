"""Check a whole dataset, as `segvit check-data` does: both splits, files without a partner, images in both splits.

survey = check_splits(config, ("train", "val"))
rich.print(survey.table()); print(survey.advice)
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rich.markup import escape
from rich.table import Table

from segvit.config import DataConfig
from segvit.data.annotations.format import ShapeLabels
from segvit.data.annotations.summary import remark
from segvit.data.check.check import CheckReport, check_dataset
from segvit.data.check.finding import Finding
from segvit.data.check.findings import SHOWN
from segvit.data.check.fixes import command, fix_values
from segvit.data.check.mixed_splits import mixed_splits
from segvit.data.check.shapes import left_out, shape_findings
from segvit.data.dataset import Samples, SegmentationDataset, open_incomplete
from segvit.data.given import data_of
from segvit.data.pairs import Orphans, first
from segvit.data.palette import Color
from segvit.errors import UserError
from segvit.utils.progress import Progress
from segvit.utils.tables import Fitted
from segvit.utils.text import counted_are, percentage

SplitName = Literal["train", "val"]
MANY = 40
"""Largest number of ignored or unknown values with rows of their own in the table. More of them share one row."""
BAR = 6
"""Length of the longest bar in the table, in characters."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The reports of a dataset's splits, and the findings that concern both."""

    config: DataConfig
    samples: Mapping[SplitName, Samples]
    """The complete pairs of each split."""
    reports: Mapping[SplitName, CheckReport]
    orphans: Mapping[SplitName, Orphans]
    """Files without a partner."""
    findings: tuple[Finding, ...]
    """Findings that no report has: splits that cannot be opened, orphans, copies."""
    settings: Path | None = None
    """The file of --config that `config` came from."""
    typed: DataConfig | None = None
    """The settings before segvit named the classes. None if the names were given."""

    def all_findings(self) -> Iterator[tuple[str, Finding]]:
        """Yield each finding with the name of its split, or with an empty name."""
        for finding in self.findings:
            yield "", finding
        for split, report in self.reports.items():
            for finding in report.findings:
                yield split, finding

    @property
    def errors(self) -> list[str]:
        """Texts of everything that stops training."""
        return self._texts("error")

    @property
    def warnings(self) -> list[str]:
        """Texts of everything that may be intended, but seldom is."""
        return self._texts("warning")

    def _texts(self, level: str) -> list[str]:
        return [f"{split}: " * bool(split) + found.text for split, found in self.all_findings() if found.level == level]

    @property
    def verdicts(self) -> list[str]:
        """One line per split."""
        return [
            f"{split}: {report.verdict}; images {report.sizes}" if report.sizes else f"{split}: {report.verdict}"
            for split, report in self.reports.items()
        ]

    @property
    def fixed(self) -> DataConfig | None:
        """Settings that give all label values a meaning. None if they have one already, or if we know of no fix."""
        kinds = {finding.kind for _, finding in self.all_findings()}
        if not kinds & {"unknown-values", "mask-0-255", "one-class"}:
            return None
        return fix_values(self.config, {row.value for report in self.reports.values() for row in report.values})

    @property
    def next_command(self) -> str:
        """The complete command line to run next."""
        if fixed := self.fixed:
            return command("check-data", fixed, settings=self.settings)
        if self.errors:
            return command("check-data", self.typed or self.config, settings=self.settings)
        return command("train", self.typed or self.config, settings=self.settings)

    @property
    def advice(self) -> str:
        """The verdict, and the command to run next."""
        if self.fixed:
            verdict = "Not ready to train. If the masks are correct, run:"
        elif self.errors:
            verdict = "Not ready to train. Fix the errors, then run:"
        else:
            verdict = "Ready to train" + ", if the warnings are intended" * bool(self.warnings) + ". Run:"
        return f"{verdict}\n  {self.next_command}"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        return {
            "fit": not self.errors,
            "splits": {split: report.to_dict() for split, report in self.reports.items()},
            "orphans": {
                split: {"images": list(found.images), "labels": list(found.labels)}
                for split, found in self.orphans.items()
            },
            "findings": [{"split": split or None, **asdict(finding)} for split, finding in self.all_findings()],
            "next": self.next_command,
        }

    def table(self) -> Fitted:
        """Return a table for a terminal: the class of every raw value, with its pixels and images in each split.

        A narrow terminal gets no bars, and then the first split alone.
        """
        return Fitted(partial(_values_table, self.reports), levels=4)


def check_data(data: DataConfig | str | Path) -> Survey:
    """Check the training and the validation images of a dataset, as `segvit check-data` does.

    Examples:
        >>> import segvit
        >>> data = segvit.DataConfig(images="photos", labels="masks", classes=("background", "person"))
        >>> survey = segvit.check_data(data)
        >>> survey.errors
        []

    Args:
        data: the dataset: its settings, the name of a shipped one, or a YAML file that describes one.

    Returns:
        What was found. `table()` shows what every value of the masks becomes, `advice` what to type next.

    Raises:
        UserError: no such dataset.
    """
    from segvit.data.check.class_names import name_classes

    given = data_of(data)
    named = name_classes(given)
    return check_splits(named.config, ("train", "val"), typed=given if named.text else None)


def check_splits(
    config: DataConfig,
    splits: Sequence[SplitName],
    *,
    settings: Path | None = None,
    typed: DataConfig | None = None,
    progress: Progress | None = None,
) -> Survey:
    """Check every pair of these splits, and read the images in full.

    Args:
        config: the dataset.
        splits: the splits to check.
        settings: file of --config that `config` came from, for `next_command`.
        typed: settings before segvit named the classes, for `next_command`.
        progress: called after each sample with the number done and the total.

    Raises:
        UserError: none of the splits can be opened. If one of two cannot, that is a finding.
    """
    samples: dict[SplitName, Samples] = {}
    orphans: dict[SplitName, Orphans] = {}
    findings: list[Finding] = []
    errors: list[UserError] = []
    for split in splits:
        try:
            samples[split], orphans[split] = open_incomplete(config, split)
        except UserError as error:
            errors.append(error)
            findings.append(Finding(kind="split-missing", level="error", text=f"{split} cannot be opened: {error}"))
    if not samples:
        raise errors[0]
    total = sum(map(len, samples.values()))
    reports: dict[SplitName, CheckReport] = {}
    for split, found in samples.items():
        begun = sum(report.checked for report in reports.values())

        def shifted(done: int, _: int, begun: int = begun) -> None:
            if progress:
                progress(begun + done, total)

        reports[split] = check_dataset(found, decode=True, progress=shifted)
    findings += [*_describe(orphans), *_left_out(config, samples), *shape_findings(samples), *copies(reports)]
    mixed = mixed_splits(config)
    findings += [mixed] if mixed else []
    return Survey(
        config=config,
        samples=samples,
        reports=reports,
        orphans=orphans,
        findings=tuple(findings),
        settings=settings,
        typed=typed,
    )


def _describe(orphans: Mapping[SplitName, Orphans]) -> Iterator[Finding]:
    """Yield orphans as findings, and those that two splits share only once."""
    said: set[Orphans] = set()
    for found in orphans.values():
        bare = found._replace(error="")  # the error names the split
        if not found or bare in said:
            continue
        said.add(bare)
        parts = [
            f"{remark(len(files), what)}: {first(files, SHOWN)}"
            for files, what in ((found.images, "image without labels"), (found.labels, "label without an image"))
            if files
        ]
        count = len(found.images) + len(found.labels)
        text = "; ".join([*parts, found.remedy])
        yield Finding(kind="orphans", level="error", text=text, count=count)


def _left_out(config: DataConfig, samples: Mapping[SplitName, Samples]) -> Iterator[Finding]:
    """Yield the files of labelling tools that are left out, once if splits share them."""
    said: list[Orphans] = []
    for split, found in samples.items():
        label_format = found.spec.label_format
        if not isinstance(found, SegmentationDataset) or not isinstance(label_format, ShapeLabels):
            continue
        if label_format.missing == "skip":
            strict = replace(label_format, missing="error")
            _, orphans = open_incomplete(config, split, labels=strict, memory=found.memory)
            if (bare := orphans._replace(error="")) not in said:
                said.append(bare)
                yield from left_out(bare)


def copies(reports: Mapping[Any, CheckReport]) -> Iterator[Finding]:
    """Report images that are in both splits, and images that are in one split twice."""
    train, val = (reports[split].digests if split in reports else {} for split in ("train", "val"))
    both = train.keys() & val.keys()
    if both:
        shown = "; ".join(f"{train[key][0]} = {val[key][0]}" for key in sorted(both, key=lambda key: val[key])[:SHOWN])
        text = (
            f"{counted_are(len(both), 'image')} in train and in val ({shown}): the model memorises "
            "them, so its scores come out too high; remove them from one of the two"
        )
        yield Finding(kind="leak", level="warning", text=text, count=len(both))
    for split, report in reports.items():
        groups = [files for files in report.digests.values() if len(files) > 1]
        if groups:
            count = sum(len(files) - 1 for files in groups)
            shown = "; ".join(" = ".join(files[:SHOWN]) for files in groups[:3])
            text = f"{split}: {counted_are(count, 'image')} in the data again under another name: {shown}"
            yield Finding(kind="copies", level="warning", text=text, count=count)


class _Row(NamedTuple):
    """One line of the table: raw values of one class, or of none."""

    values: tuple[int, ...]
    becomes: str
    color: Color | None = None
    style: str = ""


def _values_table(reports: Mapping[SplitName, CheckReport], level: int, *, ascii: bool) -> Table:
    """Return the table of raw values and their classes, with pixels and images of each split.

    Args:
        reports: of each split.
        level: 0 all columns, 1 no bars, 2 only the first split, 3 also no colours and no frame.
        ascii: draw in ASCII alone, and without colours.
    """
    shown = dict(list(reports.items())[:1]) if level > 1 else reports
    caption = f"too narrow for {' and '.join(reports.keys() - shown.keys())}" if len(shown) < len(reports) else None
    table = Table(title=escape(next(iter(reports.values())).name), caption=caption, show_edge=level < 3)
    table.add_column("value", justify="right", overflow="fold", min_width=5)
    colored = level < 3 and not ascii
    if colored:
        table.add_column("", no_wrap=True)
    table.add_column("becomes", overflow="fold")
    for split in shown:
        table.add_column(split, justify="right", no_wrap=True)
        if level == 0:
            table.add_column("pixels", width=BAR)
        table.add_column("images", justify="right", no_wrap=True)
    stats = [_Stats(report) for report in shown.values()]
    for row in _rows(list(reports.values())):
        swatch = f"[rgb({','.join(map(str, row.color))})]██[/]" if row.color else ""
        values = ", ".join(map(str, row.values[:MANY])) + ", ..." * (len(row.values) > MANY)
        cells = [cell for found in stats for cell in found.cells(row, bars=level == 0, ascii=ascii)]
        absent = row.color is not None and all(found.images(row) == 0 for found in stats)
        first_cells = [values, swatch] if colored else [values]
        table.add_row(*first_cells, escape(row.becomes), *cells, style="yellow" if absent else row.style)
    return table


class _Stats:
    """Numbers of one split."""

    def __init__(self, report: CheckReport) -> None:
        self.pixels = {row.value: row.pixels for row in report.values}
        self.files = {row.value: row.images for row in report.values}
        self.shown = {row.name: row.images for row in report.rows}
        self.total = max(sum(self.pixels.values()), 1)
        self.highest = max((row.share for row in report.rows), default=0) or 1

    def images(self, row: _Row) -> int:
        """Count the images that show the class, or that hold the commonest of the other values."""
        if row.color is not None:
            return self.shown[row.becomes]
        return max((self.files.get(value, 0) for value in row.values), default=0)

    def cells(self, row: _Row, *, bars: bool, ascii: bool) -> list[str]:
        """Return the share of pixels, a bar if wanted, and the number of images."""
        share = sum(self.pixels.get(value, 0) for value in row.values) / self.total
        full, least = ("#", ".") if ascii else ("█", "▏")
        bar = full * min(BAR, round(BAR * share / self.highest)) or least * (share > 0)
        return [percentage(share, ".2f"), *[bar] * bars, str(self.images(row))]


def _rows(reports: Sequence[CheckReport]) -> list[_Row]:
    """Return a row for each class in order, then for the ignored and the unknown values."""
    becomes = {row.value: row.becomes for report in reports for row in report.values}
    rows = []
    for entry in reports[0].rows:
        found = tuple(sorted(value for value, name in becomes.items() if name == entry.name))
        rows.append(_Row(found or (entry.raw,), entry.name, entry.color))
    for what, style in (("(ignored)", "dim"), ("(unknown)", "red")):
        values = sorted(value for value, name in becomes.items() if name == what)
        if len(values) > MANY:
            rows.append(_Row(tuple(values), what, style=style))
        else:
            rows += [_Row((value,), what, style=style) for value in values]
    return rows
