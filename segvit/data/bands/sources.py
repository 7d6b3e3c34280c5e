"""Turn photos as users give them, files, PIL images and arrays, into the numbers that a model takes.

pixels = to_pixels("scene.tif", Reading(bands=5, white=10_000))

Letters: H, W size of an image, N bands of the model.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from segvit.data.bands.header import Header
from segvit.data.bands.names import COLORS
from segvit.data.bands.reading import Pixels, Reading, read_pixels, scaled
from segvit.data.images import SIXTEEN_BIT, Source, photo_file, to_rgb, upright
from segvit.errors import UserError

LARGEST = 2**16 - 1
"""Largest value of 16 bits."""


def to_pixels(source: Source, reading: Reading) -> Pixels:
    """Return any photo as its model takes it.

    Raises:
        UserError: a file that cannot be read, an array that is no photo of these bands, or something else.
    """
    if isinstance(source, str | Path):
        return read_pixels(photo_file(source), reading)
    if not reading.floats or not isinstance(source, Image.Image | np.ndarray):
        return Pixels(to_rgb(source))  # or the error for anything that is no photo
    if isinstance(source, Image.Image):
        return _from_picture(source, reading)
    return _from_array(source, reading)


def _from_picture(picture: Image.Image, reading: Reading) -> Pixels:
    """Return a PIL image as read from a file of the same channels.

    Raises:
        UserError: other bands, or grey beyond 16 bits.
    """
    picture = upright(picture)
    name, bits, alpha = "the image given", 8, picture.mode in ("LA", "RGBA")
    if picture.mode == "F":
        return _from_array(np.asarray(picture), reading)
    if picture.mode in SIXTEEN_BIT:
        wide, bits = np.asarray(picture), 16
        if wide.min() < 0 or wide.max() > LARGEST:
            raise UserError(f"{name}: pixels reach {wide.min()}..{wide.max()}; give an image of 8 or 16 bits")
        values: npt.NDArray[Any] = wide.astype(np.uint16)
    elif picture.mode in ("L", "LA", "RGB", "RGBA"):
        values = np.asarray(picture)
    else:
        values = np.asarray(picture.convert("L")) if picture.mode == "1" else to_rgb(picture)
    values = np.atleast_3d(values)
    header = Header(size=values.shape[:2], bands=values.shape[2] - alpha, alpha=alpha, bits=bits)
    return scaled(values, header, reading, name=name)


def _from_array(array: npt.NDArray[Any], reading: Reading) -> Pixels:
    """Return an array (H, W, N) of whole numbers as read from a file, or of floats in 0..1.

    Raises:
        UserError: another shape, type or range.
    """
    name = f"an array of {array.dtype} {array.shape}"
    if array.ndim == 2:
        array = array[..., None]
    if (
        array.ndim != 3
        or 0 in array.shape
        or array.shape[2] not in (reading.bands, 1 if reading.bands == COLORS else 0)
    ):
        swap = ", or array.transpose(1, 2, 0) if its bands come first" if array.ndim == 3 else ""
        raise UserError(f"{name}: expected (H, W, {reading.bands}){swap}")
    bits = 8 * array.dtype.itemsize
    if array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):
            raise UserError(f"{name} with values {array.min():.4g} to {array.max():.4g}: floats must be in 0..1")
        values = array.astype(np.float32)
        return Pixels(values if array.shape[2] == reading.bands else values.repeat(reading.bands, axis=2))
    if array.dtype.kind != "u" or bits > 16:
        raise UserError(f"{name}: give uint8, uint16, or floats in 0..1")
    header = Header(size=(array.shape[0], array.shape[1]), bands=array.shape[2], alpha=False, bits=bits)
    return scaled(array, header, reading, name=name)
