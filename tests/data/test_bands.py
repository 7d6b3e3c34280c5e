"""Bit depth and bands: files are read as what they are, or refused, or warned of."""

import struct
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

import segvit
from segvit.config import AugmentConfig
from segvit.data.augment.colors import photometric
from segvit.data.augment.transform import TrainTransform
from segvit.data.bands.deep import decode
from segvit.data.bands.header import read_header
from segvit.data.bands.reading import Reading, as_picture, image_frames, read_pixels
from segvit.data.bands.remarks import likely_white, remarks
from segvit.data.bands.sources import to_pixels
from segvit.data.check.report import check_splits
from segvit.data.dataset import open_dataset
from segvit.data.folder_spec import with_bands
from segvit.data.spec import IGNORE_INDEX, DatasetSpec
from segvit.errors import UserError

rasterio = pytest.importorskip("rasterio")

PLAIN, WHITE = Reading(), Reading(white=4095)
RANDOM = np.random.default_rng(0)
TWELVE = RANDOM.integers(0, 4096, (6, 7, 3), np.uint16)
"""Values of 12 bits in 16."""


def write_tiff(path: Path, values: npt.NDArray[Any], **more: Any) -> Path:
    """Write (H, W, C) as TIFF."""
    height, width, count = values.shape
    profile = {"height": height, "width": width, "count": count, "dtype": values.dtype.name, **more}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver="GTiff", **profile) as target:
            target.write(values.transpose(2, 0, 1))
    return path


def write_png(path: Path, values: npt.NDArray[np.uint16]) -> Path:
    """Write (H, W, 3) of 16 bits as PNG, which Pillow cannot: one unfiltered row after the other."""
    import zlib

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"compress": "deflate"},
        {"compress": "lzw", "predictor": 2},
        {"ENDIANNESS": "BIG"},
        {"compress": "deflate", "ENDIANNESS": "BIG"},
        {"tiled": True, "blockxsize": 16, "blockysize": 16},
        {"interleave": "band"},
        {"bigtiff": "yes"},
    ],
    ids=str,
)
def test_every_bit_of_a_tiff_is_read(tmp_path: Path, form: dict[str, Any]) -> None:
    form = {"interleave": "pixel", "photometric": "rgb", **form}
    path = write_tiff(tmp_path / "a.tif", TWELVE, **form)
    header = read_header(path)
    assert header is not None and (header.size, header.bands, header.bits, header.full) == ((6, 7), 3, 16, 65_535)
    assert (decode(path, header) == TWELVE).all()
    pixels = read_pixels(path, WHITE)
    assert pixels.values.dtype == np.float32 and np.allclose(pixels.values, TWELVE / 4095, atol=1e-7)
    assert pixels.peak == TWELVE.max()


def test_every_bit_of_a_png_is_read(tmp_path: Path) -> None:
    color, grey = write_png(tmp_path / "c.png", TWELVE), tmp_path / "g.png"
    Image.fromarray(TWELVE[..., 0]).save(grey)
    assert np.allclose(read_pixels(color, WHITE).values, TWELVE / 4095, atol=1e-7)
    assert np.allclose(read_pixels(grey, WHITE).values, TWELVE[..., :1].repeat(3, axis=2) / 4095, atol=1e-7)
    assert np.allclose(read_pixels(grey, Reading(bands=1)).values, TWELVE[..., :1] / 65_535, atol=1e-7)


def test_without_white_photos_stay_bytes_and_dark_ones_are_named(tmp_path: Path) -> None:
    path = write_png(tmp_path / "c.png", TWELVE)
    pixels = read_pixels(path, PLAIN)
    assert pixels.values.dtype == np.uint8 and pixels.values.max() <= 16
    (text,) = remarks(pixels, PLAIN)
    assert f"{TWELVE.max()} of 65535" in text and "--data.white 4095" in text
    bright = write_png(tmp_path / "b.png", TWELVE * np.uint16(16))
    assert not remarks(read_pixels(bright, PLAIN), PLAIN)
    (text,) = remarks(read_pixels(bright, WHITE), WHITE)
    assert "above data.white 4095" in text
    assert [likely_white(peak) for peak in (1, 1000, 1023, 1024, 4080, 16_383)] == [1, 1023, 1023, 2047, 4095, 16_383]


