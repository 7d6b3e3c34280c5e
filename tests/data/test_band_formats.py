"""File formats of other depths and bands: transparency, masks, nodata, PGM, JPEG 2000, grey, images in memory."""

import struct
import warnings
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import segvit
from segvit.data.bands.header import read_header
from segvit.data.bands.raster import open_raster
from segvit.data.bands.reading import Reading, image_size, read_pixels
from segvit.data.bands.remarks import remarks
from segvit.data.bands.sources import to_pixels
from segvit.data.check.report import check_splits
from segvit.data.dataset import open_dataset
from segvit.data.spec import IGNORE_INDEX
from segvit.errors import UserError

rasterio = pytest.importorskip("rasterio")

PLAIN, GREY, FOUR = Reading(), Reading(bands=1), Reading(bands=4)
RANDOM = np.random.default_rng(0)
COLOR = RANDOM.integers(1, 255, (6, 8, 3), np.uint8)


def write_raster(path: Path, values: npt.NDArray[Any], mask: Any = None, **more: Any) -> Path:
    """Write (H, W, C) by rasterio, with a mask (H, W) inside the file if one is given."""
    height, width, count = values.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": count, "dtype": values.dtype.name, **more}
    with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", **profile) as target:
            target.write(values.transpose(2, 0, 1))
            if mask is not None:
                target.write_mask(mask)
    return path


