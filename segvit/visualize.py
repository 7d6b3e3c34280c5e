"""Pictures of label maps: overlays, legends, comparisons, error maps.

    labels = result.labels                                         # (H, W), 0..K-1, 255 = ignored
    picture = overlay(image, labels, spec.palette)                 # (H, W, 3)
    with_legend(picture, spec.classes, spec.palette, shares(labels, spec.num_classes)).save("overlay.png")

Shapes: H, W height and width in pixels · K classes. An image is uint8 (H, W, 3) in RGB; a palette holds K colours
(R, G, B) of 0..255. Ignored pixels are 255 where K <= 255, and -1 for any K; they are never coloured as a class.
Everything is deterministic. Only names outside ASCII need matplotlib, for its font.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from segvit.data.palette import Color
from segvit.data.spec import IGNORE_INDEX
from segvit.errors import UserError

Labels = npt.NDArray[np.integer[Any]]
Pixels = npt.NDArray[np.uint8]
Picture = Image.Image | Pixels
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

PAPER = (255, 255, 255)
INK = (34, 34, 34)
FAINT_INK = (120, 120, 120)
IGNORED = (235, 235, 235)
"""Colour of ignored pixels in a legend."""
WRONG = (222, 45, 38)
"""Colour of wrong pixels in an error map."""
IGNORED_16_BIT = 65_535
"""Value of ignored pixels in a 16-bit index PNG."""
READABLE_SIDE = 480
"""Longer side in pixels below which a picture is enlarged before text is written beside it."""


def shares(labels: Labels, num_classes: int) -> npt.NDArray[np.float64]:
    """Fraction of all pixels that each class covers, (K,); what they leave to 1 is ignored.

    Raises:
        UserError: a label that is neither a class nor ignored.
    """
    index = _class_index(labels, num_classes)
    return np.bincount(index.ravel(), minlength=num_classes + 1)[:num_classes] / index.size


def colorize(labels: Labels, palette: Sequence[Color], *, ignored: Color = (0, 0, 0)) -> Pixels:
    """Each pixel in the colour of its class, (H, W) -> (H, W, 3); ignored pixels in the colour `ignored`.

    Raises:
        UserError: a label that is neither a class nor ignored.
    """
    table = np.array([*palette, ignored], dtype=np.uint8)
    return table[_class_index(labels, len(palette))]


def overlay(
    image: Pixels, labels: Labels, palette: Sequence[Color], *, opacity: float = 0.6, contours: bool = True
) -> Pixels:
    """The classes' colours over the photo, (H, W, 3); ignored pixels show the photo as it is.

    The photo's fine detail is put back on top of the colours, so that edges and textures stay readable at any opacity.

    Args:
        opacity: share of the colour in the mix, 0..1.
        contours: draw a thin white line, edged dark, where two classes meet.

    Raises:
        UserError: sizes that differ, or a label that is neither a class nor ignored.
    """
    _check_pair(image, labels)
    if not 0 <= opacity <= 1:
        raise UserError(f"opacity is {opacity}; give a number from 0 (the photo) to 1 (the colours)")
    index = _class_index(labels, len(palette))
    photo = Image.fromarray(image)
    mixed = Image.blend(photo, Image.fromarray(colorize(labels, palette)), opacity)
    if opacity > 0:
        grey = photo.convert("L")
        smooth = grey.filter(ImageFilter.GaussianBlur(max(image.shape[:2]) / 60))
        detail = ImageChops.subtract(grey, smooth, scale=1 / (0.7 * opacity), offset=128)
        mixed = ImageChops.add(mixed, Image.merge("RGB", (detail, detail, detail)), offset=-128)
    mixed = Image.composite(mixed, photo, _mask(index < len(palette)))
    if contours:
        _draw_contours(mixed, index, len(palette))
    return np.array(mixed)


def error_map(image: Pixels, predicted: Labels, labels: Labels, *, num_classes: int) -> Pixels:
    """Where a prediction is wrong, (H, W, 3): right is the photo in grey, wrong is red, ignored is dark and hatched.

    Raises:
        UserError: sizes that differ, or a label that is neither a class nor ignored.
    """
    _check_pair(image, predicted)
    _check_pair(image, labels)
    truth = _class_index(labels, num_classes)
    wrong = truth != _class_index(predicted, num_classes)
    grey = Image.fromarray(image).convert("L")
    pale = grey.point(lambda value: round(90 + 0.6 * value)).convert("RGB")
    red = Image.blend(pale, Image.new("RGB", pale.size, WRONG), 0.75)
    picture = Image.composite(red, pale, _mask(wrong))
    rows, columns = np.ogrid[: labels.shape[0], : labels.shape[1]]
    period = max(4, round(max(labels.shape) / 80))
    stripe = (rows + columns) % period < max(1, period // 4)
    hatch = np.where(stripe[:, :, None], np.uint8(85), np.uint8(40)).repeat(3, axis=2)
    return np.array(Image.composite(Image.fromarray(hatch), picture, _mask(truth == num_classes)))


def with_legend(
    picture: Picture,
    names: Sequence[str],
    palette: Sequence[Color],
    fractions: Sequence[float] | npt.NDArray[Any],
    *,
    numbers: bool = True,
    text_size: int | None = None,
) -> Image.Image:
    """The picture above a strip of colour chips with the names and shares of the classes present, largest first.

    A small picture is enlarged by a whole factor, so that the text is readable; text grows with a large one.

    Args:
        picture: (H, W, 3) or a PIL image, such as an overlay or a row of them.
        fractions: share of each class, 0..1, as `shares` gives them; classes at 0 are left out.
        numbers: write the shares beside the names.
        text_size: height of the text in pixels. Default: what suits the picture.

    Raises:
        UserError: names, palette and fractions of different lengths.
    """
    if not len(names) == len(palette) == len(fractions):
        raise UserError(
            f"{len(names)} names, {len(palette)} colours and {len(fractions)} shares; give one of each per class"
        )
    top = _open(picture)
    top = _scale(top, _enlargement(top, READABLE_SIDE))
    present = sorted((k for k in range(len(names)) if fractions[k] > 0), key=lambda k: (-fractions[k], k))
    entries: list[tuple[str, float, Color | None]] = [(names[k], float(fractions[k]), palette[k]) for k in present]
    if (rest := 1 - sum(float(share) for share in fractions)) > 0.0005:
        entries.append(("ignored", rest, None))
    legend = _legend(entries, top.width, size=text_size or _text_size(top), numbers=numbers)
    result = Image.new("RGB", (max(top.width, legend.width), top.height + legend.height), PAPER)
    result.paste(top, (0, 0))
    result.paste(legend, (0, top.height))
    return result


def side_by_side(pictures: Sequence[tuple[str, Picture]]) -> Image.Image:
    """One row of pictures, each under its title.

    Raises:
        UserError: no picture.
    """
    return contact_sheet([[picture for _, picture in pictures]], titles=[title for title, _ in pictures])


def contact_sheet(
    rows: Sequence[Sequence[Picture]],
    *,
    titles: Sequence[str] = (),
    captions: Sequence[str] = (),
    text_size: int | None = None,
) -> Image.Image:
    """A table of pictures. Small pictures are enlarged by one whole factor.

    Args:
        titles: stand above the columns.
        captions: stand above the rows.
        text_size: height of the text in pixels. Default: what suits the first picture.

    Raises:
        UserError: no picture, more titles than columns, or more captions than rows.
    """
    table = [[_open(picture) for picture in row] for row in rows]
    columns = max((len(row) for row in table), default=0)
    if columns == 0:
        raise UserError("no pictures; give at least one")
    if len(titles) > columns:
        raise UserError(f"{len(titles)} titles for {columns} columns; give one per column, or none")
    if len(captions) > len(table):
        raise UserError(f"{len(captions)} captions for {len(table)} rows; give one per row, or none")
    factor = min(_enlargement(picture, READABLE_SIDE * 2 // 3) for row in table for picture in row)
    table = [[_scale(picture, factor) for picture in row] for row in table]
    size = text_size or _text_size(table[0][0])
    font = _font(size, "".join([*titles, *captions]))
    gap = max(4, size // 2)
    widths = [max(row[column].width for row in table if column < len(row)) for column in range(columns)]
    heights = [max((picture.height for picture in row), default=0) for row in table]
    head, above = 2 * size if titles else gap, 2 * size if captions else 0
    height = head + sum(heights) + (gap + above) * len(heights)
    sheet = Image.new("RGB", (sum(widths) + gap * (columns + 1), height), PAPER)
    draw = ImageDraw.Draw(sheet)
    lefts = [gap + sum(widths[:column]) + gap * column for column in range(columns)]
    for left, width, title in zip(lefts, widths, titles, strict=False):
        draw.text((left, head / 2), _fit(title, font, width), fill=INK, font=font, anchor="lm")
    y = head
    captions = [*captions, *[""] * (len(table) - len(captions))]
    for row, height, caption in zip(table, heights, captions, strict=True):
        draw.text((gap, y + above / 2), _fit(caption, font, sheet.width - 2 * gap), fill=INK, font=font, anchor="lm")
        y += above
        for left, picture in zip(lefts, row, strict=False):
            sheet.paste(picture, (left, y))
        y += height + gap
    return sheet


def save_index_png(labels: Labels, palette: Sequence[Color], path: Path) -> None:
    """Write class indices as a PNG: 8 bits with the palette up to 255 classes, 16-bit grey above.

    Ignored pixels become 255 (black in the palette) or, in 16 bits, 65535.

    Raises:
        UserError: a label that is neither a class nor ignored.
    """
    index = _class_index(labels, len(palette))
    ignored = index == len(palette)
    if len(palette) > IGNORE_INDEX:
        Image.fromarray(np.where(ignored, IGNORED_16_BIT, index).astype(np.uint16)).save(path, format="PNG")
        return
    picture = Image.fromarray(np.where(ignored, IGNORE_INDEX, index).astype(np.uint8))
    colors = np.zeros((IGNORE_INDEX + 1 if ignored.any() else len(palette), 3), dtype=np.uint8)
    colors[: len(palette)] = palette
    picture.putpalette(colors.tobytes())  # turns the grey image into one of indices
    picture.save(path, format="PNG", bits=8)


def _class_index(labels: Labels, num_classes: int) -> npt.NDArray[np.intp]:
    """Labels with every ignored pixel as K, (H, W)."""
    if labels.ndim != 2 or labels.size == 0:
        raise UserError(f"labels are {labels.shape}; give one label map (H, W)")
    index = labels.astype(np.intp)
    ignored = (index == -1) | ((index == IGNORE_INDEX) & (num_classes <= IGNORE_INDEX))
    strange = ~ignored & ((index < 0) | (index >= num_classes))
    if strange.any():
        void = IGNORE_INDEX if num_classes <= IGNORE_INDEX else -1
        raise UserError(
            f"label {index[strange][0]} among {num_classes} classes; give 0..{num_classes - 1}, or {void} for ignored"
        )
    index[ignored] = num_classes
    return index


def _check_pair(image: Pixels, labels: Labels) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise UserError(
            f"the image is {image.dtype} {image.shape}; give uint8 (H, W, 3), such as image.permute(1, 2, 0).numpy()"
        )
    if image.shape[:2] != labels.shape:
        raise UserError(f"the image is {image.shape[:2]} and the labels are {labels.shape}; give maps of the same size")


def _mask(chosen: npt.NDArray[np.bool_]) -> Image.Image:
    return Image.fromarray(chosen.astype(np.uint8) * 255)


def _draw_contours(picture: Image.Image, index: npt.NDArray[np.intp], num_classes: int) -> None:
    """Lines where two classes meet, drawn into `picture`; about a 900th of the longer side wide.

    A pixel is the thinnest line there is: on smaller images it fades instead, or it would hide thin objects.
    """
    edge = np.zeros(index.shape, dtype=bool)
    labelled = index < num_classes
    edge[:, :-1] |= (index[:, :-1] != index[:, 1:]) & labelled[:, :-1] & labelled[:, 1:]
    edge[:-1] |= (index[:-1] != index[1:]) & labelled[:-1] & labelled[1:]
    width = max(index.shape) / 900
    strength = 0.85 * min(1.0, width)
    core = _mask(edge)
    if (side := 2 * (round(width) // 2) + 1) > 1:  # Pillow 12.3 crashes on a filter of side 1
        core = core.filter(ImageFilter.MaxFilter(side))
    halo = core.filter(ImageFilter.MaxFilter(3))
    picture.paste((0, 0, 0), (0, 0), halo.point(lambda value: round(value * 0.4 * strength)))
    picture.paste(PAPER, (0, 0), core.point(lambda value: round(value * strength)))


def _open(picture: Picture) -> Image.Image:
    return (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).convert("RGB")


def _enlargement(picture: Image.Image, side: int) -> int:
    """The least whole factor that brings the longer side to `side` pixels."""
    return math.ceil(side / max(picture.size))


def _scale(picture: Image.Image, factor: int) -> Image.Image:
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _text_size(picture: Image.Image) -> int:
    """Height of text in pixels that suits a picture."""
    return max(14, round(math.sqrt(picture.width * picture.height) / 48))


def _font(size: int, text: str) -> Font:
    """Pillow's own font where its ASCII will do, else matplotlib's DejaVu Sans: Latin, Greek, Cyrillic and more."""
    if text.isascii():
        return ImageFont.load_default(size)
    from matplotlib import get_data_path

    return ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _fit(text: str, font: Font, width: float) -> str:
    """The text on one line, cut with an ellipsis where it is wider than `width` pixels."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _legend(entries: Sequence[tuple[str, float, Color | None]], width: int, *, size: int, numbers: bool) -> Image.Image:
    """A strip of chips, names and shares in as many columns as `width` pixels hold; no colour means ignored."""
    font = _font(size, "".join(name for name, _, _ in entries))
    chip, gap = round(size * 1.1), round(size * 0.5)
    told = [("< 0.1 %" if share < 0.0005 else f"{100 * share:.1f} %") if numbers else "" for _, share, _ in entries]
    limit = max(width, 14 * size) - chip - 4 * gap - font.getlength("100.0 %")
    names = [_fit(name, font, limit) for name, _, _ in entries]
    lengths = [font.getlength(name) for name in names]
    texts = [length + gap + font.getlength(number) for length, number in zip(lengths, told, strict=True)]
    pitch = math.ceil(chip + 3.5 * gap + max(texts, default=0))
    columns = max(1, (width + gap // 2) // pitch)  # the last column needs no gap behind it
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
