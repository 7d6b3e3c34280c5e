"""Images that cannot be read: refused, or up to a limit replaced, left out and listed.

    listed = UnreadableList(Path("runs/camvid/unreadable.txt"), limit=5, fresh=True)
    listed.add(["photos/17.jpg: cannot be read as an image (...)"])

What replaces an image is chosen by the seed and the number of the draw alone (crops.py), so that a run which is
resumed sees the same images.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from segvit.data.images import Unreadable
from segvit.data.sample import Sample, Samples
from segvit.errors import UserError


class Readable(NamedTuple):
    """A sample that can be read, found in place of others that cannot."""

    chosen: int
    sample: Sample
    unreadable: tuple[str, ...]
    """What was said of those."""


def read_or_replace(samples: Samples, index: int, *, another: Callable[[int], int], limit: int) -> Readable:
    """The sample `index`, or the first of those that `another` names (given 0, 1, 2, ...) which can be read.

    Args:
        samples: the dataset.
        index: which sample is wanted.
        another: what is tried instead.
        limit: of unreadable samples; more are an error. 0: the first one is raised as it is.

    Raises:
        UserError: more than `limit`, or all of the dataset, cannot be read.
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
    """The unreadable images of a run, each once, in a file with one a line."""

    def __init__(self, path: Path, *, limit: int, fresh: bool) -> None:
        """Go on with the list of a run that is resumed, or begin one.

        Args:
            path: of the file.
            limit: images that may be unreadable, over the whole run.
            fresh: the run begins; what another one has listed here does not count.
        """
        self.path = path
        self.limit = limit
        known = path.read_text(encoding="utf-8").splitlines() if path.exists() and not fresh else []
        self.lines = dict.fromkeys(known)

    def add(self, texts: Iterable[str]) -> list[str]:
        """Take up what is said of images that cannot be read; those that were not known.

        Raises:
            UserError: they are more than the limit, in all.
        """
        new = [line for line in dict.fromkeys(" ".join(text.split()) for text in texts) if line not in self.lines]
        self.lines.update(dict.fromkeys(new))
        if len(self.lines) > self.limit:
            raise UserError(explain_too_many(self.lines, limit=self.limit))
        return new

    def text(self) -> str:
        """The content of the file."""
        return "".join(line + "\n" for line in self.lines)


def explain_too_many(texts: Iterable[str], *, limit: int) -> str:
    """What is said where more images are unreadable than may be."""
    lines = list(texts)
    if len(lines) <= limit:
        return f"none of the {len(lines)} images can be read:\n{_listing(lines)}"
    return (
        f"{len(lines)} images cannot be read, and data.skip_unreadable allows for {limit}: mend them, or take them out "
        "of the dataset (segvit check-data finds all of them), or type a larger --data.skip-unreadable:\n"
        + _listing(lines)
    )


def _listing(lines: Sequence[str]) -> str:
    return "\n".join(f"  {line}" for line in lines)
