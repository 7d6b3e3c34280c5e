"""YOLO's labels: outlines and boxes, names, folders, the YAML file as a spec, and what is wrong in a line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segvit.config import DataConfig
from segvit.data.annotations.recognise import recognise
from segvit.data.check.class_names import name_classes
from segvit.data.check.report import check_splits
from segvit.data.dataset import SegmentationDataset, open_dataset
from segvit.data.given import data_of
from segvit.data.spec import DatasetSpec, load_spec
from segvit.errors import UserError
from tests.helpers.annotated import labels_of, opened, photo, write

OUTLINE = "1 0.125 0.16667 0.5 0.16667 0.5 0.66667 0.125 0.66667\n"
"""The pixels 1..3 of rows and columns of a photo of 6 x 8 pixels."""


def dataset(root: Path, text: str = OUTLINE, names: str = "names: [car, bus]") -> SegmentationDataset:
    """One photo and its file, in the folders that YOLO uses."""
    photo(root / "images" / "train" / "a.jpg")
    write(root / "labels" / "train" / "a.txt", text)
    write(root / "data.yaml", f"path: .\ntrain: images/train\nval: images/train\n{names}\n")
    return opened(root / "images", root / "labels")


def test_outlines_and_boxes(tmp_path: Path) -> None:
    samples = dataset(tmp_path, OUTLINE + "\n0 0.875 0.75 0.25 0.5\r\n")
    assert samples.spec.classes == ("background", "car", "bus")
    assert labels_of(samples).tolist() == [
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 2, 2, 2, 0, 0, 0, 0],
        [0, 2, 2, 2, 0, 0, 0, 0],
        [0, 2, 2, 2, 0, 0, 1, 1],
        [0, 0, 0, 0, 0, 0, 1, 1],
        [0, 0, 0, 0, 0, 0, 1, 1],
    ]


def test_an_empty_file_is_an_image_without_objects(tmp_path: Path) -> None:
    write(tmp_path / "labels" / "train" / "b.txt", "")
    photo(tmp_path / "images" / "train" / "b.jpg")
    samples = dataset(tmp_path)
    assert len(samples) == 2 and not labels_of(samples, 1).any()


def test_outlines_are_shares_of_the_image_as_displayed(tmp_path: Path) -> None:
    dataset(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 8)).save(tmp_path / "images" / "train" / "a.jpg", exif=exif)  # displayed 8 wide, 6 high
    labels = labels_of(opened(tmp_path / "images", tmp_path / "labels"))
    assert labels.shape == (6, 8) and (labels[1:4, 1:4] == 2).all()


@pytest.mark.parametrize(
    "names, classes",
    [
        ("names: {0: car, 1: bus}", ("background", "car", "bus")),
        ("names:\n  1: bus\n  7: 4x4", ("background", "bus", "4x4")),
        ("nc: 2", ("background", "class_1")),
    ],
)
def test_names_by_number(tmp_path: Path, names: str, classes: tuple[str, ...]) -> None:
    assert dataset(tmp_path, names=names).spec.classes == classes
    found = recognise(tmp_path / "images", tmp_path / "labels")
    assert found and any("no data.yaml" in note for note in found.notes) == ("nc" in names)


def test_the_names_of_another_file_beside_the_labels_are_a_list(tmp_path: Path) -> None:
    write(tmp_path / "labels" / "train" / "classes.txt", "car\nbus\n")
    assert len(dataset(tmp_path)) == 1


@pytest.mark.parametrize("file", ["labels/train/classes.txt", "labels/classes.txt", "classes.txt", "obj.names"])
def test_line_n_of_a_list_names_class_n(tmp_path: Path, file: str) -> None:
    dataset(tmp_path)
    (tmp_path / "data.yaml").unlink()
    folders = tmp_path / "images", tmp_path / "labels"
    assert "class_1" in name_classes(DataConfig(images=folders[0], labels=folders[1])).config.classes
    write(tmp_path / file, "car\nred bus\n\n")  # the summary of the state before must not stay
    samples = opened(*folders)
    assert samples.spec.classes == ("background", "car", "red bus") and labels_of(samples)[1, 1] == 2
    survey = check_splits(DataConfig(images=folders[0], labels=folders[1], val_fraction=0), ["train"])
    assert not [finding for finding in survey.findings if finding.kind in ("left-out", "remark")]


def test_classes_without_names_are_reported_once(tmp_path: Path) -> None:
    dataset(tmp_path, names="nc: 2")
    photo(tmp_path / "images" / "train" / "b.jpg")
    write(tmp_path / "labels" / "train" / "b.txt", OUTLINE)
    config = DataConfig(images=tmp_path / "images", labels=tmp_path / "labels", val_fraction=0.5)
    texts = check_splits(config, ["train", "val"]).warnings
    assert len([text for text in texts if "1 class without a name, because" in text]) == 1
    assert "without a name" not in name_classes(config).text


def test_a_damaged_yaml_file_with_names_is_named(tmp_path: Path) -> None:
    dataset(tmp_path)
    write(tmp_path / "data.yaml", "names: [car, bus\ntrain: images")
    with pytest.raises(UserError, match=r"data.yaml names the classes of the labels below it, and cannot be read"):
        recognise(tmp_path / "images", tmp_path / "labels")


@pytest.mark.parametrize("root", [".", None])
def test_the_yaml_file_is_a_spec(tmp_path: Path, root: str | None) -> None:
    dataset(tmp_path)
    file = tmp_path / "data.yaml"
    config = data_of(file) if root is None else DataConfig(spec=str(file), root=tmp_path)
    for split in ("train", "val"):
        samples = open_dataset(config, split)
        assert (labels_of(samples)[1:4, 1:4] == 2).all()  # type: ignore[arg-type]
    spec = load_spec(file)
    assert spec.classes == ("background", "car", "bus") and DatasetSpec.from_dict(spec.to_dict()) == spec


@pytest.mark.parametrize("train", ["../train/images", "[train/images]", "list.txt"])
def test_folders_as_others_write_them(tmp_path: Path, train: str) -> None:
    photo(tmp_path / "train" / "images" / "a.jpg")
    write(tmp_path / "train" / "labels" / "a.txt", OUTLINE)
    write(tmp_path / "train" / "list.txt", "./images/a.jpg\n")
    place = "train/list.txt" if train == "list.txt" else train
    write(tmp_path / "data.yaml", f"train: {place}\nnames: [car, bus]\n")
    samples = open_dataset(DataConfig(spec=str(tmp_path / "data.yaml"), root=tmp_path, val_fraction=0), "train")
    assert len(samples) == 1 and samples.read(0).labels[1, 1] == 2


def test_several_folders_in_a_split(tmp_path: Path) -> None:
    for name, folder in (("a", "one"), ("b", "two")):
        photo(tmp_path / "images" / folder / f"{name}.jpg")
        write(tmp_path / "labels" / folder / f"{name}.txt", OUTLINE)
    write(tmp_path / "data.yaml", "train: [images/one, images/two]\nnames: [car, bus]\n")
    samples = open_dataset(DataConfig(spec=str(tmp_path / "data.yaml"), root=tmp_path, val_fraction=0), "train")
    assert [samples.read(index).name for index in range(2)] == ["a", "b"]


@pytest.mark.parametrize(
    "line, message",
    [
        ("1 0.1 0.2 0.3 0.4 0.5", "not a class number with a box"),
        ("1 0.1 0.2 0.3 nan", "not a class number with a box"),
        ("1 0.1 0.2 0.3 x", "not a class number with a box"),
        ("1.5 0.1 0.2 0.3 0.4", "not a class number with a box"),
        ("9 0.1 0.2 0.3 0.4", "class 9 has no name; the file of names has 0 to 1"),
        ("1 10 20 30 40 50 60", "60 is not in 0..1; YOLO's numbers are shares of the image"),
    ],
)
def test_mistakes_in_a_line(tmp_path: Path, line: str, message: str) -> None:
    write(tmp_path / "labels" / "train" / "b.txt", line)
    photo(tmp_path / "images" / "train" / "b.jpg")
    with pytest.raises(UserError, match=rf"b.txt: line 1: .*{message}|b.txt: line 1: {message}"):
        dataset(tmp_path).read(1)


def test_mistakes_in_the_yaml_file(tmp_path: Path) -> None:
    for text, message in (
        ("train: a\nnames: car", "`names` is 'car'; give a list"),
        ("train: a\nnames: {x: car}", "`names` is {'x': 'car'}"),
        ("train: a\nnames: [car]\nkpt_shape: [17, 3]", "describes key points"),
        ("train: [1]\nnames: [car]", r"`train` is \[1\]; give a folder"),
    ):
        with pytest.raises(UserError, match=message):
            load_spec(write(tmp_path / "data.yaml", text))


def test_images_without_labels_of_yolo_get_the_command_for_masks(tmp_path: Path) -> None:
    photo(tmp_path / "photos" / "a.jpg")
    file = write(tmp_path / "data.yaml", "train: photos\nnames: {0: car}\n")
    with pytest.raises(
        UserError, match=r"no labels of YOLO \(.txt\) in .*photos. With masks in a folder, type `segvit"
    ):
        load_spec(file)


def test_the_case_of_tools(shared_data: Path) -> None:
    case = shared_data.parent / "cases" / "label-tools"
    samples = opened(case / "photos", case / "yolo", "background", "box")
    expected = np.zeros((48, 64))
    expected[8:24, 6:24] = 1
    assert (labels_of(samples) == expected).all()