def write_png(path: Path, values: npt.NDArray[np.uint16], color: int) -> Path:
    """Write (H, W, C) of 16 bits as PNG of a colour type."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, color, 0, 0, 0)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


def test_grey_and_transparency_of_16_bits(tmp_path: Path) -> None:
    values = RANDOM.integers(0, 65_536, (5, 7, 2), np.uint16)
    values[0, :, 1], values[1, :, 1] = 0, 65_535
    path = write_png(tmp_path / "a.png", values, 4)
    assert np.allclose(read_pixels(path, Reading(bands=2)).values, values / 65_535, atol=1e-7)
    share = values[..., 1] / 65_535
    expected = values[..., 0] / 65_535 * share + 1 - share
    assert np.allclose(read_pixels(path, GREY).values[..., 0], expected, atol=1e-5)
    shown = read_pixels(path, PLAIN).values
    assert shown.shape == (5, 7, 3) and (shown[0] == 255).all() and np.abs(shown[..., 0] / 255 - expected).max() < 0.01


def test_colour_and_transparency_of_16_bits_over_the_white_of_the_data(tmp_path: Path) -> None:
    values = RANDOM.integers(0, 4096, (5, 7, 4), np.uint16)
    values[..., 3] = RANDOM.integers(0, 65_536, (5, 7))
    path = write_png(tmp_path / "a.png", values, 6)
    share = values[..., 3:] / 65_535
    expected = values[..., :3] / 4095 * share + 1 - share
    assert np.allclose(read_pixels(path, Reading(white=4095)).values, expected, atol=2e-4)
    assert np.allclose(read_pixels(path, FOUR).values, values / 65_535, atol=1e-7)


def test_near_infrared_that_is_marked_as_transparency_is_never_blended(tmp_path: Path) -> None:
    """GDAL marks the fourth band of bytes as transparency by default."""
    values = np.dstack([COLOR, RANDOM.integers(1, 255, (6, 8), np.uint8)])
    values[0, 0, 3] = 0
    path = write_raster(tmp_path / "a.tif", values)
    header = read_header(path)
    assert header is not None and header.alpha
    pixels = read_pixels(path, PLAIN)
    assert pixels.missing is not None and np.argwhere(pixels.missing).tolist() == [[0, 0]]
    known = ~pixels.missing
    assert (pixels.values[known] == COLOR[known]).all()
    (text,) = remarks(pixels, PLAIN)
    assert "band 4 is marked as transparency" in text and "--data.bands red green blue nir" in text
    four = read_pixels(path, FOUR)
    assert np.allclose(four.values, values / 255) and four.missing is None and not remarks(four, FOUR)


def test_check_data_names_the_band_marked_as_transparency(tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for number in range(2):
        values = np.dstack([COLOR, RANDOM.integers(1, 255, (6, 8), np.uint8)])
        write_raster(tmp_path / "images" / f"{number}.tif", values)
        Image.fromarray((COLOR[..., 0] > 127).astype(np.uint8)).save(tmp_path / "masks" / f"{number}.png")
    data = segvit.DataConfig(images=tmp_path / "images", labels=tmp_path / "masks", classes=("a", "b"), val_fraction=0)
    (text,) = [text for text in check_splits(data, ["train"]).warnings if "transparency" in text]
    assert text.startswith("train: 2 images") or "2 images" in text
    assert "--data.bands red green blue nir" in text
    named = replace(data, bands=("red", "green", "blue", "nir"))
    assert not [text for text in check_splits(named, ["train"]).warnings if "transparency" in text]


@pytest.mark.parametrize("kind", ["transparency", "mask", "jpeg mask"])
def test_pixels_that_an_orthophoto_hides_have_no_data(tmp_path: Path, kind: str) -> None:
    shown = np.full((32, 32), 255, np.uint8)
    shown[:8, 3:] = 0
    color = RANDOM.integers(1, 255, (32, 32, 3), np.uint8)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    path = tmp_path / "images" / "a.tif"
    if kind == "transparency":
        write_raster(path, np.dstack([color, shown]))
    elif kind == "mask":
        write_raster(path, color, shown, photometric="rgb")
    else:
        write_raster(path, color, shown, photometric="ycbcr", compress="jpeg", tiled=True, blockxsize=16, blockysize=16)
    pixels = read_pixels(path, PLAIN)
    assert pixels.missing is not None and (pixels.missing == (shown == 0)).all() and not remarks(pixels, PLAIN)
    assert (pixels.values[pixels.missing] == 0).all()
    with open_raster(path, PLAIN) as raster:
        found = raster.missing(slice(4, 20), step=7)
        assert found is not None and (found == (shown[4:20] == 0)).all()
        same = raster.pixels(slice(0, 32), slice(0, 32)).values == pixels.values
        assert same.all() or kind == "jpeg mask"  # which GDAL and Pillow decode in their own ways
    Image.fromarray((color[..., 0] > 127).astype(np.uint8)).save(tmp_path / "masks" / "a.png")
    data = segvit.DataConfig(images=tmp_path / "images", labels=tmp_path / "masks", classes=("a", "b"), val_fraction=0)
    labels = open_dataset(data, "train").read(0).labels.numpy()
    assert ((labels == IGNORE_INDEX) == (shown == 0)).all()


def test_nodata_in_any_band_is_no_data(tmp_path: Path) -> None:
    values = RANDOM.integers(1, 4000, (5, 6, 4)).astype(np.int16)
    values[1, 2, 3] = values[4, 0, 0] = -9999
    pixels = read_pixels(write_raster(tmp_path / "a.tif", values, nodata=-9999), Reading(bands=4, white=4000))
    assert pixels.missing is not None and np.argwhere(pixels.missing).tolist() == [[1, 2], [4, 0]]
    assert np.allclose(pixels.values[0], values[0] / 4000, atol=1e-7) and (pixels.values[1, 2] == 0).all()


@pytest.mark.parametrize("text", [False, True], ids=["bytes", "text"])
def test_pgm_and_ppm_of_more_than_8_bits(tmp_path: Path, text: bool) -> None:
    values = RANDOM.integers(0, 4096, (4, 5, 3), np.uint16)
    for channels, suffix in ((1, "pgm"), (3, "ppm")):
        part = values[..., :channels]
        for white in (4095, 65_535):
            kind = {(1, False): "P5", (3, False): "P6", (1, True): "P2", (3, True): "P3"}[channels, text]
            head = f"{kind}\n# a comment\n5 4\n{white}\n".encode()
            body = " ".join(map(str, part.ravel())).encode() if text else part.astype(">u2").tobytes()
            path = tmp_path / f"a.{suffix}"
            path.write_bytes(head + body)
            expected = np.broadcast_to(part, (4, 5, 3))
            assert image_size(path) == (4, 5)
            assert np.allclose(read_pixels(path, Reading(white=4095)).values, expected / 4095, atol=1e-7)
            pixels = read_pixels(path, PLAIN)
            assert np.abs(pixels.values / 255 - expected / white).max() < 0.003
            assert bool(remarks(pixels, PLAIN)) == (white == 65_535)
    path.write_bytes(head + body[: len(body) // 2])
    with pytest.raises(UserError, match=r"a\.ppm: cannot be read as an image"):
        read_pixels(path, PLAIN)


@pytest.mark.parametrize(("channels", "bits"), [(1, 12), (1, 16), (3, 16), (4, 12)])
def test_jpeg_2000_of_more_than_8_bits(tmp_path: Path, channels: int, bits: int) -> None:
    values = RANDOM.integers(0, 4096, (32, 40, channels), np.uint16)
    options = {"driver": "JP2OpenJPEG", "NBITS": bits, "QUALITY": 100, "REVERSIBLE": "YES"}
    path = write_raster(tmp_path / "a.jp2", values, **options)
    header = read_header(path)
    assert header is not None and (header.size, header.channels, header.bits) == ((32, 40), channels, bits)
    reading = Reading(bands=4, white=4095) if channels == 4 else Reading(white=4095)
    expected = np.broadcast_to(values, (32, 40, max(channels, 3))) / 4095
    assert np.allclose(read_pixels(path, reading).values, expected, atol=1e-7)
    if channels < 4:
        pixels = read_pixels(path, PLAIN)
        assert any("almost black" in text for text in remarks(pixels, PLAIN)) == (bits == 16)
    for cut in (4, 40, 90, 120):
        (tmp_path / "b.jp2").write_bytes(path.read_bytes()[:cut])
        with pytest.raises(UserError):
            read_pixels(tmp_path / "b.jp2", reading)


def test_grey_that_was_saved_as_colours_is_grey_in_every_format(tmp_path: Path) -> None:
    grey = Image.fromarray(COLOR[..., 0])
    for suffix in ("png", "bmp", "tif", "gif", "jpg", "webp"):
        path = tmp_path / f"a.{suffix}"
        grey.convert("P" if suffix == "gif" else "RGB").save(path, **({"lossless": True} if suffix == "webp" else {}))
        found = read_pixels(path, GREY).values
        assert found.shape == (6, 8, 1) and np.abs(found[..., 0] - COLOR[..., 0] / 255).mean() < 0.05
        Image.fromarray(COLOR).save(path, **({"lossless": True} if suffix == "webp" else {}))
        with pytest.raises(UserError, match="has 3 bands, and the model takes 1"):
            read_pixels(path, GREY)
    grey.convert("P").save(tmp_path / "p.png")
    assert np.allclose(read_pixels(tmp_path / "p.png", GREY).values[..., 0], COLOR[..., 0] / 255)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16", "I", "P", "RGB", "RGBA"])
def test_images_in_memory_are_read_as_their_files(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(COLOR[..., 0])
    picture = Image.fromarray(COLOR[..., 0].astype(np.uint16) * 200) if mode == "I;16" else grey.convert(mode)
    if mode in ("LA", "RGBA"):
        picture.putalpha(Image.fromarray(COLOR[..., 1]))
    picture.save(tmp_path / "a.png")
    for reading in (GREY, Reading(white=255), *((FOUR,) if mode == "RGBA" else ())):
        expected = read_pixels(tmp_path / "a.png", reading).values
        assert np.allclose(to_pixels(picture, reading).values, expected, atol=1 / 254)
    with pytest.raises(UserError, match=r"the image given: the image has .* and the model takes 7"):
        to_pixels(picture, Reading(bands=7))


def test_whole_numbers_are_printed_in_full(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "f.tif", np.full((4, 4, 3), 2_000_000, np.float32))
    with pytest.raises(UserError, match=r"up to 2000000; give .*--data.white 2000000"):
        read_pixels(path, PLAIN)


def test_check_data_gives_one_value_of_white_for_all_images(tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for number, peak in enumerate((1_500_000, 2_000_000, 0.5)):
        write_raster(tmp_path / "images" / f"{number}.tif", np.full((6, 8, 3), peak, np.float32))
        Image.fromarray((COLOR[..., 0] > 127).astype(np.uint8)).save(tmp_path / "masks" / f"{number}.png")
    data = segvit.DataConfig(images=tmp_path / "images", labels=tmp_path / "masks", classes=("a", "b"), val_fraction=0)
    (text,) = check_splits(data, ["train"]).errors
    assert "2 images of floats" in text and "--data.white 2000000" in text and "1500000" not in text
