"""The check of a whole dataset, as `segvit check-data` prints it: both splits, what lacks a partner, what is in both.

survey = check_splits(config, ("train", "val"))
rich.print(survey.table()); print(survey.advice)
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rich.markup import escape
from rich.table import Table

from segvit.config import DataConfig
from segvit.data.check.check import CheckReport, check_dataset
from segvit.data.check.findings import SHOWN, Finding
from segvit.data.check.fixes import command, mend_values
from segvit.data.dataset import Samples, open_incomplete
from segvit.data.pairs import Orphans, first
from segvit.data.palette import Color
from segvit.errors import UserError
from segvit.utils.progress import Progress
from segvit.utils.text import percentage

SplitName = Literal["train", "val"]
MANY = 40
"""Ignored and unknown values that get rows of their own in the table; the others share one."""
BAR = 6
"""Characters of the longest bar in it."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The reports of the splits of a dataset, and what is found between them."""

    config: DataConfig
    samples: Mapping[SplitName, Samples]
    """The complete pairs."""
    reports: Mapping[SplitName, CheckReport]
    orphans: Mapping[SplitName, Orphans]
    """What lacks its partner."""
    findings: tuple[Finding, ...]
    """Beyond those of the reports: splits that cannot be opened, orphans, copies."""
    settings: Path | None = None
    """The file of --config that `config` came from."""

    def all_findings(self) -> Iterator[tuple[str, Finding]]:
        """Each finding with its split, or without one."""
        for finding in self.findings:
            yield "", finding
        for split, report in self.reports.items():
            for finding in report.findings:
                yield split, finding

    @property
    def errors(self) -> list[str]:
        """Texts of everything that forbids training."""
        return self._texts("error")

    @property
    def warnings(self) -> list[str]:
        """Texts of everything that may be meant, but seldom is."""
        return self._texts("warning")

    def _texts(self, level: str) -> list[str]:
        return [f"{split}: " * bool(split) + found.text for split, found in self.all_findings() if found.level == level]

    @property
    def verdicts(self) -> list[str]:
        """A line for each split."""
        return [
            f"{split}: {report.verdict}; images {report.sizes}" if report.sizes else f"{split}: {report.verdict}"
            for split, report in self.reports.items()
        ]

    @property
    def mended(self) -> DataConfig | None:
        """Settings under which all label values mean something, where they don't and some are at hand."""
        kinds = {finding.kind for _, finding in self.all_findings()}
        if not kinds & {"unknown-values", "mask-0-255"}:
            return None
        return mend_values(self.config, {row.value for report in self.reports.values() for row in report.values})

    @property
    def next_command(self) -> str:
        """The whole command line to type next."""
        if mended := self.mended:
            return command("check-data", mended, settings=self.settings)
        if self.errors:
            return command("check-data", self.config, settings=self.settings)
        return command("train", self.config, settings=self.settings or Path("finetune"))

    @property
    def advice(self) -> str:
        """The verdict, and what to type next."""
        if self.mended:
            said = "not fit for training as it is; if the labels are what they look like, type"
        elif self.errors:
            said = "not fit for training: mend the errors, then type"
        else:
            said = "fit for training" + ", if the warnings are meant" * bool(self.warnings) + "; type"
        return f"{said}\n  {self.next_command}"

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain values fit for JSON."""
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

    def table(self) -> Table:
        """What every raw value becomes, with pixels and images in each split, for a terminal."""
        return _values_table(self.reports)


def check_splits(
    config: DataConfig,
    splits: Sequence[SplitName],
    *,
    settings: Path | None = None,
    progress: Progress | None = None,
) -> Survey:
    """Look at every pair of these splits, images read in full.

    Args:
        config: the dataset.
        splits: which of its splits.
        settings: the file of --config that `config` came from, named in `next_command`.
        progress: called after each sample with the number done and in all.

    Raises:
        UserError: none of the splits can be opened. One of two is a finding.
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
    findings += [*_describe(orphans), *_copies(reports)]
    return Survey(
        config=config, samples=samples, reports=reports, orphans=orphans, findings=tuple(findings), settings=settings
    )


