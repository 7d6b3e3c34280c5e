"""Style of figures for a paper: one typography, panels measured in inches, reproducible files.

    figure, axes = panels(2, 4, aspect=3 / 4)
    save(figure, Path("figure.pdf"))                  # or .svg, .png

Text in a PDF stays text in TrueType fonts, which journals require. Text in an SVG becomes outlines, so it looks the
same everywhere. All text is DejaVu Sans, in pictures too (segvit/pictures/text.py). Line colours are from Okabe and
Ito. Heat maps use viridis, which is perceptually uniform and readable under red-green colour blindness. Matrices of
shares use one blue, from white at 0 to dark at 1. matplotlib is imported only when something is drawn.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from segvit.pictures.formats import check_figure_path
from segvit.pictures.paint import Pixels
from segvit.utils.files import writing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

WIDTH = 7.0
"""Width of a two-column figure in inches."""
DPI = 300
"""Dots per inch of raster output."""
TEXT, SMALL = 8.0, 7.0
"""Font sizes of titles and of other text, in points."""
INK, GREY, RULE = "#222222", "#666666", "#999999"
BLUE, ORANGE, GREEN, VERMILLION, SKY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9"
"""Colours of the palette of Okabe and Ito (2008)."""
HEAT, DIVERGING = "viridis", "RdBu_r"
"""Colour maps for values in 0..1 and for values of both signs."""
MATRIX = ("#ffffff", "#0a3c8c")
"""Colours of the shares 0 and 1 in a matrix. segvit/reports/templates/report.css has the same ones."""
HEAT_SHARE = 0.72
"""Opacity of a heat map over a grey photo, 0..1."""
MAX_PANEL, LEAST = 2.4, 0.7
"""Maximum longer side of a panel, and minimum width reserved for it, in inches."""
HEADER_LETTER, NAME_LETTER = 0.088, 0.066
"""Approximate width of a letter of the figure's header, and of a row name, in inches."""
GAP, EDGE, HEADER, TITLE, BAR = 0.08, 0.03, 0.17, 0.22, 0.62
"""Gap between panels, margin, header height, title height, width of a colour bar with numbers: all in inches."""
MAX_NAME = 24
"""Maximum length of a class name in a figure, in characters."""


