"""Explain errors of the operating system about paths that the user gave: the one place for all commands.

    explain(PermissionError(13, "Permission denied", "run/config.yaml"), ["train", "--output", "run"])
    # --output run: Permission denied (run/config.yaml); allow access to it, or give another path

Most of them are checked before long work (`check_paths`). The others arrive here.
"""

import errno
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from segvit.errors import UserError
from segvit.utils.yaml_text import load_yaml

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a full disk. Python often gives no path with them."""
REMEDIES = {
    **dict.fromkeys(NO_ROOM, "make room or give another path, then run the same command again"),
    errno.ENOENT: "check the path",
    errno.EACCES: "allow access to it, or give another path",
    errno.EPERM: "allow access to it, or give another path",
    errno.EROFS: "give a path on a disk that can be written",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOTDIR: "a file is in the way: give another path",
    errno.EEXIST: "a file is in the way: give another path",
    errno.EISDIR: "it is a folder: give a file",
    errno.ELOOP: "its links lead in a circle: check the path",
}
"""Remedy for each error."""


def explain(error: OSError, words: Sequence[str]) -> UserError | None:
    """Return the error about a path of the user's, or None if the user gave no such path.

    Args:
        error: what the system said.
        words: words of the command line, without the name of the program.
    """
    remedy = REMEDIES.get(error.errno or 0, "check the path")
    if error.filename is None:
        return UserError(f"{error.strerror}; {remedy}") if error.errno in NO_ROOM else None
    path = Path(str(error.filename))
    for flag, given in _given(words):
        if path == given or given in path.parents:
            where = "" if path == given else f" ({path})"
            return UserError(f"{flag} {given}: {error.strerror}{where}; {remedy}".lstrip())
    ours = (Path(sys.prefix), Path(__file__).parents[1], Path(tempfile.gettempdir()), Path("/proc"), Path("/sys"))
    if any(folder in path.parents for folder in ours):
        return None
    return UserError(f"{path}: {error.strerror}; {remedy}")


def _given(words: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Yield each path of a command line, or of the YAML file that it names, with its flag or setting."""
    flag, configs = "", []
    for word in words:
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
        else:
            equals, value = "=", word
        if equals and value:
            yield flag, Path(value)
            configs += [value] if flag == "--config" else []
    for config in configs:
        yield from _settings(Path(config))


def _settings(config: Path) -> Iterator[tuple[str, Path]]:
    """Yield each text in a YAML file of settings with the name of its setting, or nothing if it cannot be read."""
    try:
        content = load_yaml(config.read_text(encoding="utf-8"), source=str(config))
    except (OSError, ValueError, UserError):
        return
    for key, value in content.items() if isinstance(content, dict) else ():
        for name, item in value.items() if isinstance(value, dict) else [("", value)]:
            if isinstance(item, str) and item:
                yield f"{config}: {key}{f'.{name}' * bool(name)}", Path(item)
