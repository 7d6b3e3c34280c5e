"""The font of text in raster pictures, and enlarging small pictures so that such text is readable.

The font is DejaVu Sans, as in figures: matplotlib installs it. matplotlib itself is not imported.
"""

import functools
import importlib.util
import math
from pathlib import Path

from PIL import Image, ImageFont

from segvit.pictures.paint import Pixels

Picture = Image.Image | Pixels

PAPER = (255, 255, 255)
INK = (34, 34, 34)
FAINT_INK = (120, 120, 120)
READABLE_SIDE = 480
"""Minimum longer side in pixels of a picture with text. Smaller pictures are enlarged first."""


def as_picture(picture: Picture) -> Image.Image:
    """Convert a PIL image or an array (H, W, 3) to a PIL image in RGB."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    return image if image.mode == "RGB" else image.convert("RGB")


def enlargement(picture: Image.Image, side: int) -> int:
    """Return the smallest whole factor that brings the longer side to `side` pixels or more."""
    return math.ceil(side / max(picture.size))


def enlarge(picture: Image.Image, factor: int) -> Image.Image:
    """Enlarge a picture by a whole factor without interpolation. A factor of 1 returns the picture itself."""
    if factor == 1:
        return picture
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def text_size_for(picture: Image.Image) -> int:
    """Return a text height in pixels that suits the size of the picture."""
    return max(14, round(math.sqrt(picture.width * picture.height) / 48))


@functools.cache
def font_for(size: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which has Latin, Greek, Cyrillic and more."""
    found = importlib.util.find_spec("matplotlib")
    assert found is not None and found.submodule_search_locations
    folder = Path(next(iter(found.submodule_search_locations)))
    return ImageFont.truetype(folder / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def fit(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Return the text on one line, shortened with an ellipsis if it is wider than `width` pixels."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
