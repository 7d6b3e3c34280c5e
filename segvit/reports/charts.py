"""Draw charts as inline SVG, which uses the page's font and colours, needs no library and is sharp at any size.

    line_chart({"loss": [(1, 3.2), (2, 2.9)]}, last_step=100)
    confusion_chart(counts, ["sky", "road"])

Letters: K classes.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from segvit.reports.html import join, tag
from segvit.utils.text import percentage

Points = Sequence[tuple[float, float]]
"""Pairs (step, value) with ascending steps."""

WIDTH, HEIGHT = 460, 230
"""Size of a line chart in SVG units."""
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 10, 28
"""Margins for the axis numbers, in SVG units."""
MAX_POINTS = 240
"""Maximum number of points of a line. A longer series is divided into as many parts, and each part is averaged."""
NUM_COLORS = 6
"""Number of line colours in the page's style sheet."""
CLIPPED = 99.5
"""Percentile of a series at the end of the axis. The high loss of the first steps would flatten the rest."""
LEAST_SHARE = 0.005
"""Minimum share for a cell of a confusion matrix to be drawn."""
MAX_NUMBERED = 30
"""Maximum number of classes for numbers in the cells of a confusion matrix."""
LEAST_WIDTH = 1000
"""Width in pixels to which a confusion matrix can shrink on a narrow page before it scrolls."""
MAX_NAME = 22
"""Maximum length of a class name beside a confusion matrix, in characters."""


