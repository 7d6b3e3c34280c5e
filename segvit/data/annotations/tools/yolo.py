"""Read YOLO's labels: one text file per image, one outline or box a line, in shares of the image's width and height.

    0 0.1 0.2 0.4 0.2 0.4 0.5       an outline: the number of a class, then x and y of each point
    0 0.25 0.35 0.3 0.3             a box: the number of a class, then x and y of its centre, width and height

An empty file is an image without objects. Pixels outside every outline are background. A YAML file such as `data.yaml`
names the classes, with the key `names`. It is in the folder of the labels or up to three folders above. Without one,
line number N of classes.txt, labels.txt or obj.names in these folders names class N, counted from 0.
"""

import functools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from segvit.data.annotations.format import Content, FileLabels
from segvit.data.annotations.name_list import DARKNET_LIST, NAME_LISTS, NO_LABELS
from segvit.data.annotations.shapes import Drawing, Rings, Shape, box
from segvit.data.annotations.summary import Summary
from segvit.data.images import Unreadable, read_size
from segvit.data.labels.memory import LabelMemory
from segvit.data.pairs import Pair
from segvit.data.yaml_values import is_whole
from segvit.errors import UserError
from segvit.utils.yaml_text import load_yaml

LINE = re.compile(r"\s*\d+(?:[ \t]+[-+.\deE]+){4,}[ \t\r]*(?:\n|$)")
"""First line of a file of labels."""
YAML_SUFFIXES = (".yaml", ".yml")
ABOVE = 3
"""Number of folders above the labels in which the file of names is looked for."""
LISTS = ("classes.txt", DARKNET_LIST, *(name for name in NAME_LISTS if name != "classes.txt"))
"""Files with the name of one class a line, in the order in which they are tried."""
HAS_NAMES = re.compile(r"^[\"']?names[\"']?\s*:", re.MULTILINE)
"""Line of a YAML file that names classes."""
UNNAMED = "class without a name, because there is no data.yaml or classes.txt in or above the folder of labels"
"""Remark on classes that are called by their numbers."""
SLACK = 0.05
"""Largest distance of a point outside the image, as a share of the image, that is accepted."""
BOX = 4
"""Number of numbers of a box. An outline has more, and an even number."""


@dataclass(frozen=True, kw_only=True)
class YoloLabels(FileLabels):
    """Text files of YOLO."""

    name: ClassVar[str] = "yolo"
    title: ClassVar[str] = "YOLO"
    suffixes: ClassVar[Sequence[str]] = (".txt",)

    names: tuple[str, ...] = ()
    """Class names by their numbers. Default: those of the YAML file above the labels."""

    @classmethod
    def parse(cls, options: Mapping[str, Any], where: str) -> Self:
        """Read the options, among them the list `names`.

        Raises:
            UserError: an option is unknown or of the wrong type.
        """
        others = super().parse({key: value for key, value in options.items() if key != "names"}, where)
        return replace(others, names=tuple(read_names(options, where).values())) if options.get("names") else others

    @classmethod
    def recognises(cls, content: Content) -> bool:
        """Return True for a line of numbers, and for an empty file below a file of names."""
        if not isinstance(content.value, str) or content.path.name in NO_LABELS:
            return False
        if not content.value.strip():
            return find_names(content.path.parent) is not None
        return LINE.match(content.value) is not None

    def summarise(self, labels: Sequence[Path]) -> Summary:
        """Count the outlines and boxes in all files, and read the names of the classes."""
        summary = super().summarise(labels)
        names = names_above(labels[0].parent) if labels else {}
        return replace(summary, declared=tuple(names.values()), remarks=self.remarks(labels, summary.names))

    @classmethod
    def names_file(cls, labels: Path) -> Path | None:
        """Return the file that names the classes of the labels in a folder."""
        return find_names(labels)

    def remarks(self, labels: Sequence[Path], names: Mapping[str, int]) -> Counter[str]:
        """Count the classes without a name."""
        named = self.names or not names or names_above(labels[0].parent)
        return Counter() if named else Counter({UNNAMED: len(names)})

    def drawing(self, pair: Pair, memory: LabelMemory) -> Drawing:
        """Return the areas of one image, in pixels of its displayed size."""
        height, width = read_size(pair.image)
        return self._read(pair.label_path, (height, width))

    def draw(self, path: Path) -> Drawing:
        """Return the areas in one file, in shares of the image, whose size the file does not have."""
        return self._read(path, (1, 1))

    def _read(self, path: Path, size: tuple[int, int]) -> Drawing:
        """Return the areas in one file for an image of this height and width.

        Raises:
            Unreadable: a line is malformed.
        """
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise Unreadable(f"{path}: cannot be read as text ({error}); export it again") from error
        names = dict(enumerate(self.names)) or names_above(path.parent)
        found = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
        shapes = [_shape(line, names, size, f"{path}: line {number}") for number, line in found]
        return Drawing(where=str(path), size=size, shapes=tuple(shapes))


