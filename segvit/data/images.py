"""Open image files of any kind that Pillow reads, as 8-bit RGB and upright, and report files that cannot be read.

picture = read_image(Path("photo.jpg"))
"""

import base64
import json
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError, features

from segvit.data.frames import check_image
from segvit.data.member import File, Member
from segvit.errors import UserError
from segvit.utils.files import expanded

HEIF_SUFFIXES = (".heic", ".heif", ".hif")
"""Suffixes of the photos of phones that Pillow reads only with pillow-heif, the extra `heic`."""
DICOM_SUFFIXES = (".dcm", ".dicom")
"""Suffixes of medical images, which are read with pydicom, the extra `dicom`."""
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff"),
    *(".gif", ".jp2", ".j2k", ".jpx", ".avif", ".ppm", ".pgm", ".pnm", ".tga"),
    *HEIF_SUFFIXES,
    *DICOM_SUFFIXES,
)
"""Suffixes by which folders are searched for images."""
LOSSLESS_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
"""Suffixes of pictures that keep every pixel value, so that label maps may have them."""
EMBEDDING = ".json"
"""Suffix of LabelMe's files, which may hold the image itself."""
LOSSY_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
"""Suffixes of pictures whose compression changes pixel values."""
SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")
"""Pillow's modes with one wide channel (older versions open 16-bit PNGs as "I")."""
TURNED = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""

NO_LIMIT = 2**62
"""Limit of Pillow's pixels that no file reaches. Other threads compute with the global meanwhile, so it is not None."""
_OPENING = threading.Lock()
"""Held while Pillow's limit of pixels is lifted."""

Source = str | Path | Image.Image | npt.NDArray[Any]
"""A photo as users give it to `segvit.predict` and `segvit.pictures.look`: a file, a PIL image or an array."""


class Unreadable(UserError):
    """Error of one file that is missing, damaged or of the wrong kind, while other files may be fine."""


def read_image(path: File) -> Image.Image:
    """Read the image in `path` as 8-bit RGB, with its EXIF orientation applied.

    16-bit grey is scaled from 0..65535 to 0..255. Transparency is shown over white, as in a viewer. Palettes, grey,
    CMYK and other colour spaces are converted. Of an animation, the first frame is read.

    Raises:
        UserError: the file does not exist, is not an image, is damaged or truncated, has several pages, or has
            floating-point pixels.
    """
    with open_picture(path, "an image") as opened:
        check_image(opened, str(path))
        opened.load()
        return as_rgb(opened, name=str(path))


@contextmanager
def open_picture(path: File, what: str) -> Iterator[Image.Image]:
    """Open a picture of the user's own, of any number of pixels. `what` is the kind of picture that it should be.

    Raises:
        Unreadable: the file, or something inside the block, could not be read.
    """
    with reading(path, what):
        if path.suffix.lower() in HEIF_SUFFIXES:
            take_heif()
        with open_unlimited(embedded_image(path) if is_embedding(path) else path) as opened:
            yield opened


def is_embedding(path: File) -> TypeGuard[Path]:
    """True for a JSON file, which may hold an image."""
    return isinstance(path, Path) and path.suffix.lower() == EMBEDDING


def embedded_image(path: Path) -> BytesIO:
    """Return the image inside a JSON file of LabelMe, which has it as base64 under `imageData`.

    Raises:
        ValueError: the file is not JSON, or has no such image.
    """
    content = json.loads(path.read_bytes())
    data = content.get("imageData") if isinstance(content, dict) else None
    if not isinstance(data, str):
        raise ValueError("there is no `imageData` in it")
    return BytesIO(base64.b64decode(data, validate=True))


