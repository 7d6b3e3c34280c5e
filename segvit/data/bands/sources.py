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


def to_pixels(source: Source, reading: Reading) -> Pixels:
    """Return any photo as its model takes it.

    Raises:
        UserError: a file that cannot be read, an array that is no photo of these bands, or something else.
    """
    if isinstance(source, str | Path):
        return read_pixels(photo_file(source), reading)
    if not reading.floats:
        return Pixels(to_rgb(source))
    if isinstance(source, Image.Image) and source.mode in SIXTEEN_BIT:
        source = np.asarray(upright(source)).astype(np.uint16)
    if isinstance(source, np.ndarray):
        return _from_array(source, reading)
    return _from_array(to_rgb(source), reading)  # a PIL image, or the error for anything else


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
