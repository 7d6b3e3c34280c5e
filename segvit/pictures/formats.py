"""What kinds of file a figure can be: light, for the command line to ask before anything heavy is loaded."""

from pathlib import Path
from typing import Literal, get_args

from segvit.errors import UserError

FigureFormat = Literal["png", "pdf", "svg"]


def check_figure_path(path: Path, whose: str) -> None:
    """Refuse a file that no figure can be written to.

    Args:
        path: the file.
        whose: what the user has typed before it, such as `--plot`.

    Raises:
        UserError: its name ends in none of .png, .pdf and .svg.
    """
    if path.suffix.lower().removeprefix(".") not in get_args(FigureFormat):
        raise UserError(f"{whose} {path}: give a file that ends in .png, .pdf or .svg")