def open_unlimited(source: File | BinaryIO, *, formats: list[str] | None = None) -> Image.Image:
    """Open a picture of any number of pixels, as `PIL.Image.open` does. Its errors are Pillow's.

    Args:
        source: file.
        formats: Pillow's names of the formats to try. Default: all.
    """
    if isinstance(source, Member):
        source = source.open()
    with _OPENING:  # Pillow checks its limit only here, and has it as a global
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, NO_LIMIT
        try:
            return Image.open(source, formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def take_heif() -> None:
    """Let Pillow read the photos of phones, if the extra `heic` is installed."""
    if find_spec("pillow_heif"):
        from pillow_heif import register_heif_opener

        register_heif_opener()


def lacking(suffix: str) -> str | None:
    """Return what is missing to read files with this suffix, and what to type, or None if they can be read."""
    if suffix.lower() in HEIF_SUFFIXES and not find_spec("pillow_heif"):
        return "HEIC photos need pillow-heif; type `pip install 'segvit[heic]'`, or export them as JPEG"
    if suffix.lower() in DICOM_SUFFIXES and not find_spec("pydicom"):
        return "DICOM images need pydicom; type `pip install 'segvit[dicom]'`, or export them as PNG"
    if suffix.lower() == ".avif" and not features.check("avif"):
        return "AVIF photos need a newer Pillow; type `pip install -U pillow`, or export them as JPEG"
    return None


def as_rgb(image: Image.Image, *, name: str) -> Image.Image:
    """Convert an open image as `read_image` does. `name` is the name of the image in error texts.

    Raises:
        UserError: the pixels are floating-point numbers, or grey beyond 16 bits.
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
    """Return the image with its EXIF orientation applied, and without a copy if it has none."""
    return ImageOps.exif_transpose(image) if image.getexif().get(ExifTags.Base.Orientation, 1) != 1 else image


def read_size(path: File) -> tuple[int, int]:
    """Read the height and width of an image as displayed, from its header alone.

    Raises:
        UserError: the file does not exist or is not an image.
    """
    with open_picture(path, "an image") as opened:
        return size_of(opened)


def read_frames(path: File) -> int:
    """Read the number of frames of an image, of which `read_image` reads the first, from its header alone.

    Raises:
        UserError: the file does not exist or is not an image, or it is a TIFF of several pages.
    """
    with open_picture(path, "an image") as opened:
        return check_image(opened, str(path))


def size_of(picture: Image.Image) -> tuple[int, int]:
    """Return the height and width of an open picture as displayed."""
    width, height = picture.size
    return (width, height) if orientation_of(picture) in TURNED else (height, width)


def read_orientation(path: File) -> int:
    """Read the EXIF orientation of a picture, 1 to 8. A picture without one has 1.

    Raises:
        UserError: the file does not exist or is not an image.
    """
    with open_picture(path, "an image") as opened:
        return orientation_of(opened)


def orientation_of(picture: Image.Image) -> int:
    """Return the EXIF orientation of an open picture, and 1 for other numbers (some cameras write 0)."""
    found = picture.getexif().get(ExifTags.Base.Orientation, 1)
    return int(found) if found in range(1, 9) else 1


@contextmanager
def reading(path: File, what: str) -> Iterator[None]:
    """Turn any error of Pillow on a bad file into an `Unreadable` that names the file and `what` it should be.

    Raises:
        Unreadable: something inside the block could not be read.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise Unreadable(f"{path}: no such file") from None
    except UnidentifiedImageError as error:
        remedy = lacking(path.suffix) or "replace or remove the file"
        raise Unreadable(f"{path}: cannot be read as {what} (its format is not known); {remedy}") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise Unreadable(f"{path}: cannot be read as {what} ({error}); replace or remove the file") from error


def to_rgb(source: Source) -> npt.NDArray[np.uint8]:
    """Return any source as uint8 (H, W, 3).

    Raises:
        UserError: a file that cannot be read, an array that is no photo, or something else.
    """
    if isinstance(source, str | Path):
        path = photo_file(source)
        if (frames := read_frames(path)) > 1:
            warnings.warn(f"{path}: an animation of {frames} frames, of which the first is read", stacklevel=3)
        return np.asarray(read_image(path))
    if isinstance(source, Image.Image):
        return np.asarray(as_rgb(source, name="the image given"))
    if isinstance(source, np.ndarray):
        return _array_to_rgb(source)
    raise UserError(
        f'a photo cannot be of type {type(source).__name__}: give a file such as "photo.jpg", a PIL image, an array '
        "(H, W, 3), or a list of these"
    )


def photo_file(source: str | Path) -> Path:
    """Return the path of a photo, and refuse what no photo can be.

    Raises:
        UserError: an address, or a folder.
    """
    path = Path(expanded(source))
    if "://" in str(source):
        raise UserError(f"{source} is an address: download it, and give the file")
    if path.is_dir():
        raise UserError(
            f'{path} is a folder: give its photos, as in sorted(Path("{path}").glob("*.jpg")), or type '
            f"`segvit predict MODEL {path} --output seen`"
        )
    return path


def _array_to_rgb(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return an array of a photo as uint8 (H, W, 3). Transparency is shown over white.

    Raises:
        UserError: another shape or type, or floats outside 0..1.
    """
    found = f"an array of {array.dtype} {array.shape}"
    wanted = "expected uint8 (H, W, 3) RGB or (H, W) grey; give array.astype('uint8') if its values are in 0..255"
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in array.shape:
        swap = ", and array.transpose(1, 2, 0) if its channels come first" if array.ndim == 3 else ""
        raise UserError(f"{found}: {wanted}{swap}{', and list(array) for several photos' if array.ndim == 4 else ''}")
    if array.dtype.kind == "f":
        low, high = array.min(), array.max()
        if not (low >= 0 and high <= 1):
            raise UserError(
                f"{found} with values {low:.4g} to {high:.4g}: {wanted}. Floats must be in 0..1 and not normalised: "
                "the model normalises them"
            )
        array = (array * 255).round().astype(np.uint8)
    if array.dtype != np.uint8:
        raise UserError(f"{found}: {wanted}")
    if channels == 4:
        return np.asarray(as_rgb(Image.fromarray(array), name="the array given"))
    return array if channels == 3 else np.stack([array.reshape(array.shape[:2])] * 3, axis=2)
