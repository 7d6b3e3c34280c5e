"""Explain a pattern such as photos/*.jpg that the shell has replaced by many files, where two folders are expected."""

from collections.abc import Sequence
from pathlib import Path
from shlex import quote


def spread_pattern(verb: str, words: Sequence[str]) -> tuple[str, str] | None:
    """Return (the pattern as it was probably typed, what to do), or None if the words are something else.

    Args:
        verb: command that takes two folders, such as `train`.
        words: all words behind it that belong to no option.
    """
    paths = [Path(word) for word in words]
    files = [path for path in paths if path.is_file()]
    if len(words) <= 2 or not files or not all(path.exists() for path in paths):
        return None
    folder = files[0].parent
    together = [path for path in files if path.parent == folder]
    suffixes = {path.suffix for path in together}
    pattern = folder / (f"*{suffixes.pop()}" if len(suffixes) == 1 else "*")
    folders = list(dict.fromkeys(str(path.parent if path.is_file() else path) for path in paths))
    given = [quote(name) for name in folders] if len(folders) <= 2 else []
    line = " ".join(["segvit", verb, *given, *("PHOTOS", "MASKS")[len(given) :]])
    return str(pattern), f"the shell put {len(together)} files in its place. Give the folders instead: {line}"
