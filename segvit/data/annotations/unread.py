"""Name the tools whose files are recognised but not read, with the export of theirs that is read.

A tool that gets a reader in recognise.py leaves this list.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from segvit.data.annotations.format import Content

YOLO_LINE = re.compile(r"\d+(?:[ \t]+[-+.\deE]+){4,}[ \t]*(?:\n|$)")
"""A line of YOLO: the number of a class, and numbers in 0..1."""


class Unread(NamedTuple):
    """A form of labels that is not read."""

    title: str
    """The file, for messages."""
    export: str
    """The remedy."""
    recognises: Callable[[Content], bool]
    """Returns True for a file of this form."""


def _keys(value: Any) -> set[str]:
    """Return the keys of a mapping, or of the first mapping in a list."""
    first = value[0] if isinstance(value, list) and value else value
    return set(first) if isinstance(first, dict) else set()


def _is_via(content: Content) -> bool:
    value = content.value
    if isinstance(value, dict) and "_via_img_metadata" in value:
        return True
    return isinstance(value, dict) and any({"filename", "regions"} <= _keys(each) for each in list(value.values())[:5])


def _is_annotation(content: Content) -> bool:
    return isinstance(content.value, str) and "<annotation" in content.value


UNREAD = (
    Unread(
        "an export of Label Studio",
        "in Label Studio, export as COCO (with images)",
        lambda content: "data" in _keys(content.value) and bool({"annotations", "completions"} & _keys(content.value)),
    ),
    Unread("a project of VGG Image Annotator (VIA)", "in VIA, export the annotations as COCO", _is_via),
    Unread(
        "a file of Supervisely",
        "in Supervisely, export as COCO or as masks",
        lambda content: (
            {"size", "objects"} <= _keys(content.value) or {"classes", "projectType"} <= _keys(content.value)
        ),
    ),
    Unread(
        "labels of YOLO",
        "export the outlines as COCO",
        lambda content: isinstance(content.value, str) and YOLO_LINE.match(content.value) is not None,
    ),
    Unread(
        "a table of run lengths",
        "export the masks as pictures or as COCO",
        lambda content: isinstance(content.value, str) and "encodedpixels" in content.value.partition("\n")[0].lower(),
    ),
    Unread(
        "XML of LabelMe's old website",
        "in CVAT, export as `CVAT for images 1.1`",
        lambda content: _is_annotation(content) and "<polygon>" in content.value,
    ),
    Unread(
        "an annotation of Pascal VOC, which has boxes alone",
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
    return path.suffix.lower() in SUFFIXES and path.name not in ("classes.txt", "labels.txt", "labelmap.txt")
