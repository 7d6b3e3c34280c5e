"""Keep the header of a model in a file beside it, for formats whose files have no room for text."""

from pathlib import Path
from typing import TYPE_CHECKING

from segvit.export.formats.format import Format

if TYPE_CHECKING:
    from segvit.export.traced import Traced


class HeaderBeside(Format):
    """A format with a JSON file beside it: model.pte.json beside model.pte."""

    def files(self, path: Path) -> tuple[Path, ...]:
        """Return the file and its header file."""
        return (path, path.with_name(f"{path.name}.json"))

    def add_header(self, file: Path, traced: "Traced", header: str) -> None:
        """Write the header file."""
        self.files(file)[1].write_text(f"{header}\n", encoding="utf-8")