def test_five_bands_of_any_number(tmp_path: Path) -> None:
    values = RANDOM.integers(0, 10_000, (5, 6, 5), np.uint16)
    five = Reading(bands=5, white=10_000)
    whole = write_tiff(tmp_path / "a.tif", values)
    assert np.allclose(read_pixels(whole, five).values, values / 10_000, atol=1e-7)
    floats = write_tiff(tmp_path / "f.tif", (values / 10_000).astype(np.float32))
    assert np.allclose(read_pixels(floats, Reading(bands=5)).values, values / 10_000, atol=1e-6)
    small = write_tiff(tmp_path / "b.tif", (values >> 6).astype(np.uint8))
    assert np.allclose(read_pixels(small, five).values, (values >> 6) / 255, atol=1e-7)
    pixels = read_pixels(whole, PLAIN)
    assert pixels.dropped == 2 and "2 bands beyond red, green, blue" in remarks(pixels, PLAIN)[-1]
    with pytest.raises(UserError, match="has 5 bands, and the model takes 4"):
        read_pixels(whole, Reading(bands=4))
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "p.jpg")
    with pytest.raises(UserError, match="has 3 bands, and the model takes 4"):
        read_pixels(tmp_path / "p.jpg", Reading(bands=4))


def test_values_without_a_known_white_are_refused(tmp_path: Path) -> None:
    floats = write_tiff(tmp_path / "f.tif", np.full((4, 4, 3), 300.5, np.float32))
    with pytest.raises(UserError, match=r"floats up to 300.5; give .*--data.white 300.5"):
        read_pixels(floats, PLAIN)
    assert np.allclose(read_pixels(floats, Reading(white=601)).values, 0.5)
    below = write_tiff(tmp_path / "n.tif", np.full((4, 4, 3), -7, np.int16))
    with pytest.raises(UserError, match="down to -7"):
        read_pixels(below, WHITE)
    for white in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UserError, match="white"):
            segvit.load_spec("camvid").__class__.from_dict(segvit.load_spec("camvid").to_dict() | {"white": white})


def test_pixels_without_data_are_known(tmp_path: Path) -> None:
    values = TWELVE + np.uint16(1)
    values[2, 3] = 0
    pixels = read_pixels(write_tiff(tmp_path / "a.tif", values, nodata=0), WHITE)
    assert pixels.missing is not None and np.argwhere(pixels.missing).tolist() == [[2, 3]]
    floats = (values / 5000).astype(np.float32)
    floats[1, 1, 2] = np.nan
    pixels = read_pixels(write_tiff(tmp_path / "f.tif", floats), Reading(white=1))
    assert pixels.missing is not None and np.argwhere(pixels.missing).tolist() == [[1, 1]]
    assert np.isfinite(pixels.values).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    grey = Image.fromarray(TWELVE[..., 0])
    exif = Image.Exif()
    exif[274] = orientation
    grey.save(tmp_path / "a.tif", exif=exif)
    with Image.open(tmp_path / "a.tif") as opened:
        from PIL import ImageOps

        expected = np.asarray(ImageOps.exif_transpose(opened))
    found = read_pixels(tmp_path / "a.tif", Reading(bands=1, white=4095)).values[..., 0]
    assert np.allclose(found, expected / 4095, atol=1e-7)


@pytest.mark.parametrize("cut", [0, 4, 8, 20, 60, 200])
def test_damaged_headers_are_no_header_or_an_error(tmp_path: Path, cut: int) -> None:
    whole = write_tiff(tmp_path / "a.tif", TWELVE).read_bytes()
    (tmp_path / "b.tif").write_bytes(whole[:cut])
    read_header(tmp_path / "b.tif")
    with pytest.raises(UserError):
        read_pixels(tmp_path / "b.tif", WHITE)


