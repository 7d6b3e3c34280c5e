"""Draw the speed of a model: latency, throughput, and the shares of its parts.

speeds(segvit.bench(model).to_dict()["timings"], Path("speed.png"), title="ViT-B", place="2 threads")
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segvit.pictures.figure_style import (
    BLUE,
    DPI,
    GREEN,
    GREY,
    INK,
    ORANGE,
    SKY,
    SMALL,
    TEXT,
    VERMILLION,
    plain_axes,
    save,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PRECISION_COLORS = {"fp32": BLUE, "bf16": GREEN, "fp16": VERMILLION}
"""Line colour of each precision."""
LINE_STYLES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D")
"""Line styles and markers of the batch sizes, smallest first."""
FIGURE_WIDTH = 10.0
"""Width of the figure in inches: the names of its cases need more than a page of text has."""
SHARE_COLORS = (BLUE, SKY, ORANGE)
"""Colours of backbone, head and label map."""


def speeds(records: Sequence[Mapping[str, Any]], path: Path, *, title: str, place: str) -> None:
    """Draw latency and throughput over image size, and the share of each part of the model.

    Args:
        records: timed cases, as in `segvit.profiling.timings.Bench.to_dict`.
        path: output file, PNG, PDF or SVG.
        title: name of the timed model.
        place: hardware and settings of the measurement.
    """
    from matplotlib.figure import Figure

    height = max(2.9, 1.3 + 0.24 * len(records))
    figure = Figure(figsize=(FIGURE_WIDTH, height), dpi=DPI, layout="constrained")
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
            "linewidth": 1.3,
            "markersize": 3.6,
        }
        low, high = (1000 * np.array([row["latency_quartiles"][end] for row in rows]) for end in (0, 1))
        latency.fill_between(places, low, high, color=style["color"], alpha=0.18, linewidth=0)
        latency.plot(places, [1000 * row["latency_seconds"] for row in rows], **style)
        label = f"{precision}, batch {batch}"
        throughput.plot(places, [row["images_per_second"] for row in rows], label=label, **style)
    plain_axes(latency, title="Latency of a batch, ms", below="")
    plain_axes(throughput, title="Throughput, images/s", below="")
    for axes in (latency, throughput):
        axes.set_xticks(range(len(sizes)), [f"{size[0]} × {size[1]}" for size in sizes])
        axes.margins(x=0.12)
        axes.set_ylim(0, axes.dataLim.y1 * 1.08)
    throughput.legend(fontsize=SMALL, frameon=False)
    _stack_shares(shares, records)
    figure.suptitle(title, x=0.008, ha="left", fontsize=TEXT + 1)
    figure.supxlabel(place, x=0.008, ha="left", fontsize=SMALL, color=GREY)
    save(figure, path)


def _stack_shares(axes: "Axes", records: Sequence[Mapping[str, Any]]) -> None:
    """Draw a bar per case, divided into the shares of its parts. Shares of 6 % or more show their number."""
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
                    fontsize=SMALL,
                    color="white" if dark else INK,
                )
        starts += widths
    plain_axes(axes, title="Shares of the time, %", below="")
    axes.set_xlim(0, 100)
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.08), fontsize=SMALL, frameon=False)