def _describe(orphans: Mapping[SplitName, Orphans]) -> Iterator[Finding]:
    """Orphans as findings; those that two splits share once."""
    said: set[Orphans] = set()
    for found in orphans.values():
        bare = found._replace(error="")  # which names the split
        if not found or bare in said:
            continue
        said.add(bare)
        parts = [
            f"{len(files)} {what}: {first(files, SHOWN)}"
            for files, what in ((found.images, "images without labels"), (found.labels, "labels without an image"))
            if files
        ]
        count = len(found.images) + len(found.labels)
        text = "; ".join([*parts, found.remedy])
        yield Finding(kind="orphans", level="error", text=text, count=count)


def _copies(reports: Mapping[SplitName, CheckReport]) -> Iterator[Finding]:
    """Pictures that are in both splits, and those that are in one of them twice."""
    train, val = (reports[split].digests if split in reports else {} for split in ("train", "val"))
    both = train.keys() & val.keys()
    if both:
        shown = "; ".join(f"{train[key][0]} = {val[key][0]}" for key in sorted(both, key=lambda key: val[key])[:SHOWN])
        text = (
            f"{len(both)} pictures are in train and in val ({shown}): scores on them tell of memory, not of skill; "
            "take them out of one of the two"
        )
        yield Finding(kind="leak", level="warning", text=text, count=len(both))
    for split, report in reports.items():
        groups = [files for files in report.digests.values() if len(files) > 1]
        if groups:
            count = sum(len(files) - 1 for files in groups)
            shown = "; ".join(" = ".join(files[:SHOWN]) for files in groups[:3])
            text = f"{split}: {count} images are copies of others, whatever their names: {shown}"
            yield Finding(kind="copies", level="warning", text=text, count=count)


class _Row(NamedTuple):
    """One line: values that become the same."""

    values: tuple[int, ...]
    becomes: str
    color: Color | None = None
    style: str = ""


def _values_table(reports: Mapping[SplitName, CheckReport]) -> Table:
    """Raw values and what they become, with pixels and images of each split."""
    table = Table(title=escape(next(iter(reports.values())).name))
    table.add_column("value", justify="right", overflow="fold", min_width=5)
    table.add_column("", no_wrap=True)
    table.add_column("becomes", overflow="fold")
    for split in reports:
        table.add_column(split, justify="right", no_wrap=True)
        table.add_column("pixels", width=BAR)
        table.add_column("images", justify="right", no_wrap=True)
    stats = [_Stats(report) for report in reports.values()]
    for row in _rows(list(reports.values())):
        swatch = f"[rgb({','.join(map(str, row.color))})]██[/]" if row.color else ""
        values = ", ".join(map(str, row.values[:MANY])) + ", ..." * (len(row.values) > MANY)
        cells = [cell for found in stats for cell in found.cells(row)]
        absent = row.color is not None and all(found.images(row) == 0 for found in stats)
        table.add_row(values, swatch, escape(row.becomes), *cells, style="yellow" if absent else row.style)
    return table


class _Stats:
    """One split's numbers."""

    def __init__(self, report: CheckReport) -> None:
        self.pixels = {row.value: row.pixels for row in report.values}
        self.files = {row.value: row.images for row in report.values}
        self.shown = {row.name: row.images for row in report.rows}
        self.total = max(sum(self.pixels.values()), 1)
        self.highest = max((row.share for row in report.rows), default=0) or 1

    def images(self, row: _Row) -> int:
        """Of a class, those that show it; of other values, those that hold one (the commonest of several)."""
        if row.color is not None:
            return self.shown[row.becomes]
        return max((self.files.get(value, 0) for value in row.values), default=0)

    def cells(self, row: _Row) -> tuple[str, str, str]:
        """Share of pixels, a bar, and images."""
        share = sum(self.pixels.get(value, 0) for value in row.values) / self.total
        bar = "█" * min(BAR, round(BAR * share / self.highest)) or "▏" * (share > 0)
        return percentage(share, ".2f"), bar, str(self.images(row))


def _rows(reports: Sequence[CheckReport]) -> list[_Row]:
    """Classes in order, then what is ignored, then what is unknown."""
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
