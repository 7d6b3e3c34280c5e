"""Read image files as the numbers that a model takes: any number of bands, 8 bits, 16 bits or floats.

    reading = Reading(bands=5, white=10_000)
    pixels = read_pixels(Path("scene.tif"), reading)
    pixels.values                       # (H, W, 5) float32 in 0..1

Three bands without a white value give uint8, as photos always did. Any other reading gives float32 in 0..1, so that no
bit is lost. Files of 8 bits are divided by 255. Deeper ones are divided by `white`.

Letters: H, W size of an image, N bands of the model, C channels of the file.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from segvit.data.bands.deep import decode, decode_mask
from segvit.data.bands.dicom import dicom_size, is_dicom, read_dicom
from segvit.data.bands.header import Header, count_pages, read_header
from segvit.data.bands.names import COLORS
from segvit.data.frames import check_pages
from segvit.data.images import TURNED, Unreadable, read_frames, read_image, read_orientation, read_size
from segvit.data.member import File
from segvit.errors import UserError
from segvit.utils.text import counted, plain_number

Values = npt.NDArray[np.uint8] | npt.NDArray[np.float32]


class UnknownWhite(Unreadable):
    """Error of a file of floats, or of more than 16 bits, whose value of white is not known."""

    def __init__(self, text: str, peak: float) -> None:
        """Set the text and the largest value of the file."""
        super().__init__(text)
        self.peak = peak


class HasBands(Protocol):
    """The part of a `DatasetSpec` that names bands."""

    @property
    def bands(self) -> Sequence[str]:
        """Names of the bands; none for red, green, blue."""

    @property
    def white(self) -> float | None:
        """Value of white in files of more than 8 bits."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Rule by which image files become numbers."""

    bands: int = COLORS
    """Number N of bands."""
    white: float | None = None
    """Value that becomes 1 in files of more than 8 bits. Default: the largest value of the depth."""

    @classmethod
    def of(cls, spec: HasBands | None, bands: int | None = None) -> "Reading":
        """Return the reading of a dataset or of a model, from its spec and its number of bands."""
        named = len(spec.bands) if spec is not None else 0
        return cls(bands=bands or named or COLORS, white=None if spec is None else spec.white)

    @property
    def floats(self) -> bool:
        """True if values are float32 in 0..1, False if they are uint8."""
        return self.bands != COLORS or self.white is not None


class Pixels(NamedTuple):
    """A decoded image."""

    values: Values
    """(H, W, N) uint8, or float32 in 0..1."""
    missing: npt.NDArray[np.bool_] | None = None
    """(H, W), True where the file has no data. None if it has data everywhere."""
    peak: float | None = None
    """Largest value in a file of more than 8 bits."""
    full: int | None = None
    """Largest value that the bit depth of that file can hold. None for floats."""
    dropped: int = 0
    """Number of bands of the file that were not read."""
    alpha: int = 0
    """Number of channels of a TIFF file whose last one, marked as transparency, was not read and may be a band. 0: all
    were read, or it has two values."""


def read_pixels(path: File, reading: Reading) -> Pixels:
    """Read an image as its model takes it, upright.

    Raises:
        UserError: the file cannot be read, has other bands than the model, or has values below black or without a known
            white.
    """
    if is_dicom(path):
        return _from_dicom(path, reading)
    header = read_header(path)
    if header is not None and header.tiff:
        check_pages(count_pages(path), str(path))
    if header is None or _is_photo(header):
        if reading.bands == COLORS:
            photo = np.asarray(read_image(path))
            return Pixels(_unit(photo) if reading.floats else photo)
        if header is None or reading.bands == 1:
            return _read_bands(path, reading)
    pixels = scaled(decode(path, header), header, reading, name=str(path), hidden=decode_mask(path, header))
    if reading.floats or header.tiff or header.bands not in (1, COLORS) or not header.alpha:
        return pixels
    return pixels._replace(values=np.asarray(read_image(path)))  # transparency as in any other photo


def _is_photo(header: Header) -> bool:
    """True for a file that Pillow alone reads as red, green, blue, as it reads a JPEG file."""
    if header.is_deep or header.nodata is not None or header.bands > COLORS or header.masked:
        return False
    return header.encoding != "direct" or not (header.tiff and header.alpha)


