"""Draw training curves, a learning-rate sweep or a confusion matrix as PNG, PDF or SVG, according to the file's suffix.

    curves([json.loads(line) for line in open("metrics.jsonl")], Path("curves.png"))
    confusion_matrix(counts, spec.classes, Path("confusion.pdf"))

Letters: K classes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segvit.errors import UserError
from segvit.pictures.chart import CHART, axis_end, draw_with_mean
from segvit.pictures.figure_style import (
    BLUE,
    DPI,
    GREEN,
    INK,
    RULE,
    SMALL,
    TEXT,
    VERMILLION,
    WIDTH,
    matrix_colors,
    plain_axes,
    save,
    short,
)
from segvit.utils.text import percentage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_NUMBERED = 30
"""Maximum number of classes for numbers in the cells of a confusion matrix."""
MAX_CELL, LEAST_CELL = 0.42, 0.1
"""Maximum side of a cell, and minimum side, in inches. With the minimum, about 50 classes fit on a page."""
MAX_BAR, LEAST_BAR = 2.5, 1.0
"""Maximum and minimum height of the colour bar, in inches."""
LETTER = 0.6
"""Approximate width of a letter, as a fraction of the font size."""
MAX_PIXELS = 3000
"""Maximum side of a PNG in pixels. A matrix of very many classes has fewer dots per inch."""


def curves(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the loss of a run over its steps and, if the run was validated, its mIoU.

    Args:
        records: mappings with `step` and any of `loss` and `miou` (0..1); other keys are not drawn.
        path: output file, PNG, PDF or SVG.

    Raises:
        UserError: no record has a loss.
    """
    from matplotlib.figure import Figure

    loss = np.array([(record["step"], record["loss"]) for record in records if record.get("loss") is not None])
    miou = np.array([(record["step"], record["miou"]) for record in records if record.get("miou") is not None])
    if not len(loss):
        raise UserError("no record has `step` and `loss`; curves need the metrics of at least one training step")
    panels = 2 if len(miou) else 1
    figure = Figure(figsize=(CHART[0] * panels, CHART[1]), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]

    window = draw_with_mean(axes[0], loss, color=BLUE)
    top = axis_end(loss[np.isfinite(loss[:, 1]), 1].tolist() or [0.0])
    if top > 0:
        axes[0].set_ylim(0, top * 1.08)
    plain_axes(axes[0], title="Training loss" + (f" (mean of {window} steps)" if window > 1 else ""))
    if len(miou):
        axes[1].plot(miou[:, 0], miou[:, 1], color=GREEN, linewidth=1.2, marker="o", markersize=2.5)
        axes[1].annotate(
            f"{miou[-1, 1]:.3f}",
            miou[-1],
            xytext=(0, 5),
            textcoords="offset points",
            ha="right",
            color=GREEN,
            fontsize=SMALL,
        )
        axes[1].set_ylim(0, 1)
        axes[1].set_xlim(axes[0].get_xlim())
        plain_axes(axes[1], title="Validation mIoU")
    save(figure, path)


