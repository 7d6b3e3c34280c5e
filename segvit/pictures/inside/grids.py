"""Draw the token grid of a photo: the tokens that QD keeps, the restored ones, and the attention of QU's tokens.

    save(tokens_figure(look(model, "photo.jpg")), Path("tokens.svg"))

Letters: n m grid of the patches.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from segvit.errors import UserError
from segvit.pictures.figure_style import (
    BLUE,
    SMALL,
    VERMILLION,
    WIDTH,
    color_bar,
    heat_colors,
    heat_over,
    panels,
    row_name,
    title,
)
from segvit.pictures.inside.canvas import Canvas
from segvit.pictures.inside.record import Gaze, Inside, Tokens
from segvit.utils.text import percentage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VEIL, THIN_VEIL = 0.72, 0.35
"""Opacity of the white layer over dropped patches, and under restored tokens."""
MANY = 2500
"""Number of marks above which a PDF or SVG holds them as pixels. As shapes they would take megabytes."""
TITLE_ROOM = 2.6
"""Width reserved for a title in inches, if the page has it for every panel."""
PADDING = "#e4e4e4"
"""Colour of the padding, where a patch reaches beyond the photo."""


def tokens_figure(inside: Inside) -> "Figure":
    """Draw the token grid over the photo: all tokens, those that QD keeps, and those that the up-sampling restores.

    The plain structure has only the first panel, a naive shrunk one the first two. Padding beyond the photo is grey
    (docs/method.md section 3).
    """
    tokens = inside.tokens
    steps = [("all", _before(tokens))]
    if tokens.shrink_at is not None:
        steps.append(("kept", _behind(tokens)))
    if tokens.restored:
        steps.append(("restored", f"{'QU' if inside.gazes else 'up-sampled'}: {_count(tokens.grid)}"))
    canvas = Canvas(inside)
    aspect = tokens.grid[0] / tokens.grid[1]
    figure, axes = panels(1, len(steps), aspect=aspect, bars=False, room=min(TITLE_ROOM, (WIDTH - 0.25) / len(steps)))
    for panel, (what, text) in zip(axes[0], steps, strict=True):
        _photo_on_grid(panel, canvas, inside)
        title(panel, text, size=SMALL)
        if what == "kept":
            draw_kept(panel, tokens.kept, tokens.patch)
        draw_grid(panel, tokens.grid, tokens.patch)
        if what == "restored":
            draw_restored(panel, tokens.grid, tokens.patch)
    return figure


def queries_figure(inside: Inside) -> "Figure":
    """Draw the attention of four of QU's learned tokens: one row per map, one column per token.

    A panel shows the last layer's attention, averaged over heads. Its colours run from 0 to its largest weight, which
    is printed in it. The square marks the token's own patch (docs/method.md section 3).

    Raises:
        UserError: the model has no QU, and so no learned tokens for patches.
    """
    if not inside.gazes:
        raise UserError(
            "the model has no learned tokens of patches, whose attention this figure shows: only the structure shrunk "
            "with the up-sampling paper has them; tokens_figure draws any model"
        )
    canvas, patch = Canvas(inside), inside.tokens.patch
    figure, axes = panels(
        len(inside.gazes), len(inside.gazes[0].places), aspect=canvas.aspect, header="Where QU's tokens look", left=0.2
    )
    extent = (0, inside.size[1], inside.size[0], 0)
    for row, gaze in enumerate(inside.gazes):
        row_name(axes[row, 0], f"block {gaze.block}")
        for column, place in enumerate(gaze.places):
            _draw_gaze(axes[row, column], canvas, gaze, column, extent)
            _square(axes[row, column], place, patch)
            if row == 0:
                title(axes[row, column], f"token {place[0]}, {place[1]}")
    color_bar(axes[0, -1], heat_colors(), (0, 1), (0, 0.5, 1), "of the largest")
    return figure


def draw_grid(axes: "Axes", grid: tuple[int, int], patch: float, *, color: str = "white") -> None:
    """Draw the lines between the patches of a grid (n, m) whose patches are `patch` units wide."""
    width = min(0.6, 18 / max(grid))
    rows, columns = (np.arange(1, count) * patch for count in grid)
    axes.hlines(rows, 0, grid[1] * patch, color=color, linewidth=width, alpha=0.7)
    axes.vlines(columns, 0, grid[0] * patch, color=color, linewidth=width, alpha=0.7)


def draw_kept(axes: "Axes", kept: npt.NDArray[np.bool_], patch: float) -> None:
    """Fade the dropped patches and frame the kept ones; `kept` is (n, m)."""
    rows, columns = kept.shape
    veil = np.ones((rows, columns, 4))
    veil[:, :, 3] = np.where(kept, 0, VEIL)
    axes.imshow(veil, extent=(0, columns * patch, rows * patch, 0), interpolation="nearest", zorder=2)
    draw_frames(axes, kept, patch)


def draw_frames(axes: "Axes", framed: npt.NDArray[np.bool_], patch: float, *, color: str = VERMILLION) -> None:
    """Frame some patches; `framed` is (n, m)."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    inset, side = 0.05 * patch, 0.9 * patch  # keep frames at the border whole
    frames = [Rectangle((x * patch + inset, y * patch + inset), side, side) for y, x in np.argwhere(framed)]
    axes.add_collection(
        PatchCollection(
            frames,
            facecolor="none",
            edgecolor=color,
            linewidth=min(1.1, 22 / max(framed.shape)),
            zorder=3,
            rasterized=len(frames) > MANY,
        )
    )


