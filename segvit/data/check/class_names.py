"""Name the classes of two folders or of a packed dataset: by a file of names, or by the values in the masks.

    named = name_classes(DataConfig(images="photos", labels="masks"))
    named.config.classes, named.text         # ("sky", "road"), "class names from masks/classes.txt: sky, road"

name_files.py reads the files of names.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

from segvit.config import DataConfig
from segvit.data.annotations.name_list import MASK_LISTS
from segvit.data.annotations.recognise import Recognised
from segvit.data.check.name_files import NameFile, code_of, find_names
from segvit.data.check.painted import by_color
from segvit.data.check.scan import Scan, scan_all
from segvit.data.dataset import SegmentationDataset, open_incomplete
from segvit.data.folder_spec import ANY, check_given, recognised, resolve_spec
from segvit.data.labels.color import NEAREST
from segvit.data.labels.format import OTHERS
from segvit.data.member import File
from segvit.data.packed.names import find_packed_names, folder_of_names
from segvit.data.packed.packed import find_packed
from segvit.data.pairs import first
from segvit.data.palette import Color
from segvit.data.spec import DEFAULT_IGNORE, IGNORE_INDEX
from segvit.data.two_folders import check_order
from segvit.errors import UserError

MOST = 200
"""Largest number of values or colours that can be classes without names. More of them look like photos."""
SHOWN = 6
"""Number of classes that a text spells out."""


@dataclass(frozen=True, kw_only=True)
class NamedClasses:
    """Settings of a dataset with its classes."""

    config: DataConfig
    text: str = ""
    """Origin of the names, and the columns or endings of a packed dataset, to print. Empty if they were given."""
    notes: tuple[str, ...] = ()
    """Warnings about the files of a labelling tool, which the check of the dataset reports too."""
    found: str = ""
    """One line on the files of a labelling tool. Empty for label maps."""

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that may have been found, by name."""
        names = ("classes", "image_key", "labels_key")
        return {f"data.{name}": value for name in names if (value := getattr(self.config, name))}


def name_classes(config: DataConfig) -> NamedClasses:
    """Return the settings of a dataset with the names of its classes.

    Settings that name the classes, or that are neither two folders nor a packed dataset, are returned unchanged. Files
    of labelling tools name their classes themselves. A packed dataset also gets the columns or endings of its images
    and labels.

    Raises:
        UserError: the folders are swapped, the files of names are wrong, the values cannot be classes, the classes
            given are not those of a labelling tool, or a packed dataset cannot be opened.
    """
    if config.is_packed:
        return _name_packed(config)
    if config.spec is not None or config.images is None or config.labels is None or config.root is not None:
        return NamedClasses(config=config)
    if found := recognised(config):
        return _name_by_tool(config, found)
    check_order(config.images, config.labels)
    file = find_names(config.labels)
    if config.classes:
        return _name_typed(config, file)
    if file is None:
        return _name_by_values(config)
    return _name_by_file(config, file)


def _name_by_file(config: DataConfig, file: NameFile) -> NamedClasses:
    """Return the settings with the classes of a file of names, in their colours if the masks are painted."""
    names = file.painted if file.colors and by_color(_masks(config), file) else file.names
    text = f"class names from {file.path}: {first(names, SHOWN)}"
    return NamedClasses(config=replace(config, classes=names), text=text)


def _name_packed(config: DataConfig) -> NamedClasses:
    """Choose the columns or endings of a packed dataset, and name its classes."""
    label_format = check_given(config).label_format
    lines = []
    if config.image_key is None or config.labels_key is None:
        keys = find_packed(config, label_format, "train").keys
        lines.append(f"{config.hub or config.shards}: {keys}")
        config = replace(config, image_key=keys.image, labels_key=keys.labels)
    if config.spec is None and not config.classes:
        named = _find_names_packed(config)
        config = named.config
        lines.append(named.text)
    return NamedClasses(config=config, text="\n".join(lines))


def _find_names_packed(config: DataConfig) -> NamedClasses:
    """Name the classes of a packed dataset by what comes with it, or by the values in its label maps."""
    if found := find_packed_names(config):
        text = f"class names from {found.origin}: {first(found.classes, SHOWN)}"
        return NamedClasses(config=replace(config, classes=found.classes), text=text)
    folder = folder_of_names(config)
    if folder is not None and (file := find_names(folder)):
        return _name_by_file(config, file)
    return _name_by_values(config)


def _name_typed(config: DataConfig, file: NameFile | None) -> NamedClasses:
    """Return the settings with the classes that were typed, in their colours if the masks are painted."""
    if (
        file is None
        or not file.colors
        or not (names := [name for name in config.classes if name != f"{OTHERS}={NEAREST}"])
        or not set(names) <= set(file.names)
        or not by_color(_masks(config), file)
    ):
        return NamedClasses(config=config)
    colors = dict(zip(file.names, file.colors, strict=True))
    classes = tuple(f"{name}={code_of(colors[name])}" for name in names)
    text = f"colours of the classes from {file.path}: {first(classes, SHOWN)}"
    rest = config.classes[len(names) :] and (f"{OTHERS}={NEAREST}",)
    return NamedClasses(config=replace(config, classes=(*classes, *rest)), text=text)


