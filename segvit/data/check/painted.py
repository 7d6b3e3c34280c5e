"""Decide whether masks with a file of colours are read by the colours in them or by their numbers.

    by_color([Path("masks/0.png")], find_names(Path("masks")))      # True for RGB pictures

Labelling tools write the same classes as RGB pictures, or as palette pictures whose numbers may be in another order.
A palette picture is read by its colours if they contradict the order of the names in the file.
"""

from collections.abc import Iterable

import numpy as np

from segvit.data.check.name_files import NameFile
from segvit.data.images import open_picture
from segvit.data.member import File
from segvit.data.palette import Color
from segvit.data.spec import IGNORE_INDEX
from segvit.errors import UserError


def by_color(masks: Iterable[File], file: NameFile) -> bool:
    """Return True if the masks are painted in the colours of the file, and False if their numbers are the classes.

    Args:
        masks: label maps. Unreadable ones are passed over, because the check of the dataset reports them.
        file: names with a colour each.

    Raises:
        UserError: the colours contradict the order of the names, and some of them are not in the file.
    """
    owners = dict(zip(file.colors, file.names, strict=True))
    strange: tuple[File, int, Color] | None = None
    swapped: tuple[File, int, Color] | None = None
    for path in masks:
        shown = _shown(path)
        if shown is None:
            return True
        for value, color in shown.items():
            if color not in owners:
                strange = strange or ((path, value, color) if value != IGNORE_INDEX else None)
            elif value >= len(file.names) or file.names[value] != owners[color]:
                swapped = swapped or (path, value, color)
    if swapped and strange:
        path, value, color = swapped
        raise UserError(
            f"{path}: value {value} has the colour {list(color)} of {owners[color]!r} in {file.path}, but not its "
            f"position, and value {strange[1]} of {strange[0]} has the colour {list(strange[2])}, which the file does "
            "not list; add the colour to the file, or name the classes by value, `--data.classes NAME=VALUE`"
        )
    return swapped is not None


def _shown(path: File) -> dict[int, Color] | None:
    """Return the colour that a viewer shows for each number in a mask, or None if the mask has colour channels."""
    try:
        with open_picture(path, "a label map") as opened:
            opened.load()
            if len(opened.getbands()) >= 3:
                return None
            if opened.mode not in ("P", "L", "1"):
                return {}
            values = np.unique(np.asarray(opened)).tolist()
            palette = opened.getpalette("RGB") if opened.mode == "P" else None
    except UserError:
        return {}
    if opened.mode == "1":
        return {int(value): (255 * value, 255 * value, 255 * value) for value in values}
    if palette is None:
        return {value: (value, value, value) for value in values}
    return {
        value: (palette[3 * value], palette[3 * value + 1], palette[3 * value + 2])
        for value in values
        if 3 * value + 2 < len(palette)
    }
