"""Decode image files at their full bit depth: 8 or 16 bits, or floats, of any number of bands.

    values = decode(path, header)       # (H, W, C) uint8, uint16, float32, ...

Pillow decodes RGB of 16 bits to the upper byte of each value. Decoding once more with the opposite byte order gives the
lower byte, so no further package is needed. Other band counts of TIFF files, and colours of 16 bits in JPEG 2000 files,
need rasterio, the extra `geo`.
"""

import io
import sys
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from segvit.data.bands.header import Form, Header
from segvit.data.bands.pnm import read_pnm
from segvit.data.images import SIXTEEN_BIT, Unreadable, open_unlimited, read_orientation, reading
from segvit.data.member import File
from segvit.errors import UserError
from segvit.utils.optional import need

OPPOSITE = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}
"""Opposite of each byte order in Pillow's names of raw modes."""
MODES = ("1", "L", "RGB", "RGBA", "RGBX", "LA", "F", *SIXTEEN_BIT)
"""Pillow's modes whose channels are the file's."""
DRIVERS: dict[Form, str] = {"TIFF": "GTiff", "JPEG 2000": "JP2OpenJPEG"}
"""GDAL's names of the formats that rasterio reads."""
Window = tuple[tuple[int, int], tuple[int, int]]
"""First row and the one after the last, and the same for columns."""
TURNS: dict[int, tuple[bool, bool, bool]] = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
"""Steps that undo each EXIF orientation: transpose, then flip rows, then flip columns."""


def decode(path: File, header: Header) -> npt.NDArray[Any]:
    """Decode a file to (H, W, C), C channels with transparency if there is any, upright.

    Raises:
        UserError: the file is damaged, or needs rasterio, which is not installed.
    """
    check_encoding(path, header)
    with reading(path, "an image"):
        values = _values(path, header)
        if header.form == "PNG":
            values = turned(values, read_orientation(path))
    return np.ascontiguousarray(values)


def decode_mask(path: File, header: Header) -> npt.NDArray[np.bool_] | None:
    """Return the pixels (H, W) that a mask inside a TIFF file hides, upright. None: it has no mask.

    Raises:
        UserError: the file is damaged, or rasterio is not installed.
    """
    if not header.masked:
        return None
    with open_rasterio(path, header.form) as source:
        found = hidden(source)
    return None if found is None else turned(found, header.orientation)


def hidden(source: Any, window: Window | None = None) -> npt.NDArray[np.bool_] | None:
    """Return the pixels (y, x) of an open raster, or of a window, that its mask hides. None: it has no mask.

    Transparency and nodata are no mask: they are part of the values.
    """
    if not has_mask(source):
        return None
    found: npt.NDArray[np.bool_] = source.read_masks(1, window=window) == 0
    return found


def has_mask(source: Any) -> bool:
    """True if an open raster has a mask of its own, in the file or beside it."""
    kinds = {kind.name for kind in source.mask_flag_enums[0]}
    return "per_dataset" in kinds and "alpha" not in kinds


def _values(path: File, header: Header) -> npt.NDArray[Any]:
    """Decode the channels of a file by the reader that gives every bit of them."""
    if header.form == "PNM":
        return read_pnm(path)
    if header.form == "PNG" and header.bits == 16 and header.channels == 2:
        return _grey_and_alpha(path)
    values = _by_pillow(path, header)
    if values is not None:
        return values
    if header.form == "PNG":
        raise Unreadable(f"{path}: a PNG of this kind cannot be read as bands; save it as grey or RGB of 8 or 16 bits")
    return _by_rasterio(path, header)


def _grey_and_alpha(path: File) -> npt.NDArray[np.uint16]:
    """Decode a PNG of grey and transparency of 16 bits, of which Pillow reads the upper bytes alone.

    Its four bytes a pixel are those of red, green, blue and transparency of 8 bits, so the header is changed to that.
    """
    with path.open("rb") as file:
        content = bytearray(file.read())
    content[24:26] = bytes((8, 6))  # bits, and the colour type
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    with open_unlimited(io.BytesIO(bytes(content))) as opened:
        picture = np.asarray(opened).astype(np.uint16)
    values: npt.NDArray[np.uint16] = picture[..., ::2] << np.uint16(8) | picture[..., 1::2]
    return values


def check_encoding(path: File, header: Header) -> None:
    """Refuse a file whose channels are not bands.

    Raises:
        UserError: it holds a palette or CMYK.
    """
    if header.encoding != "direct":
        raise Unreadable(
            f"{path}: a {header.encoding} picture cannot be read as bands; save it as RGB (in Python, "
            "`Image.open(FILE).convert('RGB').save(FILE)`; for a GeoTIFF, `gdal_translate -expand rgb`)"
        )


