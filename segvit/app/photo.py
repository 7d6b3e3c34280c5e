"""Open a photo that a visitor sent, within the limits of the page.

photo = open_photo(path, name="scene.jpg", limits=Limits(max_megapixels=12))

A file is judged by its header before any pixel is decoded: a few kB can hold a picture of gigabytes.
"""

import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from segvit.app.limits import MEGA, MEGABYTE, Limits
from segvit.data.images import Unreadable, as_rgb, reading
from segvit.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")
"""Pillow's names of what is decoded; others, such as PostScript, run programs or are seldom tried by attackers."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif")
HEADS = {
    b"<svg": "is a drawing (SVG), which has no pixels: export it as PNG first",
    b"<?xml": "is a drawing or another XML file, which has no pixels: export it as PNG first",
    b"%PDF": "is a PDF: export the page as PNG first",
    b"ftypheic": "is HEIC: set the camera to JPEG, or export the picture as JPEG first",
    b"ftypmif1": "is HEIF: set the camera to JPEG, or export the picture as JPEG first",
}
"""What common files that are no photo begin with, and what to do about them."""
STUMBLES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    zlib.error,
)
"""What decoders raise beside the OSError and ValueError that `reading` knows, on files made to trip them."""


class Photo(NamedTuple):
    """A photo as it is labelled."""

    image: Image.Image
    """8-bit RGB, upright."""
    notes: list[str]
    """What a visitor should know of how it was read."""


def open_photo(path: Path, *, name: str, limits: Limits) -> Photo:
    """The photo in a file, as `segvit predict` reads it.

    Args:
        path: of the file.
        name: what error texts call it: visitors need not know where it lies.
        limits: of bytes and pixels.

    Raises:
        UserError: too large, no photo, damaged, or cut short.
    """
    _check_bytes(path, name, limits)
    with _decoding(path, name, limits), Image.open(path, formats=_formats()) as opened:
        width, height = opened.size
        if width * height > limits.max_megapixels * MEGA:
            raise _too_many(name, width * height, limits)
        notes = []
        if getattr(opened, "is_animated", False):
            notes.append(f"Of the {getattr(opened, 'n_frames', 'several')} frames of {name}, this is the first.")
        opened.load()
        return Photo(as_rgb(opened, name=name), notes)


@contextmanager
def _decoding(path: Path, name: str, limits: Limits) -> Iterator[None]:
    """Turn whatever a decoder raises into an `Unreadable` that says what is wrong with the file."""
    with reading(Path(name), "an image"):
        try:
            yield
        except UnidentifiedImageError:
            raise Unreadable(f"{name} {_what_it_is(path)}") from None
        except Image.DecompressionBombError as error:
            raise _too_many(name, re.findall(r"\d+", str(error))[0], limits) from error  # it tells nothing else
        except STUMBLES as error:
            raise Unreadable(f"{name}: damaged ({type(error).__name__}: {error}); save or fetch it again") from error


def _too_many(name: str, pixels: int | str, limits: Limits) -> Unreadable:
    """Why a picture is too large to be decoded."""
    return Unreadable(
        f"{name} has {int(pixels) / MEGA:.1f} megapixels, and {limits.max_megapixels:g} are the most: shrink it first"
    )


def _check_bytes(path: Path, name: str, limits: Limits) -> None:
    """Refuse a file that is empty, gone or too large."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"{name} is no longer kept here: send it again") from error
    if size == 0:
        raise Unreadable(f"{name} is empty (0 bytes): save or fetch it again")
    if size > limits.bytes:
        raise UserError(f"{name} has {size / MEGABYTE:.1f} MB, and {limits.max_megabytes:g} MB are the most: shrink it")


def _formats() -> list[str]:
    """Those of FORMATS that this Pillow knows."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _what_it_is(path: Path) -> str:
    """Why a file is no photo."""
    with path.open("rb") as file:
        head = file.read(256)
    for sign, reason in HEADS.items():
        if sign in head:
            return reason
    return f"is no photo that can be read: give {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
