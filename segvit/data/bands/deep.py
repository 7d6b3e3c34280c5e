"""Decode PNG and TIFF files at their full bit depth: 8 or 16 bits, or floats, of any number of bands.

    values = decode(path, header)       # (H, W, C) uint8, uint16, float32, ...

Pillow decodes RGB of 16 bits to the upper byte of each value. Decoding once more with the opposite byte order gives the
lower byte, so no further package is needed. Other band counts of TIFF files need rasterio, the extra `geo`.
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from segvit.data.bands.header import Header
from segvit.data.images import SIXTEEN_BIT, Unreadable, open_unlimited, reading
from segvit.data.member import File
from segvit.errors import UserError
from segvit.utils.optional import need

OPPOSITE = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}
"""Opposite of each byte order in Pillow's names of raw modes."""
MODES = ("1", "L", "RGB", "RGBA", "RGBX", "LA", "F", *SIXTEEN_BIT)
"""Pillow's modes whose channels are the file's."""
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
    """Decode a PNG or TIFF file to (H, W, C), C channels with transparency if there is any, upright.

    Raises:
        UserError: the file is damaged, or a TIFF file needs rasterio, which is not installed.
    """
    check_encoding(path, header)
    with reading(path, "an image"):
        values = _by_pillow(path, header)
        if values is None:
            values = _by_rasterio(path, header)
    return np.ascontiguousarray(values)


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
    """Decode every band of a TIFF file by rasterio."""
    with open_rasterio(path) as source:
        values: npt.NDArray[Any] = source.read()
    values = expand(values, header.bits).transpose(1, 2, 0)
    return turned(values, header.orientation)  # Pillow does so by itself


def has_rasterio() -> bool:
    """True if the extra `geo` is installed."""
    return find_spec("rasterio") is not None


@contextmanager
def quiet(rasterio: Any) -> Iterator[None]:
    """Silence rasterio's warning about files without a position on a map."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        yield


@contextmanager
def open_rasterio(path: File) -> Iterator[Any]:
    """Open a TIFF file by rasterio, for reading alone.

    Raises:
        UserError: rasterio is missing, or cannot read the file.
    """
    rasterio = need("rasterio", f"{path}: GeoTIFF and TIFF files of this band count or depth", extra="geo")
    try:
        with quiet(rasterio):
            source = rasterio.open(path if isinstance(path, Path) else path.open(), driver="GTiff")
    except rasterio.errors.RasterioError as error:
        raise Unreadable(f"{path}: cannot be read as a TIFF file ({error}); replace or remove the file") from error
    with source:
        try:
            yield source
        except UserError:
            raise
        except rasterio.errors.RasterioError as error:
            raise Unreadable(f"{path}: cannot be read as a TIFF file ({error}); replace or remove the file") from error