def confusion_matrix(counts: npt.NDArray[np.integer[Any]], names: Sequence[str], path: Path) -> None:
    """Draw a confusion matrix, normalized per true class, with a colour bar. It fits on a page for up to 50 classes.

    A row holds the shares of one true class; the row of a class without labelled pixels is grey.

    Args:
        counts: (K, K) pixels; row = true class, column = predicted class.
        names: K class names.
        path: output file, PNG, PDF or SVG.

    Raises:
        UserError: counts and names differ in length.
    """
    from matplotlib.figure import Figure

    count = len(names)
    if counts.shape != (count, count):
        raise UserError(f"{count} names for a confusion matrix of {counts.shape}; give one name per class")
    numbered = count <= MAX_NUMBERED
    total = counts.sum(axis=1, keepdims=True)
    shares = np.ma.masked_invalid(counts / np.where(total == 0, np.nan, total))
    labels = [short(name) for name in names]
    longest = LETTER * max(map(len, labels)) / 72  # inches per point of the font size
    beside = 0.25 + (1 if numbered else 2) * SMALL * longest  # names on one side, or on two
    cell = min(MAX_CELL, max(LEAST_CELL, (WIDTH - beside - 0.8) / count))
    font = min(SMALL, 0.72 * 72 * cell)
    side = cell * count
    dpi = min(DPI, MAX_PIXELS / (side + beside + 0.8))
    figure = Figure(figsize=(side, side), dpi=dpi)  # cells only: names are outside, and a tight crop includes them
    axes = figure.add_axes((0, 0, 1, 1))
    colors = matrix_colors().with_extremes(bad="#dddddd")
    picture = axes.imshow(shares, cmap=colors, vmin=0, vmax=1, interpolation="nearest")
    _name_cells(axes, labels, font=font, everywhere=not numbered)
    if numbered:
        for (row, column), share in np.ndenumerate(shares.filled(0)):
            if share >= 0.005:
                color = "white" if share > 0.5 else INK
                size = min(SMALL, 0.42 * 72 * cell)
                axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=size, color=color)
    right = 0.15 if numbered else 0.25 + font * longest
    high = max(min(side, MAX_BAR), LEAST_BAR)
    bar = figure.add_axes((1 + right / side, 1 - high / side, 0.12 / side, high / side))
    scale = figure.colorbar(picture, cax=bar, ticks=(0, 0.25, 0.5, 0.75, 1), format=lambda v, _: percentage(v, "g"))
    scale.ax.tick_params(labelsize=SMALL, length=2, pad=2, color=RULE)
    scale.outline.set_linewidth(0.4)
    scale.outline.set_edgecolor(RULE)
    save(figure, path, tight=True)


def learning_rates(
    rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], path: Path, *, suggested: float
) -> None:
    """Draw the losses of a learning-rate sweep and mark the suggested rate, in a PNG, PDF or SVG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, 2.8), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses, color=BLUE, alpha=0.3, linewidth=0.5)
    axes.plot(rates, smoothed, color=BLUE, linewidth=1.2)
    axes.axvline(suggested, color=VERMILLION, linewidth=1.0, linestyle="--")
    place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "va": "top", "color": VERMILLION, "fontsize": SMALL}
    axes.annotate(f" {suggested:.1e}", (suggested, 1), **place)
    axes.set_xscale("log")
    low, high = min(smoothed), max(smoothed)
    axes.set_ylim(low - 0.08 * (high - low), high + 0.08 * (high - low) + 1e-9)
    plain_axes(axes, title="Loss while the learning rate grows (thick: smoothed)", below="optim.lr")
    save(figure, path)


def _name_cells(axes: "Axes", labels: Sequence[str], *, font: float, everywhere: bool) -> None:
    """Write class names along the axes (on all four sides of a large matrix) and draw lines between the cells."""
    count = len(labels)
    for axis, rotation in ((axes.xaxis, 90), (axes.yaxis, 0)):
        axis.set_ticks(range(count), labels, rotation=rotation, fontsize=font, parse_math=False)
    axes.tick_params(length=0, top=False, bottom=False, labeltop=True, labelbottom=everywhere, labelright=everywhere)
    axes.set_xlabel("predicted class, in % of each true class", fontsize=TEXT, labelpad=6)
    axes.xaxis.set_label_position("top")
    axes.set_ylabel("true class", fontsize=TEXT)
    every = 10 if everywhere else 1
    lines = np.arange(0, count + 1, every) - 0.5
    axes.hlines(lines, -0.5, count - 0.5, color="#cccccc", linewidth=0.4)
    axes.vlines(lines, -0.5, count - 0.5, color="#cccccc", linewidth=0.4)
    axes.spines[:].set_color(RULE)