def _name_by_tool(config: DataConfig, found: Sequence[Recognised]) -> NamedClasses:
    """Return the settings of files of a labelling tool, with the classes in the files if none are given.

    Raises:
        UserError: the classes given are not those in the files.
    """
    spec = resolve_spec(config)
    lines = "\n".join(each.text for each in found)
    notes = tuple(dict.fromkeys(note for each in found for note in each.notes))
    if config.classes:
        return NamedClasses(config=config, found=lines, notes=notes)
    return NamedClasses(config=replace(config, classes=spec.classes), text=lines, found=lines, notes=notes)


def _masks(config: DataConfig) -> Iterator[File]:
    """Yield the label maps of both splits."""
    for samples in _open(config):
        yield from (pair.labels for pair in samples.pairs)


def _scan(config: DataConfig) -> list[Scan]:
    """Scan the label maps of both splits."""
    return [scan for found in _open(config) for scan in scan_all(found, range(len(found)), decode=False)]


def _open(config: DataConfig) -> Iterator[SegmentationDataset]:
    """Open both splits with one class, whose name does not matter."""
    splits: tuple[Literal["train", "val"], ...] = ("train", "val") if config.val_fraction != 0 else ("train",)
    for split in splits:
        samples, _ = open_incomplete(replace(config, classes=ANY, ignore=()), split)
        assert isinstance(samples, SegmentationDataset)
        yield samples


def _name_by_values(config: DataConfig) -> NamedClasses:
    """Name each class by its value or its colour in the masks."""
    values: Counter[int] = Counter()
    colors: Counter[Color] = Counter()
    where = config.labels or config.hub or config.shards
    scans = _scan(config)
    for scan in scans:
        values.update(scan.pixels or {})
        colors.update(scan.colors or {})
    if not values and not colors:
        raise UserError("\n".join(scans[0].unreadable))
    if values and colors:
        raise UserError(
            f"some masks in {where} are painted in colours, and others hold class numbers: save all in one way"
        )
    remedy = "with --data.classes" if config.labels is None else f"in {config.labels}/classes.txt"
    wrong = f"so many look like photos or smoothed masks; if they are classes, name them {remedy}"
    if len(values or colors) > MOST or _is_smooth(values):
        what = f"{len(values)} different values" if values else f"{len(colors)} different colours"
        if colors:
            typed = " ".join(f"'NAME={code_of(color)}'" for color, _ in colors.most_common(2))
            wrong = (
                "so many look like photos, or like classes with smooth edges; if they are classes, type the colour of "
                f"each and {OTHERS}={NEAREST} for the edges: `--data.classes {typed} ... {OTHERS}={NEAREST}`"
            )
        raise UserError(f"the masks in {where} hold {what}: {wrong}")
    if colors:
        codes = [code_of(color) for color in sorted(colors)]
        return _without_names(config, [f"color_{code[1:]}={code}" for code in codes], ())
    if min(values) < 0:
        raise UserError(
            f"the masks in {where} hold the value {min(values)}, which is no class and cannot be ignored: "
            "write such pixels as 255 in the files"
        )
    ignored = _ignored(sorted(values), config.ignore)
    kept = [value for value in sorted(values) if value not in ignored]
    if not kept:
        raise UserError(f"the masks hold only ignored values ({first(sorted(values))}): correct --data.ignore")
    return _without_names(config, [f"value_{value}={value}" for value in kept], ignored)


def _is_smooth(values: Counter[int]) -> bool:
    """True if masks of 0 and 255 hold values near 255, which compression and smooth resizing make."""
    return {0, 255} <= values.keys() and any(240 <= value < 255 for value in values)


def _ignored(values: Sequence[int], ignore: Sequence[int]) -> tuple[int, ...]:
    """Return the values that are ignored.

    By default 255 is, unless the values are evenly spaced up to it, as painting programs write them: 0 and 255, or 0,
    85, 170 and 255.
    """
    if tuple(ignore) != DEFAULT_IGNORE or IGNORE_INDEX not in values:
        return tuple(value for value in ignore if value in values)
    steps = [after - before for before, after in pairwise(values)]
    even = values[0] == 0 and values[-1] == IGNORE_INDEX and max(steps) - min(steps) <= 1 < min(steps)
    return () if even else DEFAULT_IGNORE


def _without_names(config: DataConfig, classes: Sequence[str], ignored: Sequence[int]) -> NamedClasses:
    """Return the settings with these classes, and the warning with the ways to name them."""
    names = first([text.partition("=")[0] for text in classes], SHOWN)
    left = f"; {first(ignored)} is ignored" if ignored else ""
    typed = [f"NAME={text.partition('=')[2]}" for text in classes[:SHOWN]]
    flags = " ".join(f"'{text}'" if "#" in text else text for text in typed) + " ..." * (len(classes) > SHOWN)
    folder = folder_of_names(config) if config.labels is None else config.labels
    folder = folder.parent if folder is not None and not folder.is_dir() else folder
    file = "" if folder is None else f", or with lines such as {typed[0]} in {folder / MASK_LISTS[0]}"
    text = (
        f"warning: the classes have no names, so they are called by their values in the masks: {names}{left}. "
        f"Name them with --data.classes {flags}{file}"
    )
    return NamedClasses(config=replace(config, classes=tuple(classes)), text=text)
