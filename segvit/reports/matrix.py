"""Draw a confusion matrix as inline SVG, in the colours of segvit/pictures/plots.py.

    confusion_chart(counts, ["sky", "road"])

Letters: K classes.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from segvit.pictures.figure_style import short
from segvit.reports.html import join, tag
from segvit.utils.text import percentage

LEAST_SHARE = 0.005
"""Minimum share for a cell to be drawn."""
MAX_NUMBERED = 30
"""Maximum number of classes for numbers in the cells."""
LEAST_WIDTH = 1000
"""Width in pixels to which a matrix can shrink on a narrow page before it scrolls."""
MAX_NAME = 22
"""Maximum length of a class name beside a matrix, in characters."""
FONT = 11
"""Font size in SVG units."""
BAR_STEPS = 40
"""Number of colours in the colour bar."""
BAR_WIDTH, BAR_HEIGHT, BAR_ROOM = 12, 160, 70
"""Size of the colour bar, and the room beside the matrix for it and its numbers, in SVG units."""


def confusion_chart(counts: npt.NDArray[np.integer], names: Sequence[str]) -> Markup:
    """Draw a confusion matrix normalized per true class, with the share of each cell as a tooltip and a colour bar.

    Args:
        counts: (K, K) pixels; row = true class, column = predicted class.
        names: K class names.
    """
    cell = 30 if len(names) <= MAX_NUMBERED else 13
    shown = [short(name, MAX_NAME) for name in names]
    room = round(0.62 * FONT * max(map(len, shown))) + 8
    side = cell * len(names)
    parts = [tag("rect", x=room, y=room, width=side, height=side, class_="field")]
    for index, name in enumerate(shown):
        middle = room + cell * (index + 0.5)
        parts.append(tag("text", name, x=room - 5, y=middle + 0.35 * FONT, text_anchor="end", font_size=FONT))
        turn = f"translate({middle + 0.35 * FONT} {room - 5}) rotate(-90)"
        parts.append(tag("text", name, transform=turn, font_size=FONT))
    total = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(total, 1)
    for row, column in np.argwhere(shares >= LEAST_SHARE):
        parts.append(_cell(float(shares[row, column]), int(row), int(column), names, room, cell))
    parts.append(_bar(room + side + 18, room))
    width, height = room + side + BAR_ROOM, room + max(side, BAR_HEIGHT) + 8
    picture = tag(
        "svg",
        *parts,
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_label="Confusion matrix, % of each true class",
        style=f"width:{width}px;min-width:{min(width, LEAST_WIDTH)}px",
    )
    return tag("div", picture, class_="scroll matrix", tabindex=0, role="group", aria_label="confusion matrix")


def _cell(share: float, row: int, column: int, names: Sequence[str], room: int, cell: int) -> Markup:
    """Draw a cell. Its lightness is linear in the share."""
    x, y = room + cell * column, room + cell * row
    told = tag("title", f"{names[row]} predicted as {names[column]}: {percentage(share)}")
    parts = [tag("rect", told, x=x, y=y, width=cell, height=cell, style=f"--share:{share:.3f}", class_="cell")]
    if len(names) <= MAX_NUMBERED:
        place = {"x": x + cell / 2, "y": y + cell / 2 + 4, "text_anchor": "middle", "font_size": FONT}
        parts.append(tag("text", f"{100 * share:.0f}", class_="on" if share > 0.5 else None, **place))
    return join(*parts)


def _bar(left: int, top: int) -> Markup:
    """Draw the colour bar."""
    high = BAR_HEIGHT / BAR_STEPS
    parts = [
        tag("rect", x=left, y=top + index * high, width=BAR_WIDTH, height=high + 0.2, class_="cell",
            style=f"--share:{1 - (index + 0.5) / BAR_STEPS:.4f}")
        for index in range(BAR_STEPS)
    ]  # fmt: skip
    parts.append(tag("rect", x=left, y=top, width=BAR_WIDTH, height=BAR_HEIGHT, class_="frame"))
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = top + BAR_HEIGHT * (1 - share) + 0.35 * FONT
        parts.append(tag("text", percentage(share, "g"), x=left + BAR_WIDTH + 5, y=y, font_size=FONT))
    return join(*parts)
