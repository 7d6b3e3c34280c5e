"""Draw charts as inline SVG, which uses the page's font and colours, needs no library and is sharp at any size.

    line_chart(Chart(name="loss", title="Loss", series={"loss": [(1, 3.2), (2, 2.9)]}, last_step=100))

The page's script (segvit/reports/templates/charts.js) shows the values under the pointer. It reads them from the lines:
`data-steps` and `data-values` belong to the points of a line, in their order.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from segvit.pictures.chart import COLORS, Chart, Points, axis_end, finite
from segvit.reports.html import join, tag
from segvit.utils.text import percentage

MAX_POINTS = 240
"""Maximum number of points of a line. A longer series is divided into as many parts, and each part is averaged."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Size of a chart and its margins, in SVG units, and the ends of its axes."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    last_step: int
    high: float

    def x(self, step: float) -> float:
        """Return the horizontal position of a step."""
        return round(self.left + (self.width - self.left - self.right) * step / max(self.last_step, 1), 1)

    def y(self, value: float) -> float:
        """Return the vertical position of a value. Values beyond the axis are drawn at its end."""
        share = min(max(value / self.high, 0), 1)
        return round(self.top + (self.height - self.top - self.bottom) * (1 - share), 1)


def line_chart(chart: Chart) -> Markup:
    """Draw a chart with axes, and a legend if it has several lines; NaN and infinite values are skipped."""
    lines = {name: _means(finite(points)) for name, points in chart.series.items()}
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return tag("p", "Nothing to draw yet.", class_="quiet")
    high = chart.top or max(axis_end([value for _, value in points]) for points in lines.values()) or 1.0
    ticks = _ticks(high)
    high = max(high, 0.0) if chart.top else max(high, ticks[-1])
    frame = Frame(width=460, height=244, left=50, right=14, top=10, bottom=42, last_step=chart.last_step, high=high)
    parts = []
    for value in ticks:
        y = frame.y(value)
        parts.append(tag("line", x1=frame.left, x2=frame.width - frame.right, y1=y, y2=y, class_="grid"))
        parts.append(tag("text", _number(value, chart.percent), x=frame.left - 6, y=y + 4, text_anchor="end"))
    floor = frame.height - frame.bottom
    for step in _ticks(chart.last_step, count=4):
        parts.append(tag("text", f"{step:,.0f}", x=frame.x(step), y=floor + 17, text_anchor="middle"))
    parts.append(
        tag("text", "step", x=(frame.left + frame.width - frame.right) / 2, y=floor + 35, text_anchor="middle")
    )
    parts.extend(_lines(lines, frame, chart))
    names = [tag("span", name, class_=f"key {_kind(chart, name)}") for name in lines]
    picture = _svg(parts, frame, label=f"{chart.title}: {_summary(lines, chart.percent)}", tabindex=0)
    return join(picture, tag("p", *names, class_="keys") if len(lines) > 1 else None)


def small_chart(chart: Chart) -> Markup:
    """Draw a chart of scores in 0..1 without numbers on its axes, to be shown beside others like it."""
    lines = {name: _means(finite(points)) for name, points in chart.series.items() if finite(points)}
    frame = Frame(width=160, height=56, left=3, right=5, top=5, bottom=3, last_step=chart.last_step, high=1.0)
    parts = [
        tag("line", x1=frame.left, x2=frame.width - frame.right, y1=frame.y(value), y2=frame.y(value), class_="grid")
        for value in (0, 0.5, 1)
    ]
    parts.extend(_lines(lines, frame, chart))
    return _svg(parts, frame, label=f"{chart.title}: {_summary(lines, percent=True)}")


def _svg(parts: Sequence[Markup], frame: Frame, *, label: str, tabindex: int | None = None) -> Markup:
    return tag(
        "svg",
        *parts,
        viewBox=f"0 0 {frame.width} {frame.height}",
        role="img",
        aria_label=label,
        class_="lines",
        data_floor=frame.height - frame.bottom,
        data_ceiling=frame.top,
        tabindex=tabindex,
    )


def _lines(lines: dict[str, list[tuple[float, float]]], frame: Frame, chart: Chart) -> list[Markup]:
    """Draw the lines of a chart and, if wanted, their dots. A single point is always a dot."""
    parts = []
    for name, points in lines.items():
        places = [(frame.x(step), frame.y(value)) for step, value in points]
        kind = _kind(chart, name)
        line = tag(
            "polyline",
            points=" ".join(f"{x},{y}" for x, y in places),
            class_=f"line {kind}",
            data_name=name,
            data_means=len(finite(chart.series[name])) > MAX_POINTS or None,
            data_steps=json.dumps([round(step) for step, _ in points]),
            data_values=json.dumps([_number(value, chart.percent, digits=4) for _, value in points]),
        )
        parts.append(line)
        if chart.dots or len(points) == 1:
            parts.extend(tag("circle", cx=x, cy=y, r=3, class_=f"dot {kind}") for x, y in places)
    return parts


def _kind(chart: Chart, name: str) -> str:
    """Return the class of a line in the style sheet. A name has the same colour in every chart of the same lines."""
    return f"k{list(chart.series).index(name) % len(COLORS)}"


def _summary(lines: dict[str, list[tuple[float, float]]], percent: bool) -> str:
    """Return the last value of each line in words."""
    return ", ".join(
        f"{name} {_number(points[-1][1], percent, digits=4)} at step {points[-1][0]:,.0f}"
        for name, points in lines.items()
    )


def _means(points: Points) -> list[tuple[float, float]]:
    """Return the points, or the means of MAX_POINTS consecutive parts, each at the last step of its part."""
    if len(points) <= MAX_POINTS:
        return list(points)
    stretches = np.array_split(np.array(points), MAX_POINTS)
    return [(float(part[-1, 0]), float(part[:, 1].mean())) for part in stretches]


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
