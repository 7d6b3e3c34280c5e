"""Tables for terminals of any width and any encoding.

    rich.print(Fitted(draw, levels=3))      # draw(0, ascii=False) is the full table, draw(2, ...) the narrowest

Names fold, and numbers are never cut: where the width does not suffice, whole columns are left out.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions
from rich.jupyter import JupyterMixin
from rich.measure import Measurement
from rich.table import Table

WIDE = 1000
"""Width in characters at which every table fits."""
COMPACT: dict[str, Any] = {"box": SIMPLE_HEAD, "collapse_padding": True, "pad_edge": False, "show_edge": False}
"""Arguments of a table that spends no width on lines and margins."""


def too_narrow_for(columns: Sequence[str]) -> str:
    """Return the remark on columns that are left out, or an empty text."""
    return f"too narrow for {', '.join(columns)}" if columns else ""


class Draw(Protocol):
    """Draws a table."""

    def __call__(self, level: int, *, ascii: bool) -> Table:
        """Draw the table with fewer columns the higher the level, and in ASCII alone if the output takes no more."""


class Fitted(JupyterMixin):
    """The fullest version of a table that fits into the terminal, or the cell of a notebook.

    Args:
        draw: draws each version.
        levels: number of versions. The last one is printed at any width.
    """

    def __init__(self, draw: Draw, *, levels: int) -> None:
        self.draw, self.levels = draw, levels

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        wide = options.update(max_width=WIDE)
        for level in range(self.levels):
            table = self.draw(level, ascii=options.ascii_only)
            for column in table.columns:
                if column.no_wrap:  # numbers: rich would measure the longest word alone
                    cells = (column.header, *column.cells)
                    column.min_width = max(Measurement.get(console, wide, cell).maximum for cell in cells)
            if Measurement.get(console, wide, table).minimum <= options.max_width:
                break
        yield table
