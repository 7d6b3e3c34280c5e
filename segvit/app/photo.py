"""Open a photo that a visitor sent, within the limits of the page.

photo = open_photo(path, name="scene.jpg", limits=Limits(max_megapixels=12))

The size is checked in the header before any pixel is decoded: a file of a few kB can hold a picture of gigabytes.
"""

import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from segvit.app.limits import MEGA, MEGABYTE, Limits
from segvit.data.frames import check_image
from segvit.data.images import HEIF_SUFFIXES, Unreadable, as_rgb, lacking, reading, take_heif
from segvit.errors import UserError

FORMATS = {
    "JPEG": "JPEG",
    "PNG": "PNG",
    "WEBP": "WebP",
    "TIFF": "TIFF",
    "GIF": "GIF",
    "BMP": "BMP",
    "AVIF": "AVIF",
    "HEIF": "HEIC",
}
"""Pillow's names of the accepted formats, each with the usual name, which is also a suffix.

Other formats run programs (PostScript) or have decoders that few people test.
"""
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", *HEIF_SUFFIXES)
"""Suffixes that a browser offers. HEIC is always among them, so that its error can say what to install."""
HEADS = {
    b"<svg": "is a drawing (SVG), which has no pixels: export it as PNG first",
    b"<?xml": "is a drawing or another XML file, which has no pixels: export it as PNG first",
    b"%PDF": "is a PDF: export the page as PNG first",
}
"""First bytes of common files that are no photos, and what to do about each."""
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""Kinds of HEIC that a file names in its bytes 8 to 12."""
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
"""Errors that decoders raise on hostile files, besides the OSError and ValueError that `reading` handles."""


class Photo(NamedTuple):
    """A decoded photo."""

    image: Image.Image
    """8-bit RGB, upright."""
    notes: list[str]
    """Remarks for the visitor on how the photo was read."""


def formats_told() -> str:
    """Return the formats that are read with the packages installed here, in words: "JPEG, PNG or WebP"."""
    *most, last = [name for name in FORMATS.values() if lacking(f".{name.lower()}") is None]
    return f"{', '.join(most)} or {last}"


def open_photo(path: Path, *, name: str, limits: Limits) -> Photo:
    """Open the photo in a file, as `segvit predict` reads it.

    Args:
        path: the file.
        name: name in error texts, since visitors need not see the path.
        limits: limits of bytes and pixels.

    Raises:
        UserError: the file is too large, no photo, damaged, cut short, or a TIFF of several pages.
    """
    _check_bytes(path, name, limits)
    with _decoding(path, name, limits), Image.open(path, formats=_formats()) as opened:
        width, height = opened.size
        if width * height > limits.max_megapixels * MEGA:
            raise _too_many(name, width * height, limits)
        frames = check_image(opened, name)
        notes = [f"Of the {frames} frames of {name}, this is the first."] if frames > 1 else []
        opened.load()
        return Photo(as_rgb(opened, name=name), notes)


@contextmanager
def _decoding(path: Path, name: str, limits: Limits) -> Iterator[None]:
    """Turn whatever a decoder raises into an `Unreadable` that describes what is wrong with the file."""
    with reading(Path(name), "an image"):
        try:
            yield
        except UnidentifiedImageError:
            raise Unreadable(f"{name} {_what_it_is(path)}") from None
        except Image.DecompressionBombError as error:
            raise _too_many(name, re.findall(r"\d+", str(error))[0], limits) from error  # its text is our only source
        except STUMBLES as error:
            raise Unreadable(f"{name}: damaged ({type(error).__name__}: {error}); save or fetch it again") from error


def _too_many(name: str, pixels: int | str, limits: Limits) -> Unreadable:
    """Return the error for a picture with too many pixels."""
    return Unreadable(
        f"{name} has {int(pixels) / MEGA:.1f} megapixels; the limit is {limits.max_megapixels:g}: shrink it first"
    )


def _check_bytes(path: Path, name: str, limits: Limits) -> None:
    """Refuse a file that is empty, gone or too large."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"{name} has been deleted from this server: send it again") from error
    if size == 0:
        raise Unreadable(f"{name} is empty (0 bytes): save or fetch it again")
    if size > limits.bytes:
        raise UserError(f"{name} has {size / MEGABYTE:.1f} MB; the limit is {limits.max_megabytes:g} MB: shrink it")


def _formats() -> list[str]:
    """Return those of FORMATS that the installed packages can read."""
    take_heif()
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _what_it_is(path: Path) -> str:
    """Describe a file that is no photo."""
    with path.open("rb") as file:
        head = file.read(256)
    for sign, reason in HEADS.items():
        if sign in head:
            return reason
    if head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS:
        missing = lacking(HEIF_SUFFIXES[0])
        return f"cannot be read here: {missing}" if missing else "is HEIC, but damaged: save or fetch it again"
    return f"is not a photo that can be read: give {formats_told()}"
