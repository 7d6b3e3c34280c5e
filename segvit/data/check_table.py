"""The table of a check: what every raw value becomes, and how much of it there is in each split."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rich.markup import escape
from rich.table import Table

from segvit.data.check import CheckReport
from segvit.data.palette import Color

MANY = 40
"""Ignored and unknown values that get rows of their own; the others share one."""
BAR = 6
"""Characters of the longest bar."""


class _Row(NamedTuple):
    """One line: values that become the same."""

    values: tuple[int, ...]
    becomes: str
    color: Color | None = None
    style: str = ""


def values_table(reports: Mapping[str, CheckReport]) -> Table:
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
        return f"{share:.2%}", bar, str(self.images(row))


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
