"""Images on disk: open any kind that Pillow reads as 8-bit RGB, upright, and report the files that cannot be read.

picture = read_image(Path("photo.jpg"))
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps

from segvit.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
LOSSLESS_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
"""Suffixes of pictures that keep every pixel value: those that label maps may have."""
LOSSY_SUFFIXES = (".jpg", ".jpeg")
"""Of pictures whose values are not those that were saved."""
SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")
"""Pillow's modes of one wide channel ("I" is how older versions open 16-bit PNGs)."""
TURNED = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""

Source = str | Path | Image.Image | npt.NDArray[np.uint8]
"""A photo as users give it to `segvit.predict` and `segvit.pictures.look`: a file, a PIL image or an array."""


class Unreadable(UserError):
    """A file that cannot be read as what it should be: the fault of this one alone."""


def read_image(path: Path) -> Image.Image:
    """The image in `path` as 8-bit RGB, turned as its EXIF orientation says.

    16-bit grey is scaled from 0..65535 to 0..255; transparency is shown over white, as a viewer would; palette, grey,
    CMYK and other colour spaces are converted; of several frames the first is taken.

    Raises:
        UserError: no such file, no image, damaged or cut short, or floating-point pixels.
    """
    with reading(path, "an image"), Image.open(path) as opened:
        opened.load()
        return as_rgb(opened, name=str(path))


def as_rgb(image: Image.Image, *, name: str) -> Image.Image:
    """An open image as `read_image` gives it; `name` is what error texts call it.

    Raises:
        UserError: floating-point pixels, or grey beyond 16 bits.
    """
    image = upright(image)
    if image.mode in SIXTEEN_BIT:
        wide = np.asarray(image).astype(np.int64)
        if wide.min() < 0 or wide.max() > 65_535:
            raise Unreadable(f"{name}: pixels reach {wide.min()}..{wide.max()}; save the image with 8 or 16 bits")
        return Image.fromarray(((wide * 255 + 32_767) // 65_535).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise Unreadable(f"{name}: pixels are floating-point numbers; save the image with 8 or 16 bits per channel")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF orientation says; itself where that says nothing, for Pillow would copy it."""
    return ImageOps.exif_transpose(image) if image.getexif().get(ExifTags.Base.Orientation, 1) != 1 else image


def read_size(path: Path) -> tuple[int, int]:
    """Height and width of an image as displayed, from its header alone.

    Raises:
        UserError: no such file, or no image.
    """
    with reading(path, "an image"), Image.open(path) as opened:
        width, height = opened.size
        turned = opened.getexif().get(ExifTags.Base.Orientation) in TURNED
    return (width, height) if turned else (height, width)


def read_orientation(path: Path) -> int:
    """EXIF orientation of a picture, 1 to 8; 1 where it has none."""
    with reading(path, "an image"), Image.open(path) as opened:
        return orientation_of(opened)


def orientation_of(picture: Image.Image) -> int:
    """The same of an open picture; other numbers (cameras write 0) turn nothing."""
    found = picture.getexif().get(ExifTags.Base.Orientation, 1)
    return int(found) if found in range(1, 9) else 1


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever Pillow raises on a bad file into an `Unreadable` that names the file and `what` it should be."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise Unreadable(f"{path}: no such file") from None
    except Image.DecompressionBombError as error:
        raise Unreadable(f"{path}: {error}; cut or shrink the picture first") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise Unreadable(f"{path}: cannot be read as {what} ({error}); mend it, fetch it again or remove it") from error


def to_rgb(source: Source) -> npt.NDArray[np.uint8]:
    """Return any source as uint8 (H, W, 3).

    Raises:
        UserError: a file that cannot be read, or an array that is not uint8 RGB or grey.
    """
    if isinstance(source, str | Path):
        return np.asarray(read_image(Path(source)))
    if isinstance(source, Image.Image):
        return np.asarray(as_rgb(source, name="the image given"))
    if source.dtype != np.uint8 or source.ndim not in (2, 3) or (source.ndim == 3 and source.shape[2] != 3):
        raise UserError(
            f"an array of {source.dtype} {source.shape}: expected uint8 (H, W, 3) RGB or (H, W) grey; "
            "for floats in 0..1 give (array * 255).astype('uint8')"
        )
    return np.stack([source] * 3, axis=2) if source.ndim == 2 else source
