"""Name the files that list class names, and read those with one name a line, such as LabelMe's labels.txt."""

from pathlib import Path

NAME_LISTS = ("labels.txt", "classes.txt", "class_names.txt")
"""Files of class names, one a line, in the folder of the labels or beside it, in the order in which they are tried."""
DARKNET_LIST = "obj.names"
"""Darknet's file of class names, one a line, above the folder of the labels."""
MASK_LISTS = ("classes.txt", "labelmap.txt", "class_names.txt", "_classes.csv")
"""Files of class names in the folder of masks or beside it, in the order in which they are tried."""
NO_LABELS = frozenset((*NAME_LISTS, *MASK_LISTS, DARKNET_LIST))
"""Files that list class names, so they are never labels of an image."""
LEFT_OUT = "__ignore__"
"""LabelMe's name for pixels without a class."""
NO_NAME = ("#", LEFT_OUT)
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