def image_frames(path: File) -> int:
    """Read the number of frames of an image, of which the first is read, from its header alone.

    Raises:
        UserError: the file does not exist or is not an image, or it is a TIFF of several pages.
    """
    header = read_header(path)
    if header is not None and header.tiff:
        check_pages(count_pages(path), str(path))
        return 1
    return 1 if is_dicom(path) else read_frames(path)


def image_orientation(path: File) -> int:
    """Read the EXIF orientation of an image, 1 to 8. An image without one has 1.

    Raises:
        UserError: the file does not exist or is not an image.
    """
    if is_dicom(path):
        return 1
    header = read_header(path)
    return header.orientation if header is not None and header.tiff else read_orientation(path)


def image_size(path: File) -> tuple[int, int]:
    """Read the height and width of an image as displayed from its header alone. Pillow cannot open every TIFF file.

    Raises:
        UserError: the file does not exist or is not an image.
    """
    if is_dicom(path):
        return dicom_size(path)
    header = read_header(path)
    if header is None or not header.tiff:
        return read_size(path)
    height, width = header.size
    return (width, height) if header.orientation in TURNED else (height, width)


def _from_dicom(path: File, reading: Reading) -> Pixels:
    """Read a frame of a DICOM file for a model of one band, or as grey for one of three."""
    if reading.bands not in (1, COLORS):
        raise Unreadable(f"{path}: {_other_bands(1, reading)}")
    grey, missing = read_dicom(path, reading.white)
    values = grey[..., None].repeat(reading.bands, axis=2)
    return Pixels(values if reading.floats else _bytes(values), missing)


def _read_bands(path: File, reading: Reading) -> Pixels:
    """Read a photo of 8 bits for a model that does not take red, green, blue: grey for one of one band."""
    if reading.bands != 1:
        raise Unreadable(f"{path}: {_other_bands(COLORS, reading)}")
    photo = np.asarray(read_image(path))
    if (photo != photo[..., :1]).any():
        raise Unreadable(f"{path}: {_other_bands(COLORS, reading)}")
    return Pixels(_unit(photo[..., :1]))


def scaled(
    raw: npt.NDArray[Any],
    header: Header,
    reading: Reading,
    *,
    name: str,
    hidden: npt.NDArray[np.bool_] | None = None,
) -> Pixels:
    """Turn the raw values (H, W, C) of a file into pixels.

    Args:
        raw: values of every channel.
        header: of the file.
        reading: of the model.
        name: of the file, in error texts.
        hidden: pixels (H, W) that the mask of the file hides.

    Raises:
        UserError: other bands than the model's, values below 0, or no known white.
    """
    chosen, dropped = _choose(raw, header, reading, name)
    alpha = 0
    if header.tiff and header.alpha and raw.shape[2] != reading.bands:
        hidden, alpha = _by_alpha(raw, hidden)
    missing = _missing(chosen, header.nodata, hidden)
    known = chosen if missing is None else np.where(missing[..., None], chosen.dtype.type(0), chosen)
    if header.kind != "unsigned" and known.min() < 0:
        raise Unreadable(f"{name}: values reach down to {known.min():g}; save the image with 0 as black")
    if not header.is_deep:
        values = _unit(known)
        return Pixels(values if reading.floats else _bytes(values), missing, dropped=dropped, alpha=alpha)
    peak = float(known.max())
    values = np.divide(known, white_of(header, reading, peak, name), dtype=np.float32)
    np.minimum(values, 1, out=values)
    return Pixels(values if reading.floats else _bytes(values), missing, peak, header.full, dropped, alpha)


def _by_alpha(raw: npt.NDArray[Any], hidden: npt.NDArray[np.bool_] | None) -> tuple[npt.NDArray[np.bool_], int]:
    """Return where transparency, the last of the channels (H, W, C), or the mask hides pixels.

    The number is C if transparency has more than two values, so that it may be a band, and 0 otherwise.
    """
    share = raw[..., -1]
    clear = share == 0
    partial = bool((~clear & (share != share.max())).any())
    return clear if hidden is None else clear | hidden, raw.shape[2] if partial else 0


