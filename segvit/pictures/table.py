"""Arrange pictures in tables: one row with titles, or a contact sheet of many rows.

side_by_side([("photo", image), ("plain", one), ("shrunk", other)]).save("compared.png")
"""

from collections.abc import Sequence

from PIL import Image, ImageDraw

from segvit.errors import UserError
from segvit.pictures.text import (
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


def side_by_side(pictures: Sequence[tuple[str, Picture]]) -> Image.Image:
    """Arrange pictures in one row, each under its title.

    Raises:
        UserError: there is no picture.
    """
    return contact_sheet([[picture for _, picture in pictures]], titles=[title for title, _ in pictures])


def contact_sheet(
    rows: Sequence[Sequence[Picture]],
    *,
    titles: Sequence[str] = (),
    captions: Sequence[str] = (),
    text_size: int | None = None,
) -> Image.Image:
    """Arrange pictures in a table. Small pictures are all enlarged by the same whole factor.

    Args:
        rows: pictures of each row.
        titles: text above each column.
        captions: text above each row.
        text_size: height of the text in pixels. Default: chosen from the size of the first picture.

    Raises:
        UserError: there is no picture, or there are more titles than columns or more captions than rows.
    """
    table = [[as_picture(picture) for picture in row] for row in rows]
    columns = max((len(row) for row in table), default=0)
    if columns == 0:
        raise UserError("no pictures; give at least one")
    if len(titles) > columns:
        raise UserError(f"{len(titles)} titles for {columns} columns; give one per column, or none")
    if len(captions) > len(table):
        raise UserError(f"{len(captions)} captions for {len(table)} rows; give one per row, or none")
    factor = min(enlargement(picture, READABLE_SIDE * 2 // 3) for row in table for picture in row)
    table = [[enlarge(picture, factor) for picture in row] for row in table]
    size = text_size or text_size_for(table[0][0])
    font = font_for(size)
    gap = max(4, size // 2)
    widths = [max(row[column].width for row in table if column < len(row)) for column in range(columns)]
    heights = [max((picture.height for picture in row), default=0) for row in table]
    head, above = 2 * size if titles else gap, 2 * size if captions else 0
    height = head + sum(heights) + (gap + above) * len(heights)
    sheet = Image.new("RGB", (sum(widths) + gap * (columns + 1), height), PAPER)
    draw = ImageDraw.Draw(sheet)
    lefts = [gap + sum(widths[:column]) + gap * column for column in range(columns)]
    for left, width, title in zip(lefts, widths, titles, strict=False):
        draw.text((left, head / 2), fit(title, font, width), fill=INK, font=font, anchor="lm")
    y = head
    captions = [*captions, *[""] * (len(table) - len(captions))]
    for row, height, caption in zip(table, heights, captions, strict=True):
        draw.text((gap, y + above / 2), fit(caption, font, sheet.width - 2 * gap), fill=INK, font=font, anchor="lm")
        y += above
        for left, picture in zip(lefts, row, strict=False):
            sheet.paste(picture, (left, y))
        y += height + gap
    return sheet
