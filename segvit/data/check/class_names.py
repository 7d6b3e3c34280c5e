"""Name the classes of two folders or of a packed dataset: by a file of names, or by the values in the masks.

    named = name_classes(DataConfig(images="photos", labels="masks"))
    named.config.classes, named.text         # ("sky", "road"), "class names from masks/classes.txt: sky, road"

A file of names has one name a line, in the order of the values 0, 1, 2, ..., or `NAME=VALUE`. CVAT's labelmap.txt has
`name:red,green,blue::`.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from segvit.config import DataConfig
from segvit.data.check.scan import Scan, scan_all
from segvit.data.dataset import SegmentationDataset, open_incomplete
from segvit.data.folder_spec import check_given
from segvit.data.packed.names import find_names, folder_of_names
from segvit.data.packed.packed import find_packed
from segvit.data.pairs import first
from segvit.data.palette import Color
from segvit.data.spec import DEFAULT_IGNORE, IGNORE_INDEX
from segvit.data.two_folders import check_order
from segvit.errors import UserError

NAME_FILES = ("classes.txt", "labelmap.txt", "class_names.txt")
"""Files of class names in the folder of the masks or beside it, in the order in which they are looked for."""
MOST = 200
"""Largest number of values or colours that can be classes without names. More of them look like photos."""
SHOWN = 6
"""Number of classes that a text spells out."""
CVAT_LINE = re.compile(r"(?P<name>[^:]+):(?P<color>\d+,\d+,\d+)?:[^:]*:[^:]*")
NUMBERED_LINE = re.compile(r"(?P<value>\d+)\s*[\s:,;]\s*(?P<name>\S.*)")
LEFT_OUT = "__ignore__"
"""LabelMe's first entry, for pixels without a class."""


@dataclass(frozen=True, kw_only=True)
class NamedClasses:
    """Settings of a dataset with its classes."""

    config: DataConfig
    text: str = ""
    """Origin of the names, and the columns or endings of a packed dataset, to print. Empty if they were given."""

    @property
    def found(self) -> dict[str, Any]:
        """The settings that may have been found, by name."""
        names = ("classes", "image_key", "labels_key")
        return {f"data.{name}": value for name in names if (value := getattr(self.config, name))}


def name_classes(config: DataConfig) -> NamedClasses:
    """Return the settings of a dataset with the names of its classes.

    Settings that name the classes, or that are neither two folders nor a packed dataset, are returned unchanged. Those
    of a packed dataset also get the columns or endings of its images and labels.

    Raises:
        UserError: the folders are swapped, the files of names are wrong, the values cannot be classes, or a packed
            dataset cannot be opened.
    """
    if config.is_packed:
        return _name_packed(config)
    if config.spec is not None or config.images is None or config.labels is None or config.root is not None:
        return NamedClasses(config=config)
    check_order(config.images, config.labels)
    if config.classes:
        return NamedClasses(config=config)
    if file := _find_names(config.labels):
        return _name_by_file(config, file)
    return _name_by_values(config)


def _name_by_file(config: DataConfig, file: Path) -> NamedClasses:
    """Name the classes by a file of names."""
    names, colors = _read_names(file)
    painted = len(colors) == len(names) and any(scan.colors for scan in _scan(config, limit=1))
    if painted:
        names = [f"{name}={_code(color)}" for name, color in zip(names, colors, strict=True)]
    text = f"class names from {file}: {first(names, SHOWN)}"
    return NamedClasses(config=replace(config, classes=tuple(names)), text=text)


def _name_packed(config: DataConfig) -> NamedClasses:
    """Choose the columns or endings of a packed dataset, and name its classes."""
    label_format = check_given(config).label_format
    lines = []
    if config.image_key is None or config.labels_key is None:
        keys = find_packed(config, label_format, "train").keys
        lines.append(f"{config.hub or config.shards}: {keys}")
        config = replace(config, image_key=keys.image, labels_key=keys.labels)
    if config.spec is None and not config.classes:
        named = _find_packed_names(config)
        config = named.config
        lines.append(named.text)
    return NamedClasses(config=config, text="\n".join(lines))


def _find_packed_names(config: DataConfig) -> NamedClasses:
    """Name the classes of a packed dataset by what comes with it, or by the values in its label maps."""
    if found := find_names(config):
        text = f"class names from {found.origin}: {first(found.classes, SHOWN)}"
        return NamedClasses(config=replace(config, classes=found.classes), text=text)
    folder = folder_of_names(config)
    if folder is not None and (file := _find_names(folder)):
        return _name_by_file(config, file)
    return _name_by_values(config)


def _find_names(labels: Path) -> Path | None:
    """Return the file of class names in the folder of the masks or beside it, if there is one."""
    folder = labels if labels.is_dir() else labels.parent
    found = (place / name for place in (folder, folder.parent) for name in NAME_FILES)
    return next((file for file in found if file.is_file()), None)


def _read_names(file: Path) -> tuple[list[str], list[Color]]:
    """Read classes as `data.classes` takes them, and their colours if every line has one."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: the class names cannot be read ({error}); save it as UTF-8 text") from error
    lines = [line for line in lines if line and not line.startswith("#") and line != LEFT_OUT]
    if not lines:
        raise UserError(f"{file}: there is no class name in it; write one a line, or give --data.classes")
    if all(matches := [CVAT_LINE.fullmatch(line) for line in lines]):
        found = [(match["name"].strip(), match["color"]) for match in matches if match]
        return [name for name, _ in found], [_color(text, file) for _, text in found if text]
    if all(matches := [NUMBERED_LINE.fullmatch(line) for line in lines]):
        return [f"{match['name']}={int(match['value'])}" for match in matches if match], []
    return lines, []


def _color(text: str, file: Path) -> Color:
    """Read `red,green,blue`."""
    red, green, blue = map(int, text.split(","))
    if max(red, green, blue) > 255:
        raise UserError(f"{file}: the colour {text} is not three numbers in 0..255")
    return red, green, blue


def _code(color: Color) -> str:
    """Return a colour as `#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def _scan(config: DataConfig, *, limit: int | None = None) -> list[Scan]:
    """Scan the label maps of both splits, or the first few of each."""
    splits: tuple[Literal["train", "val"], ...] = ("train", "val") if config.val_fraction != 0 else ("train",)
    scans = []
    for split in splits:
        samples, _ = open_incomplete(replace(config, classes=("any",), ignore=()), split)
        assert isinstance(samples, SegmentationDataset)
        count = len(samples) if limit is None else min(limit, len(samples))
        scans += list(scan_all(samples, range(count), decode=False))
    return scans


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
        raise UserError(f"the masks in {where} hold {what}: {wrong}")
    if colors:
        codes = [_code(color) for color in sorted(colors)]
        return _without_names(config, [f"color_{code[1:]}={code}" for code in codes], ())
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
    file = "" if folder is None else f", or with lines such as {typed[0]} in {folder / NAME_FILES[0]}"
    text = (
        f"warning: the classes have no names, so they are called by their values in the masks: {names}{left}. "
        f"Name them with --data.classes {flags}{file}"
    )
    return NamedClasses(config=replace(config, classes=tuple(classes)), text=text)