def find_names(folder: Path) -> Path | None:
    """Return the file of names in a folder or up to `ABOVE` folders above, a YAML file first. None if there is none.

    Raises:
        UserError: a YAML file with names cannot be read.
    """
    absolute = folder.absolute()
    found = [path for place in (absolute, *absolute.parents[:ABOVE]) for path in _name_files(place, _state(place))]
    ordered = sorted(found, key=lambda path: path.suffix.lower() not in YAML_SUFFIXES)  # stable: the nearest first
    return next((path for path in ordered if _names_in(path, _state(path))), None)


def names_above(folder: Path) -> dict[int, str]:
    """Return the class names by their numbers, for the labels in a folder. Empty without a file of names.

    Raises:
        UserError: a YAML file with names cannot be read.
    """
    path = find_names(folder)
    return dict(_names_in(path, _state(path))) if path else {}


def read_names(content: Mapping[str, Any], source: str) -> dict[int, str]:
    """Return the class names in a YAML file by their numbers.

    Raises:
        UserError: `names` is neither a list nor a mapping from numbers, or the labels are of key points.
    """
    names = content.get("names")
    if "kpt_shape" in content:
        raise UserError(f"{source}: describes key points (`kpt_shape`), which are no areas; export outlines")
    rows = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(rows, dict) or not all(is_whole(number) and number >= 0 for number in rows):
        raise UserError(f"{source}: `names` is {repr(names)[:80]}; give a list of class names, or names by number")
    return {number: str(name) for number, name in sorted(rows.items())}


def _state(path: Path) -> int:
    """Return the modification time of a file or folder in ns, or 0 if it cannot be read."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


@functools.lru_cache(maxsize=64)
def _name_files(folder: Path, modified: int) -> tuple[Path, ...]:
    """Return the YAML files and lists of names in a folder, once for each state of it: each of its labels asks."""
    try:
        inside = sorted(folder.iterdir())
    except OSError:
        return ()
    lists = [folder / name for name in LISTS if folder / name in inside]
    return (*(path for path in inside if path.suffix.lower() in YAML_SUFFIXES), *lists)


@functools.lru_cache(maxsize=32)
def _names_in(path: Path, modified: int) -> Mapping[int, str]:
    """Return the class names in a file, once for each state of it. Empty if it is no file of YOLO."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return {}
    if path.suffix.lower() not in YAML_SUFFIXES:
        return _names_by_line(text)
    try:
        content = load_yaml(text, source=str(path))
    except UserError as error:
        if HAS_NAMES.search(text):
            raise UserError(f"{path} names the classes of the labels below it, and cannot be read: {error}") from error
        return {}
    return read_names(content, str(path)) if isinstance(content, dict) and "names" in content else {}


def _names_by_line(text: str) -> Mapping[int, str]:
    """Return the name in each line by the number of the line. Empty for a list that describes label maps."""
    names = {number: line.strip() for number, line in enumerate(text.splitlines()) if line.strip()}
    return {} if any("=" in name or ":" in name for name in names.values()) else names


def _shape(line: str, names: Mapping[int, str], size: tuple[int, int], where: str) -> Shape:
    """Return the area of one line."""
    number, *words = line.split()
    try:
        values = np.array(words, dtype=np.float64)
    except ValueError:
        values = np.full(1, np.nan)
    count = len(values)
    if not number.isdecimal() or not np.isfinite(values).all() or count < BOX or (count > BOX and count % 2):
        raise Unreadable(f"{where}: not a class number with a box (4 numbers) or an outline (x y ...): {line[:60]!r}")
    if names and int(number) not in names:
        raise Unreadable(f"{where}: class {number} has no name; the file of names has {min(names)} to {max(names)}")
    if values.min() < -SLACK or values.max() > 1 + SLACK:
        far = values[np.abs(values - 0.5).argmax()]
        raise Unreadable(f"{where}: {far:g} is not in 0..1; YOLO's numbers are shares of the image, not pixels")
    name = names.get(int(number), f"class_{number}")
    height, width = size
    if count == BOX:
        x, y, wide, high = values * [width, height, width, height]
        area = Rings((box(x - wide / 2, y - high / 2, x + wide / 2, y + high / 2),))
        return Shape(name=name, kind="box", area=area)
    return Shape(name=name, kind="outline", area=Rings((values.reshape(-1, 2) * [width, height],)))
