"""Text in pictures made of pixels, and pictures enlarged so that text beside them can be read.

Only names outside ASCII need matplotlib, for its font.
"""

import math
from pathlib import Path

from PIL import Image, ImageFont

from segvit.pictures.paint import Pixels

Picture = Image.Image | Pixels
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

PAPER = (255, 255, 255)
INK = (34, 34, 34)
FAINT_INK = (120, 120, 120)
READABLE_SIDE = 480
"""Longer side in pixels below which a picture is enlarged before text is written beside it."""


def as_picture(picture: Picture) -> Image.Image:
    """A PIL image or pixels (H, W, 3) as a PIL image in RGB."""
    return (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).convert("RGB")


def enlargement(picture: Image.Image, side: int) -> int:
    """The least whole factor that brings the longer side to `side` pixels."""
    return math.ceil(side / max(picture.size))


def enlarge(picture: Image.Image, factor: int) -> Image.Image:
    """Each pixel as a square of `factor` pixels a side."""
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def text_size_for(picture: Image.Image) -> int:
    """Height of text in pixels that suits a picture."""
    return max(14, round(math.sqrt(picture.width * picture.height) / 48))


def font_for(size: int, text: str) -> Font:
    """Pillow's own font where its ASCII will do, else matplotlib's DejaVu Sans: Latin, Greek, Cyrillic and more."""
    if text.isascii():
        return ImageFont.load_default(size)
    from matplotlib import get_data_path

    return ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def fit(text: str, font: Font, width: float) -> str:
    """The text on one line, cut with an ellipsis where it is wider than `width` pixels."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
