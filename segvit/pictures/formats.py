"""File formats of figures. This module imports nothing heavy, so the command line can check a path at once."""

from pathlib import Path
from typing import Literal, get_args

from segvit.errors import UserError

FigureFormat = Literal["png", "pdf", "svg"]


def check_figure_path(path: Path, whose: str) -> None:
    """Check that `path` has the suffix of a figure format.

    Args:
        path: output file.
        whose: flag or word to name before the path in the error, such as `--plot`.

    Raises:
        UserError: the suffix is not .png, .pdf or .svg.
    """
    if path.suffix.lower().removeprefix(".") not in get_args(FigureFormat):
        raise UserError(f"{whose} {path}: give a file that ends in .png, .pdf or .svg")
