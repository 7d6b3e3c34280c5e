"""Charts, drawn with matplotlib, which is imported where it draws: a run's curves, a confusion matrix, speeds.

    curves([json.loads(line) for line in open("metrics.jsonl")], Path("curves.png"))
    confusion_matrix(counts, spec.classes, Path("confusion.png"))
    speeds(segvit.bench(model).to_dict()["timings"], Path("speed.png"), title="ViT-B", place="2 threads")

Letters: K classes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segvit.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_NUMBERED = 30
"""Classes up to which the cells of a confusion matrix hold their numbers."""
MAX_NAME = 24
"""Characters of a class name in a chart."""
PRECISION_COLORS = {"fp32": "#1f4e85", "bf16": "#1b7f5c", "fp16": "#c8553d"}
LINE_STYLES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D")
"""Of batches, in order of size."""
SHARE_COLORS = ("#4c78a8", "#9ecae1", "#f2b56b")
"""Of backbone, head and label map."""


def curves(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw a run's loss, and its mIoU where there is one, over the steps as a PNG.

    Args:
        records: mappings with `step` and any of `loss` and `miou` (0..1); other keys are not drawn.

    Raises:
        UserError: no record has a loss.
    """
    from matplotlib.figure import Figure

    loss = np.array([(record["step"], record["loss"]) for record in records if record.get("loss") is not None])
    miou = np.array([(record["step"], record["miou"]) for record in records if record.get("miou") is not None])
    if not len(loss):
        raise UserError("no record with `step` and `loss`; curves need the metrics of at least one step")
    panels = 2 if len(miou) else 1
    figure = Figure(figsize=(5.2 * panels, 3.4), dpi=150, layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]

    window = max(1, len(loss) // 30)
    kernel = np.ones(window)
    mean = np.convolve(loss[:, 1], kernel, "same") / np.convolve(np.ones(len(loss)), kernel, "same")
    axes[0].plot(loss[:, 0], loss[:, 1], color="#4c78a8", alpha=0.25, linewidth=0.8)
    axes[0].plot(loss[:, 0], mean, color="#1f4e85", linewidth=1.6)
    top = float(np.nanpercentile(loss[:, 1], 99.5))
    if np.isfinite(top) and top > 0:
        axes[0].set_ylim(0, top * 1.08)  # the first steps of a run would flatten all others
    _plain_axes(axes[0], title="Training loss" + (f" (mean of {window} steps)" if window > 1 else ""))
    if len(miou):
        axes[1].plot(miou[:, 0], miou[:, 1], color="#1b7f5c", linewidth=1.6, marker="o", markersize=3.5)
        axes[1].annotate(
            f"{miou[-1, 1]:.3f}",
            miou[-1],
            xytext=(0, 7),
            textcoords="offset points",
            ha="right",
            color="#1b7f5c",
            fontsize=9,
        )
        axes[1].set_ylim(0, 1)
        axes[1].set_xlim(axes[0].get_xlim())
        _plain_axes(axes[1], title="Validation mIoU")
    figure.savefig(path, format="png")


def confusion_matrix(counts: npt.NDArray[np.integer[Any]], names: Sequence[str], path: Path) -> None:
    """Draw where the pixels of each true class go, as a PNG that grows with the number of classes.

    A row holds the shares of one true class; classes without a labelled pixel are a grey row. The colours follow the
    square root of the share, so that a confusion of a few per cent is seen.

    Args:
        counts: (K, K) pixels; row = true class, column = predicted class.
        names: K of them.

    Raises:
        UserError: counts and names of different lengths.
    """
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm
    from matplotlib.figure import Figure

    count = len(names)
    if counts.shape != (count, count):
        raise UserError(f"{count} names for a confusion matrix of {counts.shape}; give one name per class")
    numbered = count <= MAX_NUMBERED
    total = counts.sum(axis=1, keepdims=True)
    shares = np.ma.masked_invalid(counts / np.where(total == 0, np.nan, total))
    cell, font = (0.42, 9.0) if numbered else (0.135, 6.5)  # inches, points: a line of text fits a cell
    labels = [" ".join(name.split()) for name in names]
    labels = [name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…" for name in labels]
    side = cell * count
    figure = Figure(figsize=(side, side), dpi=120)  # of the cells alone: names lie outside, and are saved with it
    axes = figure.add_axes((0, 0, 1, 1))
    blues = LinearSegmentedColormap.from_list("shares", ["#ffffff", "#9ecae1", "#2171b5", "#08306b"], N=1024)
    colors = blues.with_extremes(bad="#dddddd")
    picture = axes.imshow(shares, cmap=colors, norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    _name_cells(axes, labels, font=font, everywhere=not numbered)
    if numbered:
        for (row, column), share in np.ndenumerate(shares.filled(0)):
            if share >= 0.005:
                color = "white" if share > 0.3 else "#222222"
                axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=font - 1, color=color)
    else:
        beside = 1 + (0.25 + 0.6 * font / 72 * max(map(len, labels))) / side  # beyond the names there
        bar = figure.add_axes((beside, 1 - 2.5 / side, 0.18 / side, 2.5 / side))
        ticks = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 1)
        scale = figure.colorbar(picture, cax=bar, ticks=ticks, format=lambda share, _: f"{100 * share:g} %")
        scale.ax.tick_params(labelsize=8)
    figure.savefig(path, format="png", bbox_inches="tight", pad_inches=0.15)


def speeds(records: Sequence[Mapping[str, Any]], path: Path, *, title: str, place: str) -> None:
    """Draw latency and throughput over the size of the image, and the shares of a model's parts, as a PNG.

    Args:
        records: the cases of `segvit.timings.Bench.to_dict`.
        title: what was timed.
        place: where.
    """
    from matplotlib.figure import Figure

    height = max(3.6, 1.6 + 0.3 * len(records))
    figure = Figure(figsize=(12.4, height), dpi=150, layout="constrained")
    latency, throughput, shares = figure.subplots(1, 3, width_ratios=(1, 1, 1.25))
    sizes = sorted({tuple(record["size"]) for record in records}, key=lambda size: (size[0] * size[1], size))
    lines = list(dict.fromkeys((record["precision"], record["batch"]) for record in records))
    batches = sorted({batch for _, batch in lines})
    for precision, batch in lines:
        mine = {tuple(r["size"]): r for r in records if (r["precision"], r["batch"]) == (precision, batch)}
        places = [index for index, size in enumerate(sizes) if size in mine]
        rows = [mine[sizes[index]] for index in places]
        style: dict[str, Any] = {
            "color": PRECISION_COLORS[precision],
            "linestyle": LINE_STYLES[batches.index(batch) % len(LINE_STYLES)],
            "marker": MARKERS[batches.index(batch) % len(MARKERS)],
            "linewidth": 1.6,
            "markersize": 4.5,
        }
        low, high = (1000 * np.array([row["latency_quartiles"][end] for row in rows]) for end in (0, 1))
        latency.fill_between(places, low, high, color=style["color"], alpha=0.18, linewidth=0)
        latency.plot(places, [1000 * row["latency_seconds"] for row in rows], **style)
        label = f"{precision}, batch {batch}"
        throughput.plot(places, [row["images_per_second"] for row in rows], label=label, **style)
    _plain_axes(latency, title="Latency of a batch, ms", below="")
    _plain_axes(throughput, title="Throughput, images/s", below="")
    for axes in (latency, throughput):
        axes.set_xticks(range(len(sizes)), [f"{size[0]} × {size[1]}" for size in sizes])
        axes.margins(x=0.12)
        axes.set_ylim(0, axes.dataLim.y1 * 1.08)
    throughput.legend(fontsize=8, frameon=False)
    _stack_shares(shares, records)
    figure.suptitle(title, x=0.008, ha="left", fontsize=11)
    figure.supxlabel(place, x=0.008, ha="left", fontsize=8, color="#666666")
    figure.savefig(path, format="png")


def learning_rates(
    rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], path: Path, *, suggested: float
) -> None:
    """Draw losses over the learning rate at which they were seen, and a suggested one, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.6), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses, color="#4c78a8", alpha=0.3, linewidth=0.8)
    axes.plot(rates, smoothed, color="#1f4e85", linewidth=1.6)
    axes.axvline(suggested, color="#c8553d", linewidth=1.2, linestyle="--")
    axes.annotate(
        f" {suggested:.1e}", (suggested, 1), xycoords=("data", "axes fraction"), va="top", color="#c8553d", fontsize=9
    )
    axes.set_xscale("log")
    low, high = min(smoothed), max(smoothed)
    axes.set_ylim(low - 0.08 * (high - low), high + 0.08 * (high - low) + 1e-9)
    _plain_axes(axes, title="Loss while the learning rate grows (thick: smoothed)", below="optim.lr")
    figure.savefig(path, format="png")


def _stack_shares(axes: "Axes", records: Sequence[Mapping[str, Any]]) -> None:
    """A bar for each case, cut into the shares of its parts; shares of 6 % and more hold their numbers."""
    names = ["{0} × {1}, {precision}, batch {batch}".format(*record["size"], **record) for record in records]
    starts = np.zeros(len(records))
    for part, color in zip(records[0]["shares"], SHARE_COLORS):
        widths = 100 * np.array([record["shares"][part] for record in records])
        axes.barh(names, widths, left=starts, height=0.62, color=color, label=part)
        for row, (start, width) in enumerate(zip(starts, widths, strict=True)):
            if width >= 6:
                dark = color == SHARE_COLORS[0]
                axes.text(
                    start + width / 2,
                    row,
                    f"{width:.0f}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white" if dark else "#222222",
                )
        starts += widths
    _plain_axes(axes, title="Shares of the time, %", below="")
    axes.set_xlim(0, 100)
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.08), fontsize=8, frameon=False)


def _name_cells(axes: "Axes", labels: Sequence[str], *, font: float, everywhere: bool) -> None:
    """Class names along the axes (on all four sides of a large matrix), and lines between the cells."""
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
    axes.spines[:].set_color("#999999")


def _plain_axes(axes: "Axes", *, title: str, below: str = "step") -> None:
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel(below, fontsize=9)
    axes.tick_params(labelsize=8, color="#999999")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
