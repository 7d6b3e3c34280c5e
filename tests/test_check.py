"""The check of a dataset: which samples it looks at, what counts as uniform, and what a bomb is answered with."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segvit.config import DataConfig
from segvit.data.check import check_dataset
from segvit.data.dataset import open_dataset
from segvit.data.files import read_image
from segvit.errors import UserError


def folders(root: Path, labels: dict[str, tuple[int, ...]]) -> DataConfig:
    """Pairs of 6 x 4 pixels whose label maps hold these values in turn."""
    for name, values in labels.items():
        for folder in ("photos", "masks"):
            (root / folder).mkdir(exist_ok=True)
        Image.new("RGB", (6, 4)).save(root / "photos" / f"{name}.jpg")
        numbers = np.array(values, dtype=np.uint8)[np.arange(24) % len(values)].reshape(4, 6)
        Image.fromarray(numbers).save(root / "masks" / f"{name}.png")
    return DataConfig(images=root / "photos", labels=root / "masks", classes=("a", "b"), val_fraction=0)


def test_a_limited_check_looks_at_evenly_spaced_pairs(tmp_path: Path) -> None:
    samples = open_dataset(folders(tmp_path, {f"{i}": (0, 1) if i < 6 else (0, 9) for i in range(8)}), "train")
    assert check_dataset(samples, limit=1).errors == ()
    report = check_dataset(samples, limit=4)  # pairs 0, 2, 4 and 6
    assert (report.checked, report.total) == (4, 8)
    assert [found.files for found in report.unknown] == [(str(tmp_path / "masks" / "6.png"),)]
    assert check_dataset(samples, limit=100).checked == 8


def test_label_maps_of_one_class_are_listed(tmp_path: Path) -> None:
    config = folders(tmp_path, {"a": (0, 1), "b": (0, 255), "c": (255,), "d": (1,)})
    report = check_dataset(open_dataset(config, "train"))
    assert report.errors == ()
    assert report.uniform == tuple(str(tmp_path / "masks" / f"{name}.png") for name in "bcd")


def test_a_picture_too_large_to_be_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = folders(tmp_path, {"a": (0, 1)})
    assert config.images is not None
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # the file has 24; Pillow refuses at twice the limit
    with pytest.raises(UserError, match=r"a\.jpg: .*cut or shrink"):
        read_image(config.images / "a.jpg")
