"""Recognise the files of labelling tools by their content, so that a folder of them needs no spec.

    found = recognise(Path("photos"), Path("annotated"))
    found.text                      # "labelme: 3 files, 12 polygons, classes background, bus, person"

`recognise` is the one door. Each function in `DOORS` looks for one family of files, and `TOOLS` has the tools whose
files hold shapes.
"""

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from segvit.data.annotations.format import Content, FileLabels, ShapeLabels
from segvit.data.annotations.name_list import read_name_list
from segvit.data.annotations.parse import State, read_json, state_of
from segvit.data.annotations.summary import Summary, remark, spelled
from segvit.data.annotations.tools.class_masks import ClassMaskLabels, are_label_maps, recognise_masks
from segvit.data.annotations.tools.coco import CocoLabels
from segvit.data.annotations.tools.coco_panoptic import CocoPanopticLabels
from segvit.data.annotations.tools.cvat import CvatLabels
from segvit.data.annotations.tools.geojson import GeoJsonLabels
from segvit.data.annotations.tools.label_studio import LabelStudioLabels
from segvit.data.annotations.tools.labelme import LabelMeLabels
from segvit.data.annotations.tools.run_lengths import RunLengthLabels
from segvit.data.annotations.tools.supervisely import SuperviselyLabels
from segvit.data.annotations.tools.via import ViaLabels
from segvit.data.annotations.tools.yolo import YoloLabels
from segvit.data.annotations.unread import is_candidate, unread_form
from segvit.data.images import IMAGE_SUFFIXES, LOSSLESS_SUFFIXES, Unreadable
from segvit.data.labels.background import BACKGROUND
from segvit.data.labels.format import LabelFormat
from segvit.data.pairs import WILDCARD, Place, Split, files_of, find_images, first
from segvit.errors import UserError
from segvit.utils.text import counted

TOOLS: tuple[type[ShapeLabels], ...] = (
    CocoLabels,
    CocoPanopticLabels,
    LabelMeLabels,
    CvatLabels,
    LabelStudioLabels,
    SuperviselyLabels,
    ViaLabels,
    YoloLabels,
    RunLengthLabels,
    GeoJsonLabels,
)
"""Formats whose files hold shapes, tried in this order."""
LOOKED_AT = 5
"""Number of files of one suffix in a folder by which a tool is recognised."""
HEAD = 4096
"""Number of characters at the start of a text file that are looked at. JSON is parsed in full."""


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """Labels whose form was recognised."""

    label_format: LabelFormat
    """Format with the options for files without a spec."""
    labels: str
    """Folder, glob or file of the labels, as a split names it."""
    classes: tuple[str, ...]
    """Class names in the order of their raw values 0, 1, 2, ..., background first if the tool means background."""
    text: str
    """One line that describes the files."""
    notes: tuple[str, ...] = ()
    """Warnings about what is left out."""
    summary: Summary = field(default_factory=Summary)
    """Counts of the shapes."""


def recognise(images: Path, labels: Path) -> Recognised | None:
    """Return the format and the classes of labels. None for label maps in pictures, and if nothing is recognised.

    Args:
        images: folder or glob of the images.
        labels: folder, glob or file of the labels.

    Raises:
        UserError: `labels` is a file of no known form, a folder holds files of several tools, or all files are damaged.
    """
    for door in DOORS:
        if found := door(images, labels):
            return found
    _refuse_unread(labels)
    return None


