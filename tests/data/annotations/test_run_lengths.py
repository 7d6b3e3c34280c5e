"""Tables of run lengths: both orders, the columns of competitions, empty masks, and what is wrong in a line."""

from pathlib import Path

import numpy as np
import pytest

from segvit.config import DataConfig
from segvit.data.annotations.tools.run_lengths import RunLengthLabels
from segvit.data.dataset import SegmentationDataset, open_dataset
from segvit.errors import UserError
from tests.helpers.annotated import Labels, labels_of, opened, photo, write


def encode(mask: Labels) -> str:
    """Run lengths of a mask (H, W), pixel by pixel down the columns."""
    runs: list[int] = []
    flat = [bool(mask[row, column]) for column in range(mask.shape[1]) for row in range(mask.shape[0])]
    for number, inside in enumerate(flat, start=1):
        if inside and (number == 1 or not flat[number - 2]):
            runs += [number, 0]
        if inside:
            runs[-1] += 1
    return " ".join(map(str, runs))


def table(root: Path, text: str, *classes: str) -> SegmentationDataset:
    for name in "ab":
        photo(root / "photos" / f"{name}.jpg")
    return opened(root / "photos", write(root / "masks.csv", text), *classes)


@pytest.mark.parametrize("seed", range(3))
def test_masks_are_those_that_were_encoded(tmp_path: Path, seed: int) -> None:
    mask = np.random.default_rng(seed).integers(0, 2, (6, 8))
    samples = table(tmp_path, f"ImageId,EncodedPixels\na.jpg,{encode(mask)}\nb.jpg,\n")
    assert samples.spec.classes == ("background", "object")
    assert (labels_of(samples) == mask).all() and not labels_of(samples, 1).any()


def test_pixels_may_be_counted_along_the_rows(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).integers(0, 2, (6, 8))
    table(tmp_path, f"ImageId,EncodedPixels\na.jpg,{encode(mask.T)}\n")
    text = "name: a\nclasses: [background, object]\nlabels: {format: run_lengths, order: rows, missing: skip}\n"
    spec = write(tmp_path / "spec.yaml", text + "splits: {train: {images: photos, labels: masks.csv}}\n")
    samples = open_dataset(DataConfig(spec=str(spec), root=tmp_path, val_fraction=0), "train")
    assert (samples.read(0).labels.numpy() == mask).all()


@pytest.mark.parametrize(
    "text, classes",
    [
        ("ImageId,ClassId,EncodedPixels\na.jpg,1,1 2\na.jpg,3,3 2\n", ("background", "class_1", "class_3")),
        ("ImageId_ClassId,EncodedPixels\na.jpg_1,1 2\na.jpg_3,3 2\nb.jpg_1,\n", ("background", "class_1", "class_3")),
        ('image_id,label,"EncodedPixels"\n"a.jpg",car,1 2\na.jpg,van,3 2\n', ("background", "car", "van")),
    ],
)
def test_columns_of_classes(tmp_path: Path, text: str, classes: tuple[str, ...]) -> None:
    samples = table(tmp_path, text)
    assert samples.spec.classes == classes
    assert labels_of(samples)[:6, 0].tolist() == [1, 1, 2, 2, 0, 0]


def test_several_lines_of_one_image_and_lines_without_a_mask(tmp_path: Path) -> None:
    samples = table(tmp_path, "ImageId,EncodedPixels\na.jpg,1 1\na.jpg,4 1 6 1\nb.jpg,-1\nb.jpg,\n")
    assert labels_of(samples)[:, 0].tolist() == [1, 0, 0, 1, 0, 1] and not labels_of(samples, 1).any()


def test_a_typed_name_stands_for_the_only_class(tmp_path: Path) -> None:
    samples = table(tmp_path, "ImageId,EncodedPixels\na.jpg,1 2\n", "background", "ship")
    assert samples.spec.classes == ("background", "ship") and labels_of(samples).sum() == 2
    with pytest.raises(UserError, match="'ship' is no class"):
        table(tmp_path, "ImageId,EncodedPixels\na.jpg,1 2\n", "background", "ship", "boat")


@pytest.mark.parametrize("runs", ["1", "0 2", "48 2", "1 x", "1 -2", "1.5 2", "1 99999999999999999999"])
def test_run_lengths_that_do_not_fit(tmp_path: Path, runs: str) -> None:
    samples = table(tmp_path, f"ImageId,EncodedPixels\na.jpg,{runs}\n")
    with pytest.raises(UserError, match=r"a.*run lengths (are pairs|reach from pixel)"):
        samples.read(0)


@pytest.mark.parametrize(
    "text, message",
    [
        ("EncodedPixels\n1 2\n", "it needs ImageId and EncodedPixels"),
        ("ImageId,EncodedPixels\na.jpg,1 2,3\n", "line 2: has 3 cells, but the first line has 2"),
        ("ImageId,EncodedPixels\n,1 2\n", "line 2: names no image"),
    ],
)
def test_mistakes_in_a_table(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        RunLengthLabels().index(write(tmp_path / "a.csv", text))
