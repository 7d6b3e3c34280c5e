"""Find the list of class names that a labelling tool was started with, such as LabelMe's labels.txt."""

from pathlib import Path

NAME_LISTS = ("labels.txt", "classes.txt", "class_names.txt")
"""Files of class names, one a line, in the folder of the labels or beside it, in the order in which they are tried."""
NO_NAME = ("#", "__ignore__")
"""Starts of lines that name no class."""


def read_name_list(labels: Path) -> tuple[Path | None, tuple[str, ...]]:
    """Return the list beside a folder or file of labels, and its names. No file and no names if there is none."""
    folder = labels if labels.is_dir() else labels.parent
    for path in (place / name for place in (folder, folder.parent) for name in NAME_LISTS):
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
        except (OSError, UnicodeDecodeError):
            continue
        names = [line for line in lines if line and not line.startswith(NO_NAME)]
        if names and not any("=" in name or ":" in name for name in names):  # those describe label maps
            return path, tuple(dict.fromkeys(names))
    return None, ()