def line_chart(
    series: Mapping[str, Points], *, last_step: int, top: float | None = None, percent: bool = False, dots: bool = False
) -> Markup:
    """Draw series over the steps of a run, with a legend if there are several; NaN and infinite values are skipped.

    Args:
        series: points of each series, by name.
        last_step: end of the horizontal axis.
        top: end of the vertical axis. Default: chosen from the values.
        percent: print values in 0..1 as percentages.
        dots: mark each point and add its value as a tooltip.
    """
    lines = {name: _means(_finite(points)) for name, points in series.items()}
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return tag("p", "Nothing to draw yet.", class_="quiet")
    high = top or max(_high([value for _, value in points]) for points in lines.values()) or 1.0
    ticks = _ticks(high)
    high = max(high, 0.0) if top else max(high, ticks[-1])
    parts = []
    for value in ticks:
        y = _y(value, high)
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(tag("text", _number(value, percent), x=LEFT - 6, y=y + 4, text_anchor="end"))
    for step in _ticks(last_step, count=4):
        parts.append(tag("text", f"{step:,.0f}", x=_x(step, last_step), y=HEIGHT - 8, text_anchor="middle"))
    for index, (name, points) in enumerate(lines.items()):
        parts.append(_line(name, points, last_step, high, color=index % NUM_COLORS, percent=percent, dots=dots))
    names = [tag("span", name, class_=f"key k{index % NUM_COLORS}") for index, name in enumerate(lines)]
    picture = tag("svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=", ".join(lines))
    return join(picture, tag("p", *names, class_="keys") if len(lines) > 1 else None)


def _line(name: str, points: Points, last_step: int, high: float, *, color: int, percent: bool, dots: bool) -> Markup:
    """Draw one line and, if wanted, its dots. A single point is always a dot."""
    places = [(_x(step, last_step), _y(value, high)) for step, value in points]
    path = " ".join(f"{x},{y}" for x, y in places)
    parts = [tag("polyline", points=path, class_=f"line k{color}")]
    if dots or len(points) == 1:
        for step, value in points:
            told = tag("title", f"step {step:,.0f}: {name} {_number(value, percent, digits=4)}")
            circle = tag("circle", told, cx=_x(step, last_step), cy=_y(value, high), r=3, class_=f"dot k{color}")
            parts.append(circle)
    return join(*parts)


def confusion_chart(counts: npt.NDArray[np.integer], names: Sequence[str]) -> Markup:
    """Draw a confusion matrix normalized per true class, with the share of each cell as a tooltip.

    Args:
        counts: (K, K) pixels; row = true class, column = predicted class.
        names: K class names.
    """
    num_classes = len(names)
    cell = 30 if num_classes <= MAX_NUMBERED else 13
    font = 11
    shown = [_short(name) for name in names]
    room = round(0.62 * font * max(map(len, shown))) + 8
    side = cell * num_classes
    parts = [tag("rect", x=room, y=room, width=side, height=side, class_="field")]
    for index, name in enumerate(shown):
        middle = room + cell * (index + 0.5)
        parts.append(tag("text", name, x=room - 5, y=middle + 0.35 * font, text_anchor="end", font_size=font))
        turn = f"translate({middle + 0.35 * font} {room - 5}) rotate(-90)"
        parts.append(tag("text", name, transform=turn, font_size=font))
    total = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(total, 1)
    for row, column in np.argwhere(shares >= LEAST_SHARE):
        parts.append(_cell(float(shares[row, column]), int(row), int(column), names, room, cell))
    size = room + side + 2
    picture = tag(
        "svg",
        *parts,
        viewBox=f"0 0 {size} {size}",
        role="img",
        aria_label="confusion matrix",
        style=f"width:{size}px;min-width:{min(size, LEAST_WIDTH)}px",
    )
    return tag("div", picture, class_="scroll matrix")


def _cell(share: float, row: int, column: int, names: Sequence[str], room: int, cell: int) -> Markup:
    """Draw a cell. Its opacity follows the square root of the share, so that a few per cent are visible."""
    kind = "hit" if row == column else "miss"
    x, y = room + cell * column, room + cell * row
    told = tag("title", f"{names[row]} predicted as {names[column]}: {percentage(share)}")
    opacity = round(math.sqrt(share), 3)
    parts = [tag("rect", told, x=x, y=y, width=cell, height=cell, fill_opacity=opacity, class_=kind)]
    if len(names) <= MAX_NUMBERED:
        place = {"x": x + cell / 2, "y": y + cell / 2 + 4, "text_anchor": "middle", "font_size": 11}
        parts.append(tag("text", f"{100 * share:.0f}", class_="on" if opacity > 0.6 else None, **place))
    return join(*parts)


def _finite(points: Points) -> list[tuple[float, float]]:
    return [(step, value) for step, value in points if math.isfinite(value)]


def _means(points: Points) -> list[tuple[float, float]]:
    """Return the points, or the means of MAX_POINTS consecutive parts, each at the last step of its part."""
    if len(points) <= MAX_POINTS:
        return list(points)
    stretches = np.array_split(np.array(points), MAX_POINTS)
    return [(float(part[-1, 0]), float(part[:, 1].mean())) for part in stretches]


def _high(values: Sequence[float]) -> float:
    """Return the value that the axis must reach."""
    return float(np.percentile(values, CLIPPED)) if len(values) > 50 else max(values)


def _ticks(high: float, count: int = 5) -> list[float]:
    """Return ticks from 0 to about `high`, at most `count` steps of 1, 2 or 5 times a power of ten."""
    if high <= 0:
        return [0.0]
    rough = high / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.999)
    return [step * index for index in range(int(high / step + 1e-9) + 1)]


def _number(value: float, percent: bool, *, digits: int = 3) -> str:
    """Format a value for an axis."""
    return percentage(value, f".{digits}g") if percent else f"{value:.{digits}g}"


def _x(step: float, last_step: int) -> float:
    """Return the horizontal position of a step."""
    return round(LEFT + (WIDTH - LEFT - RIGHT) * step / max(last_step, 1), 1)


def _y(value: float, high: float) -> float:
    """Return the vertical position of a value. Values beyond the axis are drawn at its end."""
    return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(max(value / high, 0), 1)), 1)


def _short(name: str) -> str:
    name = " ".join(name.split())
    return name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…"