def draw_restored(axes: "Axes", grid: tuple[int, int], patch: float) -> None:
    """Draw a dot for the token that an up-sampling gives each patch of a grid (n, m)."""
    y, x = np.mgrid[: grid[0], : grid[1]]
    size = min(12.0, (72 / max(grid)) ** 2 / 3)
    extent = (0, grid[1] * patch, grid[0] * patch, 0)
    axes.imshow(np.full((1, 1, 4), (1, 1, 1, THIN_VEIL)), extent=extent, zorder=0.5)
    axes.scatter(
        (x.ravel() + 0.5) * patch,
        (y.ravel() + 0.5) * patch,
        s=size,
        color=BLUE,
        edgecolors="white",
        linewidths=min(0.4, size / 12),
        zorder=3,
        rasterized=x.size > MANY,
    )


def _draw_gaze(axes: "Axes", canvas: Canvas, gaze: Gaze, index: int, extent: tuple[float, float, float, float]) -> None:
    """Draw the attention of one token over the photo, with its largest weight."""
    weights = gaze.attention[index]
    most = float(weights.max())
    axes.imshow(heat_over(canvas.photo, canvas.cells(weights / most, gaze.cell)), extent=extent)
    axes.text(
        *(0.03, 0.04),
        percentage(most, ".2g"),
        transform=axes.transAxes,
        fontsize=SMALL - 1,
        color="white",
        bbox={"facecolor": "black", "alpha": 0.5, "linewidth": 0, "boxstyle": "round,pad=0.15"},
    )


def _square(axes: "Axes", place: Sequence[int], patch: int) -> None:
    """Frame one patch."""
    from matplotlib.patches import Rectangle

    corner = (place[1] * patch, place[0] * patch)
    axes.add_patch(Rectangle(corner, patch, patch, facecolor="none", edgecolor="white", linewidth=2.0))
    axes.add_patch(Rectangle(corner, patch, patch, facecolor="none", edgecolor=VERMILLION, linewidth=1.0))


def _photo_on_grid(axes: "Axes", canvas: Canvas, inside: Inside) -> None:
    """Draw the photo in the top left corner of the patch grid, in pixels of the photo as the model sees it."""
    axes.set_facecolor(PADDING)
    axes.imshow(canvas.photo, extent=(0, inside.size[1], inside.size[0], 0))
    rows, columns = inside.tokens.grid
    axes.set_xlim(0, columns * inside.tokens.patch)
    axes.set_ylim(rows * inside.tokens.patch, 0)


def _count(grid: tuple[int, int]) -> str:
    return f"{grid[0]} × {grid[1]} = {grid[0] * grid[1]:,} tokens"


def _before(tokens: Tokens) -> str:
    """Return the title of the first panel."""
    if tokens.shrink_at is None:
        return f"all {tokens.depth} blocks: {_count(tokens.grid)}{_prefix(tokens)}"
    return f"before block {tokens.shrink_at}: {_count(tokens.grid)}"


def _behind(tokens: Tokens) -> str:
    """Return the title of the second panel."""
    count, shrunk = int(tokens.kept.sum()), tokens.shrunk
    kept = _count(shrunk) if count == shrunk[0] * shrunk[1] else f"{count:,} tokens"  # no lattice
    return f"QD at block {tokens.shrink_at}: {kept}{_prefix(tokens)}"


def _prefix(tokens: Tokens) -> str:
    """Return the part of a title that counts the prefix tokens, which belong to no patch."""
    return f" + {tokens.num_prefix} prefix" if tokens.num_prefix else ""
