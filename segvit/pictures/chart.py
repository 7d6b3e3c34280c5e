"""Draw values over the steps of a run as a figure: one chart, or a small chart for each class.

    chart = Chart(name="loss", title="Loss", series={"loss": [(1, 3.2), (2, 2.9)]}, last_step=100)
    draw_chart(chart, Path("loss.svg"))

`segvit/reports/charts.py` draws the same charts for a page.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segvit.pictures.figure_style import (
    BLUE,
    DPI,
    GREEN,
    INK,
    ORANGE,
    SKY,
    SMALL,
    TEXT,
    VERMILLION,
    WIDTH,
    plain_axes,
    save,
    short,
)
from segvit.utils.text import percentage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]
"""Pairs (step, value) with ascending steps."""

COLORS = (BLUE, VERMILLION, GREEN, ORANGE, SKY, INK)
"""Line colours. The style sheet of the report has as many, named k0 to k5."""
CLIPPED = 99.5
"""Percentile of a series at the end of the axis. The high loss of the first steps would flatten the rest."""
SMOOTHED = 60
"""Number of points above which a line is drawn thin, with its running mean over it."""
CHART = (WIDTH / 2, 2.2)
"""Width and height of a chart in inches: two fit side by side on a page."""
SMALL_COLUMNS, SMALL_HEIGHT = 5, 0.95
"""Columns of the small charts, and the height of each in inches."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Values over the steps of one or more runs."""

    name: str
    """Name of its file, without suffix."""
    title: str
    series: Mapping[str, Points]
    """Points of each line, by name."""
    last_step: int
    """End of the horizontal axis."""
    top: float | None = None
    """End of the vertical axis; None to choose it from the values."""
    percent: bool = False
    """True if values in 0..1 are printed as percentages."""
    dots: bool = False
    """True if each point is marked."""


def finite(points: Points) -> list[tuple[float, float]]:
    """Return the points whose value is finite."""
    return [(step, value) for step, value in points if math.isfinite(value)]


def axis_end(values: Sequence[float]) -> float:
    """Return the value that the axis of a series must reach."""
    return float(np.percentile(values, CLIPPED)) if len(values) > 50 else max(values)


def draw_chart(chart: Chart, path: Path) -> None:
    """Draw a chart as PNG, PDF or SVG, according to the file's suffix. NaN and infinite values are skipped.

    Raises:
        UserError: the suffix is not supported, or the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=CHART, dpi=DPI, layout="constrained")
    axes = figure.subplots()
    lines = {name: np.array(finite(points)) for name, points in chart.series.items() if finite(points)}
    for index, name in enumerate(chart.series):
        if name in lines:
            _draw_line(axes, lines[name], color=COLORS[index % len(COLORS)], label=short(name), dots=chart.dots)
    high = chart.top or 1.05 * max((axis_end(points[:, 1].tolist()) for points in lines.values()), default=1.0)
    axes.set_ylim(0, high if high > 0 else 1.0)
    axes.set_xlim(0, max(chart.last_step, 1))
    plain_axes(axes, title=chart.title)
    if chart.percent:
        axes.yaxis.set_major_formatter(lambda value, _: percentage(value, "g"))
    if len(lines) > 1:
        axes.legend(fontsize=SMALL, frameon=False)
    save(figure, path)


def draw_small_charts(charts: Sequence[Chart], path: Path) -> None:
    """Draw many charts of scores in 0..1 as a table of small ones with the same axes.

    Args:
        charts: charts whose lines have the same names, such as the IoU of each class.
        path: output file, PNG, PDF or SVG.

    Raises:
        UserError: the suffix is not supported, or the file cannot be written.
    """
    from matplotlib.figure import Figure

    rows = math.ceil(len(charts) / SMALL_COLUMNS)
    figure = Figure(
        figsize=(WIDTH, rows * SMALL_HEIGHT + 0.35), dpi=min(DPI, 3000 / max(rows, 1)), layout="constrained"
    )
    table = figure.subplots(rows, SMALL_COLUMNS, squeeze=False, sharex=True, sharey=True)
    for axes in table.flat[len(charts) :]:
        axes.set_visible(False)
    for axes in table.flat[max(0, len(charts) - SMALL_COLUMNS) : len(charts)]:
        axes.tick_params(labelbottom=True)  # the lowest of their columns
    for axes, chart in zip(table.flat, charts, strict=False):
        for index, points in enumerate(map(np.array, map(finite, chart.series.values()))):
            if len(points):
                _draw_line(axes, points, color=COLORS[index % len(COLORS)], label=None, dots=False)
        plain_axes(axes, title=short(chart.title, 20), below="")
        axes.set_title(short(chart.title, 20), loc="left", fontsize=SMALL, color=INK, pad=2, parse_math=False)
        axes.tick_params(labelsize=SMALL - 1, length=2)
    first = table[0, 0]
    first.set_ylim(0, 1)
    first.set_xlim(0, max(charts[0].last_step, 1))
    first.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
    figure.supxlabel("step", fontsize=SMALL)
    _name_lines(figure, list(charts[0].series))
    save(figure, path)


def draw_with_mean(axes: "Axes", points: npt.NDArray[Any], *, color: str, label: str | None = None) -> int:
    """Draw a noisy series (N, 2) thin, with its running mean over it, and return the length of the mean in points."""
    window = max(1, len(points) // 30)
    kernel = np.ones(window)
    mean = np.convolve(points[:, 1], kernel, "same") / np.convolve(np.ones(len(points)), kernel, "same")
    axes.plot(points[:, 0], points[:, 1], color=color, alpha=0.25, linewidth=0.5)
    axes.plot(points[:, 0], mean, color=color, linewidth=1.2, label=label)
    return window


def _draw_line(axes: "Axes", points: npt.NDArray[Any], *, color: str, label: str | None, dots: bool) -> None:
    """Draw one line. A single point is always a dot."""
    if len(points) > SMOOTHED and not dots:
        draw_with_mean(axes, points, color=color, label=label)
        return
    marker = "o" if dots or len(points) == 1 else None
    style: dict[str, Any] = {"marker": marker, "markersize": 2.5, "clip_on": marker is None}
    axes.plot(points[:, 0], points[:, 1], color=color, linewidth=1.2, label=label, **style)


def _name_lines(figure: "Figure", names: Sequence[str]) -> None:
    """Write the legend of the small charts above them, if they have more than one line."""
    if len(names) < 2:
        return
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=COLORS[index % len(COLORS)], label=short(name)) for index, name in enumerate(names)]
    figure.legend(handles=lines, loc="outside upper left", ncols=len(names), fontsize=TEXT, frameon=False)
