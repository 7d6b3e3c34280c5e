"""Name the tools whose files are recognised but not read, with the export of theirs that is read.

A tool that gets a reader in recognise.py leaves this list.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from segvit.data.annotations.format import Content
from segvit.data.annotations.name_list import NO_LABELS


class Unread(NamedTuple):
    """A form of labels that is not read."""

    title: str
    """The file, for messages."""
    export: str
    """The remedy."""
    recognises: Callable[[Content], bool]
    """Returns True for a file of this form."""


def _is_annotation(content: Content) -> bool:
    return isinstance(content.value, str) and "<annotation" in content.value


UNREAD = (
    Unread(
        "XML of LabelMe's old website",
        "in CVAT, export as `CVAT for images 1.1`",
        lambda content: _is_annotation(content) and "<polygon>" in content.value,
    ),
    Unread(
        "an annotation of Pascal VOC, with boxes alone",
        "give the folder SegmentationClass of the export",
        lambda content: _is_annotation(content) and "<bndbox>" in content.value,
    ),
)
"""The forms that are recognised and not read."""


def unread_form(content: Content) -> Unread | None:
    """Return the form of a file that is recognised and not read. None if there is none."""
    return next((form for form in UNREAD if form.recognises(content)), None)


SUFFIXES = (".json", ".txt", ".csv", ".xml")
"""Suffixes of files of these forms."""


def is_candidate(path: Path) -> bool:
    """True if a file may have one of these forms."""
    return path.suffix.lower() in SUFFIXES and path.name not in NO_LABELS