def test_arrays_and_images_in_memory() -> None:
    assert np.allclose(to_pixels(TWELVE, WHITE).values, TWELVE / 4095, atol=1e-7)
    assert np.allclose(
        to_pixels(Image.fromarray(TWELVE[..., 0]), WHITE).values[..., 1], TWELVE[..., 0] / 4095, atol=1e-7
    )
    assert np.allclose(
        to_pixels(TWELVE[..., :2].astype(np.uint8), Reading(bands=2)).values, TWELVE[..., :2] % 256 / 255
    )
    assert to_pixels(TWELVE.astype(np.uint8), PLAIN).values.dtype == np.uint8
    for bad in (TWELVE[..., :2], TWELVE.astype(np.float32), TWELVE.astype(np.int64)):
        with pytest.raises(UserError):
            to_pixels(bad, WHITE)
    assert (
        as_picture(TWELVE[..., :2] / np.float32(4095))[..., 2] == as_picture(TWELVE / np.float32(4095))[..., 0]
    ).all()


def make_folders(folder: Path, count: int = 4, bands: int = 5) -> segvit.DataConfig:
    """Write images of some bands of 12 bits, with masks of two classes."""
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for number in range(count):
        labels = np.zeros((24, 40), np.uint8)
        labels[:, 12 + number :] = 1
        values = (RANDOM.random((24, 40, bands)) * 1000 + labels[..., None] * 3000.0 + 1).astype(np.uint16)
        values[:2] = 0
        write_tiff(folder / "images" / f"{number}.tif", values, nodata=0)
        Image.fromarray(labels).save(folder / "masks" / f"{number}.png")
    return segvit.DataConfig(
        images=folder / "images", labels=folder / "masks", classes=("a", "b"), val_fraction=0.25, workers=0
    )


def test_check_data_names_dark_images_and_bands_left_out(tmp_path: Path) -> None:
    data = make_folders(tmp_path)
    text = "\n".join(check_splits(data, ["train"]).warnings)
    assert "3 images with no value above" in text and "of 65535" in text
    assert "--data.white 4095" in text and "--data.bands red green blue band4 band5" in text
    named = replace(data, white=3000, bands=("r", "g", "b", "n", "s"))
    (text,) = check_splits(named, ["train"]).warnings
    assert "above data.white" in text


def test_a_dataset_reads_bands_and_ignores_pixels_without_data(tmp_path: Path) -> None:
    data = replace(make_folders(tmp_path), white=4095)
    samples = open_dataset(data, "train", bands=5)
    assert samples.spec.bands == ("band 1", "band 2", "band 3", "band 4", "band 5") and samples.spec.white == 4095
    assert DatasetSpec.from_dict(samples.spec.to_dict()) == samples.spec
    image, labels, _ = samples.read(0)
    assert image.shape == (5, 24, 40) and image.dtype == torch.float32 and 0.6 < image.max() <= 1
    assert (labels[:2] == IGNORE_INDEX).all() and (labels[2:] != IGNORE_INDEX).all()
    with pytest.raises(UserError, match="the data name 5"):
        with_bands(samples.spec, 4)