def expand(values: npt.NDArray[Any], bits: int) -> npt.NDArray[Any]:
    """Return values (...) of fewer than 8 bits on the scale 0..255. Others are unchanged."""
    return values if bits >= 8 else values.astype(np.uint8) * np.uint8(255 // (2**bits - 1))


def turned(values: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Apply an EXIF orientation to (H, W, ...)."""
    transpose, rows, columns = TURNS[orientation]
    values = values.swapaxes(0, 1) if transpose else values
    values = values[::-1] if rows else values
    return values[:, ::-1] if columns else values


def _by_pillow(path: File, header: Header) -> npt.NDArray[Any] | None:
    """Decode a file by Pillow; None if Pillow cannot give every bit of every band."""
    if header.channels > 4 or header.bits > 32 or (header.tiff and header.bits not in (1, 8, 16, 32)):
        return None
    if header.bits == 32 and header.kind != "float":
        return None
    if header.form == "JPEG 2000" and (header.channels > 1 or header.kind == "signed"):
        return None
    try:
        with open_unlimited(path) as opened:
            raw_mode = _raw_mode(opened)
            if opened.mode not in MODES:
                return None
            opened.load()
            values = np.atleast_3d(np.asarray(opened.convert("L") if opened.mode == "1" else opened))
    except UnidentifiedImageError:
        if header.tiff:
            return None
        raise
    if header.form == "JPEG 2000":
        return values.astype(np.uint16) >> (16 - header.bits)  # Pillow scales them to 16 bits
    if header.bits != 16 or opened.mode in SIXTEEN_BIT:
        return values.astype(np.uint16) if header.bits == 16 and header.kind == "unsigned" else values
    if ";16" not in raw_mode or header.kind != "unsigned" or values.shape[2] != header.channels:
        return None
    with open_unlimited(path) as opened:
        assert isinstance(opened, ImageFile)
        opened.tile = [tile._replace(args=_opposite(tile.args)) for tile in opened.tile]
        opened.load()
        low = np.atleast_3d(np.asarray(opened))
    whole: npt.NDArray[Any] = values.astype(np.uint16) << 8 | low
    return whole


def _raw_mode(opened: Image.Image) -> str:
    """Return Pillow's raw mode of an open file: the order of its bytes."""
    tiles = getattr(opened, "tile", [])
    if not tiles:
        return ""
    args = tiles[0].args
    return str(args[0] if isinstance(args, tuple) else args)


def _opposite(args: Any) -> Any:
    """Return the arguments of a decoder with the opposite byte order."""
    mode = args[0] if isinstance(args, tuple) else args
    changed = mode[:-1] + OPPOSITE[mode[-1]]
    return (changed, *args[1:]) if isinstance(args, tuple) else changed


def _by_rasterio(path: File, header: Header) -> npt.NDArray[Any]:
    """Decode every band of a file by rasterio."""
    with open_rasterio(path, header.form) as source:
        values: npt.NDArray[Any] = source.read()
    values = expand(values, header.bits).transpose(1, 2, 0)
    return turned(values, header.orientation)  # Pillow does so by itself


def has_rasterio() -> bool:
    """True if the extra `geo` is installed."""
    return find_spec("rasterio") is not None


def need_rasterio(user: str) -> Any:
    """Import rasterio, and silence its warning about files without a position on a map.

    Several threads read files, so the warning is silenced once for the process.

    Args:
        user: what needs it, in the error text.

    Raises:
        UserError: rasterio is missing.
    """
    rasterio = need("rasterio", user, extra="geo")
    silence(rasterio.errors.NotGeoreferencedWarning)
    return rasterio


@cache
def silence(category: type[Warning]) -> None:
    """Ignore a kind of warnings from now on."""
    warnings.simplefilter("ignore", category)


@contextmanager
def open_rasterio(path: File, form: Form = "TIFF") -> Iterator[Any]:
    """Open a TIFF or JPEG 2000 file by rasterio, for reading alone.

    Raises:
        UserError: rasterio is missing, or cannot read the file.
    """
    rasterio = need_rasterio(f"{path}: {form} files of this band count or depth, or with a mask,")
    try:
        source = rasterio.open(path if isinstance(path, Path) else path.open(), driver=DRIVERS[form])
    except rasterio.errors.RasterioError as error:
        raise Unreadable(f"{path}: cannot be read as a {form} file ({error}); replace or remove the file") from error
    with source:
        try:
            yield source
        except UserError:
            raise
        except rasterio.errors.RasterioError as error:
            raise Unreadable(
                f"{path}: cannot be read as a {form} file ({error}); replace or remove the file"
            ) from error
