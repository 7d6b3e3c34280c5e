"""Pictures of several pages or frames, and label files whose values could change silently."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

import segvit
from segvit.config import DataConfig
from segvit.data.check.class_names import name_classes
from segvit.data.check.report import check_splits
from segvit.data.dataset import open_dataset
from segvit.data.frames import count_frames
from segvit.data.images import read_frames, read_image
from segvit.data.labels.index import read_labels
from segvit.errors import UserError

VALUES = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)


def save(path: Path, *pages: Any, **options: Any) -> Path:
    """A file whose pages or frames are these arrays."""
    path.parent.mkdir(exist_ok=True)
    first, *rest = [Image.fromarray(page) for page in pages]
    first.save(path, **({"save_all": True, "append_images": rest} if rest else {}), **options)
    return path


def rgb(value: int) -> Any:
    return np.full((2, 3, 3), value, np.uint8)


def test_a_label_map_of_two_pages_is_refused_with_the_code_that_joins_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.tif", 1 - VALUES, VALUES)
    with pytest.raises(UserError, match=r"a.tif: the label map has 2 pages, .* join them in Python") as refused:
        read_labels(path)
    monkeypatch.chdir(tmp_path)
    code = str(refused.value).split("`")[1]
    exec(code.replace("FILE_AS_PNG", "'b.png'").replace("FILE", "'a.tif'"))
    assert read_labels(tmp_path / "b.png").tolist() == VALUES.tolist()
    with pytest.raises(UserError, match="the label map has 3 pages"):
        read_labels(save(tmp_path / "c.png", VALUES, VALUES + 1, VALUES))


def test_smaller_copies_in_a_tiff_are_no_pages(tmp_path: Path) -> None:
    large, small = Image.fromarray(VALUES), Image.fromarray(VALUES[:1])
    with TiffImagePlugin.AppendingTiffWriter(tmp_path / "a.tif", new=True) as file:
        large.save(file, "TIFF")
        file.newFrame()
        small.save(file, "TIFF", tiffinfo={254: 1})
    with Image.open(tmp_path / "a.tif") as opened:
        assert getattr(opened, "n_frames", 0) == 2 and count_frames(opened) == 1 and opened.tell() == 0
    assert read_labels(tmp_path / "a.tif").tolist() == VALUES.tolist()


def test_an_image_of_several_pages_is_refused_with_the_code_that_splits_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.tif", rgb(9), rgb(7), rgb(5))
    with pytest.raises(UserError, match=r"a.tif: the TIFF has 3 pages, but one image is needed") as refused:
        read_image(path)
    monkeypatch.chdir(tmp_path)
    exec(str(refused.value).split("`")[1].replace("FILE", "'a.tif'"))
    assert [read_image(Path(f"page_{n}.png")).getpixel((0, 0)) for n in range(3)] == [(n, n, n) for n in (9, 7, 5)]


def test_a_label_map_saved_as_jpeg_is_refused_whatever_its_suffix(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png", format="JPEG")
    with pytest.raises(UserError, match=r"a\.png: the label map is a JPEG file, whose compression changes values"):
        read_labels(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_of_an_animation_the_first_frame_is_read_and_reported(tmp_path: Path, suffix: str) -> None:
    path = save(
        tmp_path / "photos" / f"a.{suffix}", rgb(0), rgb(255), **({} if suffix == "gif" else {"lossless": True})
    )
    assert read_frames(path) == 2 and read_image(path).getpixel((0, 0)) == (0, 0, 0)
    save(tmp_path / "masks" / "a.png", VALUES)
    config = DataConfig(images=path.parent, labels=tmp_path / "masks", classes=("a", "b"), val_fraction=0)
    (warning,) = check_splits(config, ["train"]).warnings
    assert f"1 image is read by the first frame of an animation alone: {path} of 2 frames" in warning
    with pytest.warns(UserWarning, match="an animation of 2 frames, of which the first is read"):
        segvit.data.images.to_rgb(path)


def test_a_stack_among_the_images_stops_the_check(tmp_path: Path) -> None:
    save(tmp_path / "photos" / "a.tif", rgb(9), rgb(7))
    save(tmp_path / "masks" / "a.png", VALUES)
    config = DataConfig(images=tmp_path / "photos", labels=tmp_path / "masks", classes=("a", "b"), val_fraction=0)
    assert any("the TIFF has 2 pages" in error for error in check_splits(config, ["train"]).errors)


def test_the_case_of_pages(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shared_data.parent / "cases" / "multipage-tiff")
    config = DataConfig(images=Path("photos"), labels=Path("masks"), classes=("ground", "box"))
    assert "the label map has 2 pages" in check_splits(config, ["train"]).errors[0]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, ">u2"])
def test_whole_numbers_of_any_width_and_order_keep_their_values(tmp_path: Path, dtype: Any) -> None:
    values = np.array([[0, 1, 2], [2, 1, 0]]).astype(dtype)
    picture = Image.fromarray(values) if dtype != ">u2" else Image.frombytes("I;16B", (3, 2), values.tobytes())
    (tmp_path / "masks").mkdir()
    picture.save(tmp_path / "masks" / "a.tif")
    save(tmp_path / "photos" / "a.png", rgb(0))
    config = DataConfig(images=tmp_path / "photos", labels=tmp_path / "masks", classes=("a", "b", "c"), val_fraction=0)
    assert not check_splits(config, ["train"]).errors
    assert open_dataset(config, "train").read(0).labels.tolist() == values.tolist()


def test_negative_values_are_named_and_never_wrapped(tmp_path: Path) -> None:
    save(tmp_path / "masks" / "a.tif", np.array([[0, 1, -1], [1, 0, 0]], np.int32))
    save(tmp_path / "photos" / "a.png", rgb(0))
    config = DataConfig(images=tmp_path / "photos", labels=tmp_path / "masks", val_fraction=0)
    with pytest.raises(UserError, match="hold the value -1"):
        name_classes(config)
    (error,) = check_splits(DataConfig(**{**vars(config), "classes": ("a", "b")}), ["train"]).errors
    assert "label value -1 is not a class" in error
