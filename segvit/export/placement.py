"""Give a checked export its final name: a file, a folder, or a file with others beside it."""

from collections.abc import Sequence
from pathlib import Path

from segvit.utils.files import flush_file, remove


def place(built: Sequence[Path], targets: Sequence[Path]) -> None:
    """Move an export to its final name, replacing an older one.

    The first name is the one that users open. If there are several, the older first one is removed before the others
    change and the new one comes last, so that it never meets parts of another export.

    Args:
        built: files or folders in a temporary folder on the same disk.
        targets: their final names, in the same order.
    """
    for each in built:
        for file in each.rglob("*") if each.is_dir() else (each,):
            if file.is_file():
                flush_file(file)
    if len(built) > 1:
        remove(targets[0])
    for source, target in reversed(list(zip(built, targets, strict=True))):
        if target.is_dir():  # which a folder cannot replace in one step
            target.rename(source.with_name(f"{source.name}.older"))
        source.replace(target)


def size_in_bytes(paths: Sequence[Path]) -> int:
    """Return the size of files and folders in bytes."""
    return sum(
        file.stat().st_size
        for path in paths
        for file in (path.rglob("*") if path.is_dir() else (path,))
        if file.is_file()
    )
