"""Draw the head at work: similarity of a class token, its attention, the cascade, the label map.

    inside = look(model, "photo.jpg", classes=["sky"])
    save(attention_figure(inside, inside.classes[0]), Path("attention.pdf"))

Letters: S supervised outputs, A attention heads.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from segvit.errors import UserError
from segvit.pictures.figure_style import (
    DIVERGING,
    GREY,
    INK,
    RULE,
    SMALL,
    TITLE,
    WIDTH,
    color_bar,
    heat_colors,
    heat_over,
    panels,
    rounded,
    row_name,
    short,
    title,
)
from segvit.pictures.inside.canvas import Canvas
from segvit.pictures.inside.record import Inside
from segvit.pictures.paint import overlay
from segvit.pictures.text import PAPER
from segvit.utils.text import percentage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEADS_IN_A_ROW = 8
"""Maximum number of heads in a row of panels."""
LEGEND_LINE, LEGEND_COLUMN = 0.155, 1.72
"""Height and width of a legend entry, in inches."""
LETTER, LETTERS_BESIDE_SHARE = 0.062, 8
"""Approximate width of a letter in inches, and the room in letters below which a legend entry omits the share."""
MANY_LINES = 12
"""Number of legend lines above which the figure becomes as wide as the page."""
WORTH_NAMING = 0.005
"""Minimum share of the photo for a class to appear in the small legend, 0..1."""


def attention_figure(inside: Inside, class_number: int) -> "Figure":
    """Draw the similarity of one class token with the map, and the resulting mask, for each supervised output.

    The first row shows Q_i K_i^T / sqrt(head width), averaged over heads: one value per token, before the sigmoid. The
    second row shows its sigmoid over the photo, upsampled as for the scores (docs/method.md section 2). The outputs
    are not summed.

    Args:
        inside: recording made by `look`.
        class_number: one of `inside.classes`.

    Raises:
        UserError: the class was not recorded.
    """
    place, name = _place(inside, class_number), _name(inside, class_number)
    canvas, similarity = Canvas(inside), inside.similarity[:, place]
    figure, axes = panels(
        2, len(similarity) + 1, aspect=canvas.aspect, header=f"Attention to mask: {name}", left=0.2, below=TITLE
    )
    axes[0, 0].imshow(canvas.photo)
    title(axes[0, 0], "photo")
    limit = max(float(np.abs(similarity).max()), 1e-6)
    for column, (output, logits) in enumerate(zip(inside.outputs, similarity, strict=True), start=1):
        axes[0, column].imshow(canvas.cells(logits), cmap=DIVERGING, vmin=-limit, vmax=limit)
        axes[1, column].imshow(heat_over(canvas.photo, canvas.probability(logits)))
        title(axes[0, column], output)
    _show_class(axes[1, 0], canvas, inside, class_number)
    row_name(axes[0, 0], "similarity")
    row_name(axes[1, 0], "mask")
    end = rounded(limit)
    color_bar(axes[0, -1], DIVERGING, (-limit, limit), (-end, 0, end), "logit")
    color_bar(axes[1, -1], heat_colors(), (0, 1), (0, 0.5, 1), "sigmoid")
    return figure


def heads_figure(inside: Inside, class_number: int) -> "Figure":
    """Draw the attention of one class token in each head, one row per supervised output.

    The weights are those of the cross-attention: a softmax over the tokens (docs/method.md section 2). The colours of a
    panel run from 0, the darkest, to its largest weight, which is printed in it.

    Args:
        inside: recording made by `look`.
        class_number: one of `inside.classes`.

    Raises:
        UserError: the class was not recorded.
    """
    place, name = _place(inside, class_number), _name(inside, class_number)
    canvas, weights = Canvas(inside), inside.attention[:, :, place]  # (S, A, h, w)
    num_heads = weights.shape[1]
    columns = min(num_heads, HEADS_IN_A_ROW)
    lines = math.ceil(num_heads / columns)
    figure, axes = panels(
        len(weights) * lines,
        columns,
        aspect=canvas.aspect,
        header=f"Attention of each head: {name}",
        left=0.2,
        largest=1.6,
        names=inside.outputs,
    )
    for output in range(len(weights)):
        for head in range(lines * columns):
            panel = axes[output * lines + head // columns, head % columns]
            if head >= num_heads:
                panel.set_axis_off()
                continue
            most = float(weights[output, head].max())
            panel.imshow(heat_over(canvas.photo, canvas.cells(weights[output, head] / most)))
            panel.text(
                *(0.03, 0.04),
                percentage(most, ".2g"),
                transform=panel.transAxes,
                fontsize=SMALL - 1,
                color="white",
                bbox={"facecolor": "black", "alpha": 0.5, "linewidth": 0, "boxstyle": "round,pad=0.15"},
            )
            if lines == 1 and output == 0:
                title(panel, f"head {head + 1}")
        row_name(axes[output * lines, 0], inside.outputs[output])
    color_bar(axes[0, -1], heat_colors(), (0, 1), (0, 0.5, 1), "of the largest")
    return figure


def cascade_figure(inside: Inside, class_number: int) -> "Figure":
    """Draw the mask of one class and the label map after each supervised output.

    The first row shows the sigmoid of the class's mask logits. They are summed over the stages so far (docs/method.md
    section 2); the layers behind QU are not summed (section 3). The second row shows the label map that the model would
    predict if it ended there.

    Args:
        inside: recording made by `look`.
        class_number: one of `inside.classes`.

    Raises:
        UserError: the class was not recorded.
    """
    place, name = _place(inside, class_number), _name(inside, class_number)
    canvas, count = Canvas(inside), len(inside.outputs)
    what = "Mask and label map" if count == 1 else "The cascade" if inside.summed else "Layer by layer"
    figure, axes = panels(2, count + 1, aspect=canvas.aspect, header=f"{what}: {name}", left=0.2)
    axes[0, 0].imshow(canvas.photo)
    title(axes[0, 0], "photo")
    for column in range(1, count + 1):
        logits, labels = inside.masks[column - 1, place], canvas.labels(inside.labels[column - 1])
        axes[0, column].imshow(heat_over(canvas.photo, canvas.probability(logits)))
        axes[1, column].imshow(overlay(canvas.photo, labels, inside.palette))
        title(axes[0, column], _so_far(inside, column - 1))
    row_name(axes[0, 0], "mask")
    row_name(axes[1, 0], "labels")
    axes[1, 0].spines[:].set_visible(False)
    color_bar(axes[0, -1], heat_colors(), (0, 1), (0, 0.5, 1), "sigmoid")
    _legend_beside(axes[1, 0], inside)
    return figure


def labels_figure(inside: Inside) -> "Figure":
    """Draw the photo, the label map over it, and a legend with the share of each class, largest first."""
    canvas, fractions = Canvas(inside), inside.shares()
    order = sorted(np.flatnonzero(fractions).tolist(), key=lambda k: (-fractions[k], k))
    wide = panels(1, 2, aspect=canvas.aspect, bars=False)[0].get_figwidth()
    if len(order) > MANY_LINES * int(wide / LEGEND_COLUMN):
        wide = WIDTH
    columns = max(1, int(wide / LEGEND_COLUMN))
    below = math.ceil(len(order) / columns) * LEGEND_LINE + 0.08
    figure, axes = panels(1, 2, aspect=canvas.aspect, bars=False, below=below, wide=wide)
    axes[0, 0].imshow(canvas.photo)
    axes[0, 1].imshow(overlay(canvas.photo, canvas.labels(inside.labels[-1]), inside.palette))
    title(axes[0, 0], "photo")
    title(axes[0, 1], "label map")
    legend = figure.add_axes((0, 0, 1, (below - 0.06) / figure.get_figheight()))
    legend.set_axis_off()
    _chips(legend, inside, order, columns=columns, inches=(wide, below - 0.06))
    return figure


def _place(inside: Inside, class_number: int) -> int:
    """Return the position of a class among the recorded ones."""
    if class_number not in inside.classes:
        there = ", ".join(f"{k} ({inside.names[k]})" for k in inside.classes)
        raise UserError(f"class {class_number} was not recorded, only {there}; add it to look(..., classes=...)")
    return inside.classes.index(class_number)


def _name(inside: Inside, class_number: int) -> str:
    return short(inside.names[class_number], 40)


def _so_far(inside: Inside, index: int) -> str:
    """Return the title of an output and, in the cascade, of those before it."""
    if not inside.summed or len(inside.outputs) == 1:
        return inside.outputs[index]
    return "stage 1" if index == 0 else f"stages 1 to {index + 1}"


def _show_class(axes: "Axes", canvas: Canvas, inside: Inside, class_number: int) -> None:
    """Draw the photo with the pixels of one class in its colour, and their share below."""
    labels = canvas.labels(inside.labels[-1])
    axes.imshow(overlay(canvas.photo, np.where(labels == class_number, labels, -1), inside.palette))
    axes.set_xlabel(f"predicted: {percentage(inside.shares()[class_number])}", fontsize=SMALL, color=GREY, labelpad=3)


def _legend_beside(axes: "Axes", inside: Inside) -> None:
    """Draw the legend of the last label map into a panel, as many classes as fit."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    box = axes.get_position()
    inches = (box.width * figure.get_figwidth(), box.height * figure.get_figheight())
    fractions = inside.shares()
    order = sorted(np.flatnonzero(fractions >= WORTH_NAMING).tolist(), key=lambda k: (-fractions[k], k))
    _chips(axes, inside, order, columns=1, inches=inches)