def shapes_in(images: Path, labels: Path) -> Recognised | None:
    """Return what a folder, glob or file of shapes holds. None if it holds none.

    Raises:
        UserError: a folder holds files of several tools or several files of one, or all files are damaged.
    """
    files = _annotation_files(images, labels)
    seen: dict[type[ShapeLabels], list[Path]] = {}
    for path in _first_of_each_suffix(files):
        if tool := _tool_of(path, state_of([path])):
            seen.setdefault(tool, []).append(path)
    if not seen:
        return None
    if len(seen) > 1:
        found = first([f"{tool.title} ({paths[0].name})" for tool, paths in seen.items()])
        globs = " or ".join(f"'{labels}/**/*{suffix}'" for suffix in dict.fromkeys(p[0].suffix for p in seen.values()))
        remedy = f"give one file, or a glob, {globs}" if labels.is_dir() and " or " in globs else "give one file"
        raise UserError(f"{labels} holds files of several tools: {found}; {remedy}")
    ((tool, paths),) = seen.items()
    if issubclass(tool, FileLabels) and not labels.is_file():
        return _describe(tool, images, str(labels), [path for path in files if path.suffix.lower() in tool.suffixes])
    if len(paths) > 1:
        raise UserError(f"{labels} holds several files of {tool.title}: {first([str(p) for p in paths])}; give one")
    return _describe(tool, images, str(paths[0]), paths)


def class_masks_in(images: Path, labels: Path) -> Recognised | None:
    """Return what a folder of masks of one class each holds. None if its pictures are something else."""
    if not labels.is_dir() or labels.resolve() == images.resolve() or are_label_maps(images, labels):
        return None
    split = Split(images=str(images), labels=str(labels))
    try:
        names = find_images(Place(Path(), split, "your folders", ("data.images", "data.labels")))
    except UserError:  # the check of the folders reports it
        return None
    masks = recognise_masks(names, labels)
    if masks is None:
        return None
    counts = Counter(kind for kinds in masks.values() for kind in kinds)
    files = counts.total()
    summary = Summary(files=files, images=len(masks), names=counts, kinds=Counter(mask=files))
    classes = (BACKGROUND, *summary.classes)
    return Recognised(
        label_format=ClassMaskLabels(**ClassMaskLabels.lenient),
        labels=str(labels),
        classes=classes,
        text=f"{ClassMaskLabels.name}: {counted(files, 'mask')} of {counted(len(masks), 'image')}, classes "
        f"{first(classes, 20)}",
        summary=summary,
    )


DOORS: tuple[Callable[[Path, Path], Recognised | None], ...] = (shapes_in, class_masks_in)
"""Functions that recognise one family of files, tried in this order. Each gets the images and the labels."""


def _refuse_unread(labels: Path) -> None:
    """Raise an error for a file that is not read, and for a folder without pictures whose first file is not read."""
    files = [labels] if labels.is_file() else files_of(Path(), str(labels), "labels") if labels.is_dir() else []
    if any(path.suffix.lower() in IMAGE_SUFFIXES for path in files):
        return
    known = f"segvit reads masks and the files of {', '.join(tool.title for tool in TOOLS)}"
    for path in [path for path in files if is_candidate(path)][:LOOKED_AT]:
        content = _read_content(path)  # an error says where the file is damaged
        if form := unread_form(content):
            raise UserError(f"{path} is {form.title}, which segvit does not read; {form.export} ({known})")
    if labels.is_file():
        raise UserError(f"{labels} holds no annotations of a known form; give another file or a folder ({known})")


def _describe(tool: type[ShapeLabels], images: Path, labels: str, files: Sequence[Path]) -> Recognised:
    """Return the format with the classes in its files."""
    names_file = tool.names_file(files[0].parent)
    summary = _summarise(tool, tuple(files), state_of(files), state_of([names_file] if names_file else []))
    source, listed = (None, ()) if summary.declared else read_name_list(Path(labels))
    if listed:
        summary = replace(summary, declared=listed)
    if summary.unreadable and len(summary.unreadable) == summary.files:
        raise UserError(summary.unreadable[0])
    if not summary.kinds:
        found = spelled(summary.skipped + summary.remarks) or "no shapes"
        remedy = f"draw polygons, boxes or masks in {tool.title}{tool.remedy(summary, images, labels)}"
        raise UserError(f"{labels}: no shape labels pixels ({found}): {remedy}")
    classes = (BACKGROUND,) * summary.background + summary.classes
    parts = [counted(summary.files, "file")]
    if summary.images != summary.files:
        parts.append(counted(summary.images, "image"))
    parts += [counted(count, kind) for kind, count in summary.kinds.most_common()]
    origin = f" (order of {source})" if listed else f" (names from {names_file})" if names_file else ""
    return Recognised(
        label_format=tool(**tool.lenient),
        labels=labels,
        classes=classes,
        text=f"{tool.name}: {', '.join(parts)}, classes {first(classes, 20)}" + origin,
        notes=tuple(_notes(summary)),
        summary=summary,
    )


