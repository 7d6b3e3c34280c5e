"""Read class names, and their colours, from the files that labelling tools write beside masks.

    file = find_names(Path("masks"))
    file.names, file.colors        # ("sky", "road"), ((0, 0, 255), (128, 64, 128))

`classes.txt` and LabelMe's `class_names.txt` have one name a line, in the order of the values 0, 1, 2, ..., or
`NAME=VALUE`. CVAT's `labelmap.txt` has `name:red,green,blue::`. Roboflow's `_classes.csv` has lines `value, name` below
a header.
"""

import csv
import re
from pathlib import Path
from typing import NamedTuple

from segvit.data.annotations.name_list import LEFT_OUT, MASK_LISTS
from segvit.data.palette import Color
from segvit.errors import UserError

CVAT_LINE = re.compile(r"(?P<name>[^:]+):(?P<color>\d+,\d+,\d+)?:[^:]*:[^:]*")
NUMBERED_LINE = re.compile(r"(?P<value>\d+)\s*[\s:,;]\s*(?P<name>\S.*)")
CSV_HEADER = ["pixel value", "class"]
"""First line of Roboflow's table of masks. Its tables of other tasks have the same name and another first line."""


class NameFile(NamedTuple):
    """The classes that a file of names lists."""

    path: Path
    names: tuple[str, ...]
    """Classes as `data.classes` takes them: `NAME` or `NAME=VALUE`."""
    colors: tuple[Color, ...] = ()
    """Colour of each class. Empty unless every class has one."""

    @property
    def painted(self) -> tuple[str, ...]:
        """Classes as `data.classes` takes them for painted masks: `NAME=#rrggbb`."""
        return tuple(f"{name}={code_of(color)}" for name, color in zip(self.names, self.colors, strict=True))


def find_names(labels: Path) -> NameFile | None:
    """Read the file of class names in the folder of the masks or beside it. None if there is none.

    Raises:
        UserError: there is one, and it cannot be read or has no names.
    """
    folder = labels if labels.is_dir() else labels.parent
    for file in (place / name for place in (folder, folder.parent) for name in MASK_LISTS):
        if file.is_file() and (found := _read(file)):
            return found
    return None


def code_of(color: Color) -> str:
    """Return a colour as `#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def _read(file: Path) -> NameFile | None:
    """Read a file of names. None if it is a table of something else."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: the class names cannot be read ({error}); save it as UTF-8 text") from error
    if file.suffix == ".csv":
        return _read_table(file, text)
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#") and line != LEFT_OUT]
    if not lines:
        raise UserError(f"{file}: there is no class name in it; write one a line, or give --data.classes")
    if all(matches := [CVAT_LINE.fullmatch(line) for line in lines]):
        found = [(match["name"].strip(), match["color"]) for match in matches if match]
        colors = [_color(code, file) for _, code in found if code]
        return NameFile(file, tuple(name for name, _ in found), tuple(colors) if len(colors) == len(found) else ())
    if all(matches := [NUMBERED_LINE.fullmatch(line) for line in lines]):
        return NameFile(file, tuple(f"{match['name']}={int(match['value'])}" for match in matches if match))
    return NameFile(file, tuple(lines))


def _read_table(file: Path, text: str) -> NameFile | None:
    """Read a table of pixel values and classes. None if its header is that of another table."""
    rows = [row for row in csv.reader(text.splitlines(), skipinitialspace=True) if any(cell.strip() for cell in row)]
    if not rows or [cell.strip().lower() for cell in rows[0]] != CSV_HEADER:
        return None
    names = []
    for row in rows[1:]:
        value, name = (row[0].strip(), ",".join(row[1:]).strip())
        if not (value.isdecimal() and name):
            raise UserError(
                f"{file}: {','.join(row)!r} is not a pixel value and a class; write a line such as `1, road`"
            )
        names.append(f"{name}={int(value)}")
    if not names:
        raise UserError(f"{file}: there is no class below its header; write lines such as `1, road`")
    return NameFile(file, tuple(names))


def _color(text: str, file: Path) -> Color:
    """Read `red,green,blue`."""
    red, green, blue = map(int, text.split(","))
    if max(red, green, blue) > 255:
        raise UserError(f"{file}: the colour {text} is not three numbers in 0..255")
    return red, green, blue