def _chips(axes: "Axes", inside: Inside, classes: Sequence[int], *, columns: int, inches: tuple[float, float]) -> None:
    """Draw colour chips, names and shares into axes of `inches` size; the last line counts what does not fit."""
    from matplotlib.patches import Rectangle

    fractions = inside.shares()
    lines = max(1, int(inches[1] / LEGEND_LINE + 1e-6))
    shown = list(classes) if len(classes) <= lines * columns else list(classes[: lines * columns - 1])
    axes.set_xlim(0, inches[0])
    axes.set_ylim(inches[1], 0)
    letters = int((inches[0] / columns - 0.55) / LETTER)
    if letters < LETTERS_BESIDE_SHARE:
        letters = max(4, int((inches[0] / columns - 0.15) / LETTER))
    for index, k in enumerate(shown):
        x, y = index % columns * inches[0] / columns + 0.05, (index // columns + 0.5) * LEGEND_LINE
        color = tuple(part / 255 for part in inside.palette[k] or PAPER)
        axes.add_patch(Rectangle((x, y - 0.05), 0.1, 0.1, facecolor=color, edgecolor=RULE, linewidth=0.4))
        told = short(inside.names[k], letters)
        if letters >= LETTERS_BESIDE_SHARE:
            told += f"  {percentage(fractions[k])}"
        axes.text(x + 0.15, y, told, fontsize=SMALL, color=INK, va="center", parse_math=False)
    if rest := len(classes) - len(shown):
        y = (len(shown) // columns + 0.5) * LEGEND_LINE
        x = len(shown) % columns * inches[0] / columns + 0.2
        axes.text(x, y, f"and {rest} more", fontsize=SMALL, color=GREY, va="center")
