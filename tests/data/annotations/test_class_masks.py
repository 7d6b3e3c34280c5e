"""Binary masks of one class each: folders, endings, overlaps, and pictures that are something else."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segvit.data.annotations.recognise import recognise
from segvit.data.annotations.tools.class_masks import find_masks, recognise_masks
from segvit.data.dataset import SegmentationDataset
from segvit.errors import UserError
from tests.helpers.annotated import labels_of, opened, photo


def save(path: Path, *columns: int, value: int = 255, mode: str = "L") -> Path:
    """A mask of 6 x 8 pixels that is `value` in some columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((6, 8), dtype=np.uint8)
    pixels[:, list(columns)] = value
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def dataset(root: Path, pattern: str, *classes: str) -> SegmentationDataset:
    """Two photos with the masks `car` and `van`, which share column 3."""
    for name in "ab":
        photo(root / "photos" / f"{name}.jpg")
        save(root / "masks" / pattern.format(name=name, kind="car"), 1, 2, 3, mode="1" if name == "a" else "RGB")
        save(root / "masks" / pattern.format(name=name, kind="van"), 3, 4, value=1)
    return opened(root / "photos", root / "masks", *classes)


@pytest.mark.parametrize(
    "pattern", ["{kind}/{name}.png", "{name}_{kind}.png", "{name}-{kind}.tif", "{name}.{kind}.png"]
)
def test_folders_and_endings(tmp_path: Path, pattern: str) -> None:
    samples = dataset(tmp_path, pattern)
    assert samples.spec.classes == ("background", "car", "van") and len(samples) == 2
    assert labels_of(samples)[0].tolist() == [0, 1, 1, 2, 2, 0, 0, 0]


def test_one_class_in_each_image(tmp_path: Path) -> None:
    for name, kind in (("a", "car"), ("b", "dog")):
        photo(tmp_path / "photos" / f"{name}.jpg")
        save(tmp_path / "masks" / kind / f"{name}.png", 1)
        save(tmp_path / "one" / "car" / f"{name}.png", 1)
        save(tmp_path / "splits" / ("train" if name == "a" else "val") / f"{name}.png", 1)
    samples = opened(tmp_path / "photos", tmp_path / "masks")
    assert samples.spec.classes == ("background", "car", "dog")
    assert [labels_of(samples, index)[0, 1] for index in range(2)] == [1, 2]
    with pytest.raises(UserError, match=f"give that folder, as in `segvit check-data PHOTOS {tmp_path}/one/car`"):
        recognise(tmp_path / "photos", tmp_path / "one")
    assert recognise(tmp_path / "photos", tmp_path / "splits") is None


def test_one_class_in_each_image_at_the_end_of_its_name(tmp_path: Path) -> None:
    """Classes are endings that several images share. Endings of their own, such as dates, are none."""
    for name, kind in (("a", "car"), ("b", "dog"), ("c", "car")):
        photo(tmp_path / "photos" / f"{name}.jpg")
        save(tmp_path / "masks" / f"{name}_{kind}.png", 1)
        save(tmp_path / "dated" / f"{name}_2024{ord(name)}.png", 1)
        save(tmp_path / "same" / f"{name}_mask.png", 1)
    samples = opened(tmp_path / "photos", tmp_path / "masks")
    assert samples.spec.classes == ("background", "car", "dog")
    assert [labels_of(samples, index)[0, 1] for index in range(3)] == [1, 2, 1]
    for folder in ("dated", "same"):
        assert recognise_masks(["a", "b", "c"], tmp_path / folder) is None


def test_the_last_class_wins(tmp_path: Path) -> None:
    samples = dataset(tmp_path, "{kind}/{name}.png", "van", "background", "car")
    assert labels_of(samples)[0].tolist() == [1, 2, 2, 2, 0, 1, 1, 1]


def test_a_mask_of_the_background_is_below_the_others(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / "masks" / "background" / f"{name}.png", *range(8))
    assert labels_of(dataset(tmp_path, "{kind}/{name}.png"))[0].tolist() == [0, 1, 1, 2, 2, 0, 0, 0]


def test_the_longest_name_of_an_image_counts(tmp_path: Path) -> None:
    for name in ("a_car.png", "a_b_car.png", "a_b_red_van.png"):
        save(tmp_path / name, 1)
    found = find_masks(["a", "a_b"], tmp_path)
    assert {name: sorted(kinds) for name, kinds in found.items()} == {"a": ["car"], "a_b": ["car", "red_van"]}


def test_label_maps_are_not_taken_for_masks_of_a_class(tmp_path: Path) -> None:
    dataset(tmp_path, "{kind}/{name}.png")
    for name, columns in (("a", (1,)), ("b", (2,))):
        save(tmp_path / "maps" / f"{name}.png", *columns)
        save(tmp_path / "split" / ("train" if name == "a" else "val") / f"{name}.png", *columns)
        save(tmp_path / "grey" / "car" / f"{name}.png", *columns, value=3)
        Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).save(tmp_path / "grey" / "car" / f"{name}.png")
        save(tmp_path / "grey" / "van" / f"{name}.png", *columns)
    for folder in ("maps", "split", "grey"):
        assert recognise_masks(["a", "b"], tmp_path / folder) is None
        assert recognise(tmp_path / "photos", tmp_path / folder) is None


def test_masks_of_two_sizes_and_two_masks_of_one_class(tmp_path: Path) -> None:
    samples = dataset(tmp_path, "{kind}/{name}.png")
    Image.new("L", (3, 3)).save(tmp_path / "masks" / "van" / "a.png")
    with pytest.raises(UserError, match="its masks have different sizes"):
        samples.read(0)
    save(tmp_path / "masks" / "van" / "a.tif", 1)
    with pytest.raises(UserError, match="are both the mask of 'van' of 'a'; keep one"):
        find_masks(["a"], tmp_path / "masks")
