"""Add a legend below a picture: colour chips with the names and shares of the classes present.

    with_legend(picture, spec.classes, spec.palette, shares(labels, spec.num_classes)).save("overlay.png")

Letters: H W height and width in pixels.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
from PIL import Image, ImageDraw

from segvit.data.palette import Color
from segvit.errors import UserError
from segvit.pictures.paint import IGNORED
from segvit.pictures.text import (
    FAINT_INK,
    INK,
    PAPER,
    READABLE_SIDE,
    Picture,
    as_picture,
    enlarge,
    enlargement,
    fit,
    font_for,
    text_size_for,
)
from segvit.utils.text import percentage


def with_legend(
    picture: Picture,
    names: Sequence[str],
    palette: Sequence[Color | None],
    fractions: Sequence[float] | npt.NDArray[Any],
    *,
    numbers: bool = True,
    text_size: int | None = None,
) -> Image.Image:
    """Return the picture with a legend below: colour chips, names and shares of the classes present, largest first.

    A small picture is enlarged by a whole factor so that the text is readable. On a large one the text is larger.

    Args:
        picture: (H, W, 3) or a PIL image, such as an overlay or a row of overlays.
        names: name of each class.
        palette: colour of each class, or None for a class that the picture does not paint.
        fractions: share of each class, 0..1, as returned by `shares`; classes with 0 are omitted.
        numbers: write the shares beside the names.
        text_size: height of the text in pixels. Default: chosen from the size of the picture.

    Raises:
        UserError: names, palette and fractions differ in length.
    """
    if not len(names) == len(palette) == len(fractions):
        raise UserError(
            f"{len(names)} names, {len(palette)} colours and {len(fractions)} shares; give one of each per class"
        )
    top = as_picture(picture)
    top = enlarge(top, enlargement(top, READABLE_SIDE))
    present = sorted((k for k in range(len(names)) if fractions[k] > 0), key=lambda k: (-fractions[k], k))
    entries: list[tuple[str, float, Color | None]] = [(names[k], float(fractions[k]), palette[k]) for k in present]
    if (rest := 1 - sum(float(share) for share in fractions)) > 0.0005:
        entries.append(("ignored", rest, None))
    legend = _legend(entries, top.width, size=text_size or text_size_for(top), numbers=numbers)
    result = Image.new("RGB", (max(top.width, legend.width), top.height + legend.height), PAPER)
    result.paste(top, (0, 0))
    result.paste(legend, (0, top.height))
    return result


def _legend(entries: Sequence[tuple[str, float, Color | None]], width: int, *, size: int, numbers: bool) -> Image.Image:
    """Draw chips, names and shares in as many columns as fit into `width` pixels; colour None means ignored."""
    font = font_for(size)
    chip, gap = round(size * 1.1), round(size * 0.5)
    told = [("< 0.1 %" if share < 0.0005 else percentage(share)) if numbers else "" for _, share, _ in entries]
    limit = max(width, 14 * size) - chip - 4 * gap - font.getlength("100.0 %")
    names = [fit(name, font, limit) for name, _, _ in entries]
    lengths = [font.getlength(name) for name in names]
    texts = [length + gap + font.getlength(number) for length, number in zip(lengths, told, strict=True)]
    pitch = math.ceil(chip + 3.5 * gap + max(texts, default=0))
    columns = max(1, (width + gap // 2) // pitch)  # the last column needs no gap after it
    line = round(size * 1.7)
    height = math.ceil(len(entries) / columns) * line + 2 * gap
    legend = Image.new("RGB", (max(width, pitch + gap), height), PAPER)
    draw = ImageDraw.Draw(legend)
    for position, (_, _, color) in enumerate(entries):
        left = gap + position % columns * pitch
        middle = gap + position // columns * line + line / 2
        top = round(middle - chip / 2)
        _draw_chip(draw, (left, top, left + chip - 1, top + chip - 1), color)
        start = left + chip + gap
        draw.text((start, middle), names[position], fill=INK, font=font, anchor="lm")
        draw.text((start + lengths[position] + gap, middle), told[position], fill=FAINT_INK, font=font, anchor="lm")
    return legend


def _draw_chip(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], color: Color | None) -> None:
    left, top, right, bottom = box
    side = right - left
    draw.rounded_rectangle(
        box, radius=side // 5, fill=color or IGNORED, outline=(110, 110, 110), width=max(1, side // 16)
    )
    if color is None:
        draw.line((left + side // 5, bottom - side // 5, right - side // 5, top + side // 5), FAINT_INK, side // 10)