def _notes(summary: Summary) -> list[str]:
    """Return warnings about shapes and files that are left out."""
    notes = []
    if summary.skipped:
        count = summary.skipped.total()
        notes.append(f"{counted(count, 'shape')} of no area left out: {spelled(summary.skipped)}")
    notes += [remark(count, text) for text, count in summary.remarks.items()]
    if summary.unreadable:
        notes.append(f"{counted(len(summary.unreadable), 'file')} cannot be read: {summary.unreadable[0]}")
    return notes


@functools.lru_cache(maxsize=8)
def _summarise(tool: type[ShapeLabels], files: tuple[Path, ...], state: State, names: State) -> Summary:
    """Count what files hold, once for each state of them and of their file of names. A command asks several times."""
    return tool(**tool.lenient).summarise(files)


@functools.lru_cache(maxsize=64)
def _tool_of(path: Path, state: State) -> type[ShapeLabels] | None:
    """Return the tool that wrote a file, once for each state of the file. None for a file of no known form."""
    suffix = path.suffix.lower()
    tools = [tool for tool in TOOLS if suffix in tool.suffixes]
    content = _content(path) if tools else None
    return next((tool for tool in tools if content and tool.recognises(content)), None)


def _content(path: Path) -> Content | None:
    """Return what a file holds. None if it cannot be read, or is empty where that means a damaged file."""
    try:
        return _read_content(path)
    except Unreadable:
        return None


def _read_content(path: Path) -> Content:
    """Return what a file holds: parsed JSON, or the start of any other text.

    Raises:
        Unreadable: it cannot be read, or is empty. An empty text file may be an image without objects.
    """
    if path.suffix.lower() == ".json":
        return Content(path, read_json(path))
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            text = file.read(HEAD)
    except OSError as error:
        raise Unreadable(f"{path}: cannot be read ({error}); export it again") from error
    if not text.strip() and path.suffix.lower() != ".txt":
        raise Unreadable(f"{path}: the file is empty; export it again")
    return Content(path, text)


def _annotation_files(images: Path, labels: Path) -> list[Path]:
    """Return the files that may be annotations. None are if the labels are pictures."""
    suffixes = {suffix for tool in TOOLS for suffix in tool.suffixes}
    if labels.is_file():
        return [labels] if labels.suffix.lower() in suffixes else []
    if not labels.is_dir() and not WILDCARD.search(labels.as_posix()):
        return []
    files = files_of(Path(), str(labels), "labels")
    found = [path for path in files if path.suffix.lower() in suffixes]
    if labels.is_dir() and labels.resolve() != images.resolve():
        described = {path.with_suffix("") for path in found}
        pictures = [path for path in files if path.suffix.lower() in LOSSLESS_SUFFIXES]
        if any(path.with_suffix("") not in described for path in pictures):  # masks, with other files beside them
            return []
    return found


def _first_of_each_suffix(files: Sequence[Path]) -> list[Path]:
    """Return a few files of each suffix."""
    found: Mapping[str, list[Path]] = {path.suffix.lower(): [] for path in files}
    for path in files:
        if len(found[path.suffix.lower()]) < LOOKED_AT:
            found[path.suffix.lower()].append(path)
    return [path for paths in found.values() for path in paths]