def save(figure: "Figure", path: Path, *, tight: bool = False) -> None:
    """Write a figure as PNG, PDF or SVG, according to the file's suffix; equal figures give equal bytes.

    Args:
        path: output file.
        tight: crop to the drawn content instead of keeping the figure's own size.

    Raises:
        UserError: the suffix is not supported, or the file cannot be written.
    """
    from matplotlib import rc_context

    check_figure_path(path, "figure")
    kind = path.suffix.lower().removeprefix(".")
    metadata: dict[str, Any] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {"Software": None}}[kind]
    cut: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.1} if tight else {}
    style: dict[Any, Any] = {"pdf.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "segvit"}
    with rc_context(style), writing(path, "give another file"):
        figure.savefig(path, format=kind, metadata=metadata, **cut)


def panels(
    rows: int,
    columns: int,
    *,
    aspect: float,
    titles: bool = True,
    header: str = "",
    left: float = 0.0,
    bars: bool = True,
    gap: float = GAP,
    below: float = 0.0,
    largest: float = MAX_PANEL,
    room: float = LEAST,
    wide: float = 0.0,
    names: Sequence[str] = (),
) -> tuple["Figure", npt.NDArray[Any]]:
    """Create a figure with a table of panels for pictures, without ticks.

    Args:
        aspect: height of a picture divided by its width; very long pictures are drawn smaller.
        titles: reserve room for a title above each panel of the first row.
        header: line of text above the whole figure.
        left: room on the left for row names, in inches.
        bars: reserve room for colour bars on the right.
        gap: distance between rows in inches.
        below: room at the bottom in inches.
        largest: maximum longer side of a panel in inches. It sets the width of the figure, up to WIDTH.
        room: minimum width of a column in inches, for example for its title.
        wide: minimum width of the figure in inches.
        names: row names, which keep the rows of flat pictures apart.

    Returns:
        The figure and its axes (R, C), R rows of C columns.
    """
    from matplotlib.figure import Figure

    right = BAR if bars else 0.0
    side = min((WIDTH - 2 * EDGE - left - right - GAP * (columns - 1)) / columns, largest)
    panel_width = min(side, largest / aspect)
    panel_height = panel_width * aspect
    beyond = max((NAME_LETTER * len(name) - panel_height for name in names), default=0.0)
    gap, below = max(gap, beyond), max(below, beyond / 2)
    pitch = max(panel_width, room) + GAP
    head = (TITLE if titles else 0.0) + (HEADER if header else 0.0)
    wide = max(left + columns * pitch - GAP + right + 2 * EDGE, HEADER_LETTER * len(header), wide)
    high = head + rows * (panel_height + gap) - gap + below + 2 * EDGE
    figure = Figure(figsize=(wide, high), dpi=DPI)
    if header:
        place = (EDGE / wide, 1 - (EDGE + HEADER / 2) / high)
        figure.text(*place, header, fontsize=TEXT + 1, color=INK, weight="bold", va="center", parse_math=False)
    axes = np.empty((rows, columns), dtype=object)
    for row, column in np.ndindex(rows, columns):
        x = EDGE + left + column * pitch + (pitch - GAP - panel_width) / 2
        y = high - EDGE - head - (row + 1) * panel_height - row * gap
        box = (x / wide, y / high, panel_width / wide, panel_height / high)
        axes[row, column] = bare(figure.add_axes(box))
    return figure, axes


def bare(axes: "Axes") -> "Axes":
    """Remove the ticks of `axes` and make its frame thin."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color(RULE)
    axes.spines[:].set_linewidth(0.5)
    return axes


def title(axes: "Axes", text: str, *, size: float = TEXT) -> None:
    """Set the title of a panel; dollar signs are text, not formulas."""
    axes.set_title(text, fontsize=size, color=INK, pad=3, parse_math=False)


def row_name(axes: "Axes", text: str) -> None:
    """Write a row name along the left side of a panel, from bottom to top."""
    axes.set_ylabel(text, fontsize=TEXT, color=INK, labelpad=3, parse_math=False)


def short(name: str, length: int = MAX_NAME) -> str:
    """Return a class name on one line, shortened with an ellipsis to `length` characters."""
    name = " ".join(name.split())
    return name if len(name) <= length else name[: length - 1] + "…"


def plain_axes(axes: "Axes", *, title: str, below: str = "step") -> None:
    """Style axes: title at the top left, thin horizontal lines, no frame at the top and right."""
    axes.set_title(title, loc="left", fontsize=TEXT, color=INK, parse_math=False)
    axes.set_xlabel(below, fontsize=SMALL, color=INK)
    axes.tick_params(labelsize=SMALL, color=RULE)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.5)
    axes.set_axisbelow(True)


def matrix_colors() -> "Colormap":
    """Return the colours of shares in a matrix, in equal steps of lightness.

    They lie on a line in Oklab (Ottosson 2020), as `color-mix(in oklab, ...)` of a style sheet has them.
    """
    from matplotlib.colors import ListedColormap, to_rgb

    to_cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    ends = np.array([to_rgb(color) for color in MATRIX])
    linear = np.where(ends <= 0.04045, ends / 12.92, ((ends + 0.055) / 1.055) ** 2.4)
    low, high = np.cbrt(linear @ to_cones.T)  # Oklab is a linear map of these
    mixed = low + np.linspace(0, 1, 256)[:, None] * (high - low)
    light = np.clip(mixed**3 @ np.linalg.inv(to_cones).T, 0, 1)
    return ListedColormap(np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055))


def heat_over(photo: Pixels, heat: npt.NDArray[np.floating[Any]]) -> Pixels:
    """Draw a heat map in 0..1 (H, W) in colour over a photo (H, W, 3) in grey -> (H, W, 3)."""
    from matplotlib import colormaps

    grey = np.asarray(Image.fromarray(photo).convert("L"), dtype=np.float64)[:, :, None] / 255
    colors = np.asarray(colormaps[HEAT](np.clip(heat, 0, 1)))[:, :, :3]
    return np.rint(255 * (HEAT_SHARE * colors + (1 - HEAT_SHARE) * grey)).astype(np.uint8)


def heat_colors() -> "Colormap":
    """Return the colours of `heat_over` on medium grey, for a colour bar."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    colors = np.asarray(colormaps[HEAT](np.linspace(0, 1, 256)))[:, :3]
    return ListedColormap(HEAT_SHARE * colors + (1 - HEAT_SHARE) * 0.5)


def rounded(limit: float) -> float:
    """Round a positive number down to one digit, for the end of a scale: 1.409 -> 1."""
    power = 10.0 ** math.floor(math.log10(limit))
    return float(f"{math.floor(limit / power + 1e-9) * power:.1g}")


def color_bar(
    axes: "Axes", colors: "Colormap | str", limits: tuple[float, float], ticks: Sequence[float], name: str
) -> None:
    """Draw a labelled colour bar to the right of a panel, as high as the panel."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    figure = axes.get_figure(root=True)
    assert figure is not None
    wide, box = figure.get_figwidth(), axes.get_position()
    place = figure.add_axes((box.x1 + 0.07 / wide, box.y0 + 0.04 * box.height, 0.07 / wide, 0.92 * box.height))
    bar = figure.colorbar(ScalarMappable(Normalize(*limits), colors), cax=place, ticks=list(ticks))
    bar.ax.tick_params(labelsize=SMALL - 1, length=2, pad=1.5, color=RULE)
    bar.ax.set_ylabel(name, fontsize=SMALL, color=INK, labelpad=2)
    bar.outline.set_linewidth(0.4)
