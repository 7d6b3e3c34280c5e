"""Read single frames of DICOM files as grey in 0..1, with pydicom (the extra `dicom`).

    grey, missing = read_dicom(Path("slice.dcm"), white=None)       # (H, W) float32

Stored values are rescaled by the file's slope and intercept, such as to Hounsfield units. Then the file's window
becomes 0..1, or 0 to `white` if that is given.

Letters: H, W size of a frame.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segvit.data.images import DICOM_SUFFIXES, Unreadable
from segvit.data.member import File
from segvit.utils.optional import need

INVERTED = "MONOCHROME1"
"""Photometric interpretation of frames whose low values are bright."""


def is_dicom(path: File) -> bool:
    """True if the suffix is DICOM's."""
    return path.suffix.lower() in DICOM_SUFFIXES


def dicom_size(path: File) -> tuple[int, int]:
    """Read the height and width of a frame without its pixels.

    Raises:
        UserError: pydicom is missing, or the file is no DICOM image.
    """
    dataset = _open(path, stop_before_pixels=True)
    return int(dataset.Rows), int(dataset.Columns)


def read_dicom(path: File, white: float | None) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_] | None]:
    """Read a frame as grey (H, W) in 0..1, and where it is padding (H, W); None if it has no padding.

    Args:
        path: the file.
        white: rescaled value that becomes 1, while 0 becomes 0. Default: the file's window, or its whole range.

    Raises:
        UserError: pydicom is missing; the file is damaged, in colour or of several frames; or it has values below 0,
            and `white` is given.
    """
    dataset = _open(path)
    try:
        raw = np.asarray(dataset.pixel_array)
    except Exception as error:  # pydicom raises many kinds for pixels that it cannot decode
        raise Unreadable(
            f"{path}: the pixels of this DICOM file cannot be decoded ({error}); save it uncompressed, such as with "
            "`dcmdjpeg` or `gdcmconv --raw`"
        ) from error
    padding = dataset.get("PixelPaddingValue")
    missing = None if padding is None else raw == padding
    slope, intercept = float(dataset.get("RescaleSlope") or 1), float(dataset.get("RescaleIntercept") or 0)
    values = raw * slope + intercept
    low, high = _range(dataset, slope, intercept, white)
    known = values if missing is None else values[~missing]
    if white is not None and known.size and known.min() < 0:
        raise Unreadable(
            f"{path}: values reach down to {known.min():g}, and data.white makes 0 black; leave data.white out, "
            "and the window in the file is used"
        )
    grey = np.clip((values - low) / (high - low), 0, 1).astype(np.float32)
    if dataset.get("PhotometricInterpretation") == INVERTED:
        grey = 1 - grey
    if missing is None or not missing.any():
        return grey, None
    grey[missing] = 0
    return grey, missing


def _open(path: File, **options: Any) -> Any:
    """Read the dataset of a file with one grey frame.

    Raises:
        UserError: pydicom is missing, or the file is something else.
    """
    pydicom = need("pydicom", f"{path}: DICOM images", extra="dicom")
    try:
        dataset = pydicom.dcmread(path if isinstance(path, Path) else path.open(), **options)
        frames, samples = int(dataset.get("NumberOfFrames") or 1), int(dataset.get("SamplesPerPixel") or 0)
        complete = bool(dataset.get("Rows") and dataset.get("Columns"))
    except FileNotFoundError:
        raise Unreadable(f"{path}: no such file") from None
    except Exception as error:  # pydicom raises many kinds for damaged files
        raise Unreadable(f"{path}: cannot be read as DICOM ({error}); replace or remove the file") from error
    if not complete or not samples:
        raise Unreadable(f"{path}: this DICOM file holds no image; remove it")
    if frames > 1 or samples > 1:
        what = f"{frames} frames" if frames > 1 else f"{samples} colour channels"
        raise Unreadable(f"{path}: this DICOM file holds {what}; save each frame as a grey file of its own, or as PNG")
    return dataset


def _range(dataset: Any, slope: float, intercept: float, white: float | None) -> tuple[float, float]:
    """Return the rescaled values that become 0 and 1."""
    if white is not None:
        return 0.0, white
    center, width = (_first(dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if center is not None and width is not None and width > 1:
        return center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2  # the standard's linear window
    bits, signed = int(dataset.get("BitsStored") or 16), int(dataset.get("PixelRepresentation") or 0)
    least = -(2 ** (bits - 1)) if signed else 0
    ends = [stored * slope + intercept for stored in (least, least + 2**bits - 1)]
    return min(ends), max(ends)


def _first(value: Any) -> float | None:
    """Return a number, or the first of several."""
    if value is None or value == "":
        return None
    return float(value[0]) if isinstance(value, list | tuple) or hasattr(value, "append") else float(value)
