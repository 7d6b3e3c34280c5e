"""DICOM frames: slope, intercept and window are applied, and other files are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segvit.data.bands.reading import Reading, image_size, read_pixels
from segvit.errors import UserError

pydicom = pytest.importorskip("pydicom")
VALUES = np.arange(12, dtype=np.int16).reshape(3, 4) * 100


def write(path: Path, values: np.ndarray = VALUES, **tags: Any) -> Path:
    """Write a frame as DICOM, with further tags."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = *values.shape[:2], 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.PhotometricInterpretation, dataset.PixelData = "MONOCHROME2", values.tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_slope_intercept_and_window(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.dcm", RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=[40, 300], WindowWidth=[400, 1]
    )
    assert image_size(path) == (3, 4)
    found = read_pixels(path, Reading(bands=1)).values[..., 0]
    hounsfield = VALUES.astype(float) * 2 - 1000
    expected = np.clip((hounsfield - (40 - 0.5)) / (400 - 1) + 0.5, 0, 1)
    assert np.allclose(found, expected, atol=1e-6) and np.ptp(found) > 0
    color = read_pixels(path, Reading()).values
    assert color.dtype == np.uint8 and np.allclose(color[..., 1], expected * 255, atol=0.51)
    inverted = write(tmp_path / "b.dcm", PhotometricInterpretation="MONOCHROME1", WindowCenter=600, WindowWidth=1000)
    assert read_pixels(inverted, Reading(bands=1)).values[0, 0, 0] > 0.9


def test_white_takes_the_place_of_the_window(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", WindowCenter=40, WindowWidth=400)
    assert np.allclose(read_pixels(path, Reading(bands=1, white=1100)).values[..., 0], VALUES / 1100, atol=1e-6)
    below = write(tmp_path / "b.dcm", RescaleIntercept=-500)
    with pytest.raises(UserError, match="down to -500"):
        read_pixels(below, Reading(bands=1, white=1100))
    whole = read_pixels(below, Reading(bands=1)).values[..., 0]
    assert np.allclose(whole, (VALUES.astype(float) + 32_768) / 65_535, atol=1e-6)


def test_padding_is_missing(tmp_path: Path) -> None:
    pixels = read_pixels(write(tmp_path / "a.dcm", PixelPaddingValue=300), Reading(bands=1))
    assert pixels.missing is not None and np.argwhere(pixels.missing).tolist() == [[0, 3]]


@pytest.mark.parametrize(
    ("tags", "text"),
    [
        ({"NumberOfFrames": 3}, "3 frames"),
        ({"SamplesPerPixel": 3}, "3 colour channels"),
        ({"Rows": 300}, "cannot be decoded"),
        ({"Rows": 0}, "holds no image"),
    ],
    ids=str,
)
def test_other_files_are_refused(tmp_path: Path, tags: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        read_pixels(write(tmp_path / "a.dcm", **tags), Reading(bands=1))


def test_what_is_no_dicom_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"no image")
    for path, text in ((tmp_path / "a.dcm", "cannot be read as DICOM"), (tmp_path / "b.dcm", "no such file")):
        with pytest.raises(UserError, match=text):
            read_pixels(path, Reading(bands=1))
    with pytest.raises(UserError, match="has 1 band, and the model takes 4"):
        read_pixels(write(tmp_path / "c.dcm"), Reading(bands=4))
