"""Match the image names in a file of annotations with the images in a folder.

    names = NameTable(["a/0", "a/1"])
    names.match("images/a/0")           # "a/0"

Tools write paths of another computer. If the folders differ, the file's own name decides, together with as many folders
above it as both paths share.
"""

import re
from collections.abc import Iterable

from segvit.data.lists import stem

OUTSIDE = re.compile(r"^(?:[A-Za-z]:)?(?:/|\.{1,2}/)*")
"""Start of a path that leads out of the folder: a drive, the root, `./` and `../`."""


def image_name(file_name: str) -> str:
    """Return the name of an image in a file of annotations: with forward slashes, inside a folder, without suffix."""
    return stem(OUTSIDE.sub("", file_name.replace("\\", "/")))


class NameTable:
    """Names that others are matched with."""

    def __init__(self, names: Iterable[str]) -> None:
        """Take the names, which are paths without suffix."""
        self._names = set(names)
        self._by_own: dict[str, list[str]] = {}
        for name in self._names:
            self._by_own.setdefault(name.rpartition("/")[2], []).append(name)

    def match(self, name: str) -> str | None:
        """Return the one name that `name` means. None if there is none, or if several fit equally well."""
        if name in self._names:
            return name
        found = self._by_own.get(name.rpartition("/")[2], [])
        if len(found) < 2:
            return found[0] if found else None
        shared = [_shared_parts(name, other) for other in found]
        best = [other for other, count in zip(found, shared, strict=True) if count == max(shared)]
        return best[0] if len(best) == 1 else None


def match_names(described: Iterable[str], images: Iterable[str]) -> dict[str, str]:
    """Return the name of the image for each name in a file of annotations. A name without an image keeps its own.

    Two names match only if each is the other's best match.
    """
    described = list(described)
    ours, theirs = NameTable(images), NameTable(described)
    found = {name: ours.match(name) for name in described}
    return {name: image if image and theirs.match(image) == name else name for name, image in found.items()}


def _shared_parts(one: str, other: str) -> int:
    """Count the last parts that two paths share."""
    count = 0
    for a, b in zip(reversed(one.split("/")), reversed(other.split("/")), strict=False):
        if a != b:
            break
        count += 1
    return count
