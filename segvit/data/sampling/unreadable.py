"""Raise the error of an image that cannot be read, or replace and list such images up to a limit.

    listed = UnreadableList(Path("runs/camvid/unreadable.txt"), limit=5, fresh=True)
    listed.add(["photos/17.jpg: cannot be read as an image (...)"])

The replacement depends on the seed and the number of the draw alone (crops.py), so that a resumed run sees the same
images.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from segvit.data.images import Unreadable
from segvit.data.sample import Sample, Samples
from segvit.errors import UserError
from segvit.utils.text import counted


class Readable(NamedTuple):
    """A sample that can be read, found in place of others that cannot."""

    chosen: int
    sample: Sample
    unreadable: tuple[str, ...]
    """Error texts of the others."""


def read_or_replace(samples: Samples, index: int, *, another: Callable[[int], int], limit: int) -> Readable:
    """Read the sample `index`, or else the first readable one of another(0), another(1), another(2), ...

    Args:
        samples: the dataset.
        index: the sample to read.
        another: index of the sample to try instead, by attempt.
        limit: largest number of unreadable samples. 0 raises the first error unchanged.

    Raises:
        UserError: more than `limit` samples, or all of the dataset, cannot be read.
    """
    failed: dict[int, str] = {}
    attempt = 0
    while True:
        if index not in failed:
            try:
                return Readable(index, samples.read(index), tuple(failed.values()))
            except Unreadable as error:
                if limit == 0:
                    raise
                failed[index] = str(error)
            if len(failed) > limit or len(failed) == len(samples):
                raise UserError(explain_too_many(failed.values(), limit=limit))
        index = another(attempt)
        attempt += 1


class UnreadableList:
    """The unreadable images of a run, in a file with one line for each."""

    def __init__(self, path: Path, *, limit: int, fresh: bool) -> None:
        """Continue the list of a resumed run, or start a new one.

        Args:
            path: file with the list.
            limit: largest number of unreadable images in the whole run.
            fresh: start a new list, even if another run has left one here.
        """
        self.path = path
        self.limit = limit
        known = path.read_text(encoding="utf-8").splitlines() if path.exists() and not fresh else []
        self.lines = dict.fromkeys(known)

    def add(self, texts: Iterable[str]) -> list[str]:
        """Add the errors of unreadable images, and return the new ones.

        Raises:
            UserError: the list is longer than the limit.
        """
        new = [line for line in dict.fromkeys(" ".join(text.split()) for text in texts) if line not in self.lines]
        self.lines.update(dict.fromkeys(new))
        if len(self.lines) > self.limit:
            raise UserError(explain_too_many(self.lines, limit=self.limit))
        return new

    def text(self) -> str:
        """Return the content of the file."""
        return "".join(line + "\n" for line in self.lines)


def explain_too_many(texts: Iterable[str], *, limit: int) -> str:
    """Return the error text for more unreadable images than the limit."""
    lines = list(texts)
    if len(lines) <= limit:
        return f"not one of {counted(len(lines), 'image')} can be read:\n{_listing(lines)}"
    return (
        f"{counted(len(lines), 'image')} cannot be read, and data.skip_unreadable allows {limit}: replace them, remove "
        "them from the dataset (segvit check-data finds all of them), or give a larger --data.skip-unreadable:\n"
        + _listing(lines)
    )


def _listing(lines: Sequence[str]) -> str:
    return "\n".join(f"  {line}" for line in lines)