def test_augmentation_of_floats_is_that_of_bytes() -> None:
    image = torch.randint(256, (3, 20, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(4, (20, 30), generator=torch.Generator().manual_seed(1))
    for seed in range(20):
        one, other = (torch.Generator().manual_seed(seed) for _ in range(2))
        transform = TrainTransform(24, AugmentConfig(resize_long=None), [124, 116, 104])
        expected, expected_labels = transform(image, labels, one)
        found, found_labels = transform(image / 255, labels, other)
        assert torch.equal(found_labels, expected_labels) and found.dtype == torch.float32
        assert ((found * 255) - expected).abs().max() < 3  # bytes are rounded before they are multiplied


STEPS: dict[str, dict[str, Any]] = {
    "rotation": {"rotation": 30.0},
    "gamma": {"gamma": 1.0},
    "blur": {"blur": 2.0},
    "noise": {"noise": 20.0},
    "jpeg": {"jpeg_quality": 60},
    "erase": {"erase": 1.0},
    "quarter turns": {"rot90": 1.0, "vertical_flip": 0.5, "aspect": 1.3},
}


@pytest.mark.parametrize("name", STEPS)
def test_each_step_takes_floats_and_any_number_of_bands(name: str) -> None:
    """The first band of five is that of bytes. JPEG alone needs three bands."""
    still = {
        "resize_long": None,
        "brightness": 0.0,
        "contrast": 0.0,
        "saturation": 0.0,
        "hue": 0.0,
        "scale": (1.0, 1.0),
    }
    augment = AugmentConfig(**{**still, **STEPS[name]})
    image = torch.randint(256, (3, 30, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(4, (30, 30), generator=torch.Generator().manual_seed(1))
    five = torch.cat([image, image[:2]]) / 255
    for seed in range(6):
        runs = [torch.Generator().manual_seed(seed) for _ in range(3)]
        expected, expected_labels = TrainTransform(24, augment, [124, 116, 104])(image, labels, runs[0])
        three, three_labels = TrainTransform(24, augment, [124, 116, 104])(image / 255, labels, runs[1])
        assert three.dtype == torch.float32 and torch.equal(three_labels, expected_labels)
        assert (three * 255 - expected).abs().max() <= 1.001
        if name == "jpeg":
            with pytest.raises(UserError, match="images have 5 bands, and JPEG has 3: set it to 100"):
                TrainTransform(24, augment, [124, 116, 104, 124, 116])
            continue
        found, found_labels = TrainTransform(24, augment, [124, 116, 104, 124, 116])(five, labels, runs[2])
        assert found.shape == (5, 24, 24) and torch.equal(found_labels, expected_labels)
        if name != "noise":  # which is drawn for each band
            assert torch.allclose(found[:3], three, atol=1e-6)


def test_deep_files_of_several_pages_are_refused(tmp_path: Path) -> None:
    page = {"driver": "GTiff", "width": 8, "height": 6, "count": 5, "dtype": "uint16"}
    for number in (1, 2):
        more = {"APPEND_SUBDATASET": "YES"} if number == 2 else {}
        with rasterio.open(tmp_path / "pages.tif", "w", **page, **more) as file:
            file.write(np.full((5, 6, 8), number, np.uint16))
    for look in (
        lambda: read_pixels(tmp_path / "pages.tif", Reading(bands=5)),
        lambda: image_frames(tmp_path / "pages.tif"),
    ):
        with pytest.raises(UserError, match=r"pages\.tif: the TIFF has 2 pages, but one image is needed"):
            look()


def test_reduced_copies_are_no_pages(tmp_path: Path) -> None:
    path = tmp_path / "overviews.tif"
    with rasterio.open(path, "w", driver="GTiff", width=600, height=600, count=2, dtype="uint16") as file:
        file.write(np.ones((2, 600, 600), np.uint16))
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4])
    assert image_frames(path) == 1


def test_hue_and_saturation_are_left_out_for_other_bands() -> None:
    image = torch.rand(5, 6, 7)
    options = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.5, "hue": 18.0}
    for seed in range(8):
        assert torch.equal(photometric(image, **options, generator=torch.Generator().manual_seed(seed)), image)


def test_the_case_of_twelve_bits(shared_cases: Path) -> None:
    folder = shared_cases / "twelve-bits"
    data = segvit.DataConfig(
        images=folder / "photos", labels=folder / "masks", classes=("ground", "box"), val_fraction=0
    )
    (text,) = [text for text in check_splits(data, ["train"]).warnings if "almost black" in text]
    assert "of 65535" in text and "--data.white 4095" in text
    means = [
        float(open_dataset(replace(data, white=white), "train").read(0).image.float().mean())
        * (1 if white else 1 / 255)
        for white in (None, 4095.0)
    ]
    assert means[0] < 0.04 and 0.3 < means[1] < 0.7


def test_nodata_of_a_label_raster_is_ignored_unless_it_is_a_class(tmp_path: Path) -> None:
    data = make_folders(tmp_path, count=2)
    for path in (tmp_path / "masks").iterdir():
        labels = np.asarray(Image.open(path)).copy()
        path.unlink()
        labels[5] = 99
        write_tiff(path.with_suffix(".tif"), labels[..., None], nodata=99)
    samples = open_dataset(replace(data, white=4095, val_fraction=0.5), "train", bands=5)
    found = samples.read(0).labels
    assert (found[5] == IGNORE_INDEX).all() and set(found[6:].unique().tolist()) == {0, 1}
    named = replace(data, classes=("a", "b", "c=99"), white=4095, val_fraction=0.5)
    assert (open_dataset(named, "train", bands=5).read(0).labels[5] == 2).all()