def white_of(header: Header, reading: Reading, peak: float, name: str) -> float:
    """Return the value of a deep file that becomes 1.

    Raises:
        UserError: it is not known.
    """
    if reading.white is not None:
        return reading.white
    if header.full is not None:
        return header.full
    if header.kind == "float" and peak <= 1:
        return 1
    text = (
        f"{name}: values are {header.bits}-bit {'floats' if header.kind == 'float' else 'integers'} up to "
        f"{plain_number(peak)}; give the value that is white in training, --data.white {plain_number(peak)}"
    )
    raise UnknownWhite(text, peak)


def _choose(raw: npt.NDArray[Any], header: Header, reading: Reading, name: str) -> tuple[npt.NDArray[Any], int]:
    """Return the bands (H, W, N) of the model from the channels of a file, and the number of bands left out.

    Raises:
        UserError: the file has other bands.
    """
    channels = raw.shape[2]
    if channels == reading.bands:
        return raw, 0
    bands = channels - header.alpha
    if reading.bands == COLORS and bands == 1:
        return _without_alpha(raw, header, reading).repeat(COLORS, axis=2), 0
    if bands == reading.bands:
        return _without_alpha(raw, header, reading), 0
    if reading.bands == 1 and bands == COLORS:
        shown = _without_alpha(raw, header, reading)
        if (shown == shown[..., :1]).all():  # grey that was saved as red, green, blue
            return shown[..., :1], 0
    if reading.bands == COLORS and bands > COLORS:
        return raw[..., :COLORS], bands - COLORS
    raise Unreadable(f"{name}: {_other_bands(bands, reading)}")


def _without_alpha(raw: npt.NDArray[Any], header: Header, reading: Reading) -> npt.NDArray[Any]:
    """Return the bands of the channels (H, W, C), shown over white if the last one is transparency.

    In TIFF files, transparency marks pixels without data, so the bands stay what they are.
    """
    if not header.alpha:
        return raw
    if header.tiff:
        return raw[..., :-1]
    full = header.full or 1
    white = reading.white or full if header.is_deep else full
    share = raw[..., -1:].astype(np.float32) / full
    shown = raw[..., :-1] * share + white * (1 - share)
    return np.asarray(shown.round().astype(raw.dtype) if raw.dtype.kind in "iu" else shown.astype(raw.dtype))


def _other_bands(found: int, reading: Reading) -> str:
    """Describe a file whose bands are not the model's."""
    return (
        f"the image has {counted(found, 'band')}, and the model takes {reading.bands}; give other images, or "
        f"train a model with --model.bands {found}"
    )


def _missing(
    values: npt.NDArray[Any], nodata: float | None, hidden: npt.NDArray[np.bool_] | None
) -> npt.NDArray[np.bool_] | None:
    """Return where values (H, W, N) have no data: hidden, or a band is `nodata` or not a finite number."""
    found = hidden
    if nodata is not None and not math.isnan(nodata):
        empty = (values == nodata).any(axis=2)
        found = empty if found is None else found | empty
    if values.dtype.kind == "f":
        wild = ~np.isfinite(values).all(axis=2)
        found = wild if found is None else found | wild
    return found if found is not None and found.any() else None


def _unit(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return values of 8 bits on the scale 0..1."""
    unit: npt.NDArray[np.float32] = np.divide(values, 255, dtype=np.float32)
    return unit


def _bytes(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return values in 0..1 as uint8."""
    return (values * 255 + 0.5).astype(np.uint8)


def check_white(white: float | None, where: str) -> None:
    """Refuse a value of white that no file can have.

    Raises:
        UserError: not a finite number above 0.
    """
    if white is not None and not (math.isfinite(white) and white > 0):
        raise UserError(f"{where} is {white}: give the value of white in the files, such as 4095 for 12 bits")


def as_picture(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return an image (H, W, N) as uint8 (H, W, 3) for people: the first three bands, or the first as grey."""
    first = values[..., :COLORS] if values.shape[-1] >= COLORS else values[..., :1].repeat(COLORS, axis=-1)
    return first if first.dtype == np.uint8 else _bytes(first)
