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
from segvit.pictures.figure_style import BLUE, GREEN, INK, RULE, VERMILLION, save, short
from segvit.utils.text import percentage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_NUMBERED = 30
"""Maximum number of classes for numbers in the cells of a confusion matrix."""
SHARES = ("#ffffff", "#9ecae1", "#2171b5", "#08306b")
"""Colours of shares from 0 (white) to 1: one hue that darkens."""


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
    figure = Figure(figsize=(5.2 * panels, 3.4), dpi=200, layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]

    window = max(1, len(loss) // 30)
    kernel = np.ones(window)
    mean = np.convolve(loss[:, 1], kernel, "same") / np.convolve(np.ones(len(loss)), kernel, "same")
    axes[0].plot(loss[:, 0], loss[:, 1], color=BLUE, alpha=0.25, linewidth=0.8)
    axes[0].plot(loss[:, 0], mean, color=BLUE, linewidth=1.6)
    top = float(np.nanpercentile(loss[:, 1], 99.5))
    if np.isfinite(top) and top > 0:
        axes[0].set_ylim(0, top * 1.08)  # the high loss of the first steps would flatten the rest
    plain_axes(axes[0], title="Training loss" + (f" (mean of {window} steps)" if window > 1 else ""))
    if len(miou):
        axes[1].plot(miou[:, 0], miou[:, 1], color=GREEN, linewidth=1.6, marker="o", markersize=3.5)
        axes[1].annotate(
            f"{miou[-1, 1]:.3f}",
            miou[-1],
            xytext=(0, 7),
            textcoords="offset points",
            ha="right",
            color=GREEN,
            fontsize=9,
        )
        axes[1].set_ylim(0, 1)
        axes[1].set_xlim(axes[0].get_xlim())
        plain_axes(axes[1], title="Validation mIoU")
    save(figure, path)


def confusion_matrix(counts: npt.NDArray[np.integer[Any]], names: Sequence[str], path: Path) -> None:
    """Draw a confusion matrix, normalized per true class. The figure grows with the number of classes.

    A row holds the shares of one true class; the row of a class without labelled pixels is grey. The colour follows the
    square root of the share, so that confusions of a few per cent are visible.

    Args:
        counts: (K, K) pixels; row = true class, column = predicted class.
        names: K class names.
        path: output file, PNG, PDF or SVG.

    Raises:
        UserError: counts and names differ in length.
    """
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm
    from matplotlib.figure import Figure

    count = len(names)
    if counts.shape != (count, count):
        raise UserError(f"{count} names for a confusion matrix of {counts.shape}; give one name per class")
    numbered = count <= MAX_NUMBERED
    total = counts.sum(axis=1, keepdims=True)
    shares = np.ma.masked_invalid(counts / np.where(total == 0, np.nan, total))
    cell, font = (0.42, 9.0) if numbered else (0.135, 6.5)  # inches and points: a line of text fits into a cell
    labels = [short(name) for name in names]
    side = cell * count
    figure = Figure(figsize=(side, side), dpi=120)  # cells only: names are outside, and a tight crop includes them
    axes = figure.add_axes((0, 0, 1, 1))
    blues = LinearSegmentedColormap.from_list("shares", SHARES, N=1024)
    colors = blues.with_extremes(bad="#dddddd")
    picture = axes.imshow(shares, cmap=colors, norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    _name_cells(axes, labels, font=font, everywhere=not numbered)
    if numbered:
        for (row, column), share in np.ndenumerate(shares.filled(0)):
            if share >= 0.005:
                color = "white" if share > 0.3 else INK
                axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=font - 1, color=color)
    else:
        beside = 1 + (0.25 + 0.6 * font / 72 * max(map(len, labels))) / side  # to the right of the names
        bar = figure.add_axes((beside, 1 - 2.5 / side, 0.18 / side, 2.5 / side))
        ticks = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 1)
        scale = figure.colorbar(picture, cax=bar, ticks=ticks, format=lambda share, _: percentage(share, "g"))
        scale.ax.tick_params(labelsize=8)
    save(figure, path, tight=True)


def learning_rates(
    rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], path: Path, *, suggested: float
) -> None:
    """Draw the losses of a learning-rate sweep and mark the suggested rate, in a PNG, PDF or SVG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.6), dpi=200, layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses, color=BLUE, alpha=0.3, linewidth=0.8)
    axes.plot(rates, smoothed, color=BLUE, linewidth=1.6)
    axes.axvline(suggested, color=VERMILLION, linewidth=1.2, linestyle="--")
    axes.annotate(
        f" {suggested:.1e}", (suggested, 1), xycoords=("data", "axes fraction"), va="top", color=VERMILLION, fontsize=9
    )
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
    axes.set_xlabel("predicted, in % of each true class", fontsize=font + 2, labelpad=8)
    axes.xaxis.set_label_position("top")
    axes.set_ylabel("true", fontsize=font + 2)
    every = 10 if everywhere else 1
    lines = np.arange(0, count + 1, every) - 0.5
    axes.hlines(lines, -0.5, count - 0.5, color="#cccccc", linewidth=0.4)
    axes.vlines(lines, -0.5, count - 0.5, color="#cccccc", linewidth=0.4)
    axes.spines[:].set_color(RULE)


def plain_axes(axes: "Axes", *, title: str, below: str = "step") -> None:
    """Style axes: title at the top left, thin horizontal lines, no frame at the top and right."""
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel(below, fontsize=9)
    axes.tick_params(labelsize=8, color=RULE)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
