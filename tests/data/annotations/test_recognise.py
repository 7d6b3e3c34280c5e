"""Recognising files by their content, choosing classes with `data.classes`, and the report of `check-data`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segvit.cli.flags import with_folders
from segvit.config import DataConfig
from segvit.data.annotations.recognise import recognise
from segvit.data.check.class_names import name_classes
from segvit.data.check.report import check_splits
from segvit.data.folder_spec import resolve_spec
from segvit.data.two_folders import check_folders, is_folder_of_both
from segvit.errors import UserError
from segvit.pictures.paint import without_background
from segvit.prediction.annotations.annotated import drawn_classes
from tests.helpers.annotated import SQUARE, labels_of, opened, photo, write

CORNER = [[6.0, 4.0], [8.0, 4.0], [8.0, 6.0], [6.0, 6.0]]


def shape(label: str, points: Any = SQUARE, kind: str = "polygon") -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two photos with LabelMe's files beside them: a car and a van, and a dog."""
    for name, shapes in (("a", [shape("car"), shape("van", CORNER)]), ("b", [shape("dog")])):
        photo(tmp_path / f"{name}.jpg")
        size = {"imageHeight": 6, "imageWidth": 8}
        write(tmp_path / f"{name}.json", {"shapes": shapes, "imagePath": f"{name}.jpg", **size})
    return tmp_path


def classes_of(folder: Path, *classes: str) -> tuple[str, ...]:
    return resolve_spec(DataConfig(images=folder, labels=folder, classes=classes)).classes


def test_classes_are_chosen_ordered_joined_and_ignored(folder: Path) -> None:
    assert classes_of(folder) == ("background", "car", "dog", "van")
    assert classes_of(folder, "van", "dog", "background", "car") == ("van", "dog", "background", "car")
    labels = labels_of(opened(folder, folder, "background", "car", "van=car", "dog=ignore"))
    assert labels[1, 1] == labels[4, 6] == 1 and labels[0, 0] == 0
    samples = opened(folder, folder, "car", "dog", "van=ignore")  # without background, the rest is ignored
    assert labels_of(samples)[0, 0] == labels_of(samples)[4, 6] == 255 and labels_of(samples, 1)[1, 1] == 1
    assert labels_of(opened(folder, folder, "background", "car", "van=background", "dog"))[4, 6] == 0
    rest = opened(folder, folder, "background", "dog", "others=ignore")
    assert labels_of(rest)[1, 1] == labels_of(rest)[4, 6] == 255 and labels_of(rest, 1)[1, 1] == 1
    assert labels_of(opened(folder, folder, "background", "dog", "others=dog"))[1, 1] == 1


@pytest.mark.parametrize(
    "classes, told",
    [
        (("background", "car", "dog", "vann"), "'vann' is no class in .* (did you mean 'van'?)"),
        (("background", "car", "dog"), "also has van: add it to --data.classes, or type there van=ignore"),
        (("background", "car"), "also has dog, van: add them to --data.classes, or type there dog=ignore"),
        (("background", "car=1", "dog", "van"), "'car=1': write car=ignore, or car=CLASS"),
        (("background", "cat=car", "car", "dog", "van"), "'cat' is no class in"),
    ],
)
def test_classes_that_do_not_fit(classes: tuple[str, ...], told: str, folder: Path) -> None:
    with pytest.raises(UserError) as caught:
        classes_of(folder, *classes)
    before, _, after = told.partition(" .* ")
    assert before in str(caught.value) and after in str(caught.value)


def test_a_list_of_names_gives_the_order(folder: Path) -> None:
    (folder / "labels.txt").write_text("__ignore__\n_background_\nvan\nbus\ncar\n")
    assert classes_of(folder) == ("background", "van", "bus", "car", "dog")
    assert classes_of(folder, "background", "car", "van", "dog") == ("background", "car", "van", "dog")  # bus is unused
    (folder / "labels.txt").write_text("van=3\n")  # describes label maps
    assert classes_of(folder) == ("background", "car", "dog", "van")


def test_a_name_may_hold_an_equals_sign(folder: Path) -> None:
    write(folder / "b.json", {"shapes": [shape("a=b")], "imagePath": "b.jpg"})
    assert classes_of(folder, "a=b", "car", "van") == ("a=b", "car", "van")


def test_naming_prints_what_was_recognised(folder: Path) -> None:
    data = DataConfig(images=folder, labels=folder)
    named = name_classes(data)
    assert named.text == named.found == "labelme: 2 files, 3 polygons, classes background, car, dog, van"
    assert named.config.classes == ("background", "car", "dog", "van")
    again = name_classes(named.config)
    assert again.config == named.config and not again.text and again.found == named.text
    write(folder / "b.json", {"shapes": [shape("dog"), shape("dog", [[1, 1]], "point")], "imagePath": "b.jpg"})
    assert name_classes(data).notes == ("1 shape of no area left out: 1 x point",)
    (folder / "b.json").write_text("{")
    assert name_classes(data).notes[0].startswith("1 file cannot be read")


def test_a_class_called_ignore_is_never_dropped_silently(folder: Path) -> None:
    write(folder / "b.json", {"shapes": [shape("ignore")], "imagePath": "b.jpg"})
    with pytest.raises(UserError, match=r"has a class called 'ignore'.*type ignore=CLASS in --data.classes"):
        classes_of(folder)
    with pytest.raises(UserError, match="also has ignore"):
        classes_of(folder, "background", "car", "van")
    assert labels_of(opened(folder, folder, "background", "car", "van", "ignore=car"), 1)[1, 1] == 1
    assert labels_of(opened(folder, folder, "background", "car", "van", "others=car"), 1)[1, 1] == 1
    assert labels_of(opened(folder, folder, "background", "car", "van", "ignore=ignore"), 1)[1, 1] == 255


def test_what_else_is_wrong(folder: Path) -> None:
    with pytest.raises(UserError, match=r"data.ignore lists values.*NAME=ignore"):
        resolve_spec(DataConfig(images=folder, labels=folder, ignore=(0,)))
    (folder / "masks").mkdir()
    with pytest.raises(UserError, match=r"only one of data\.labels and data\.val_labels holds files of labelme"):
        resolve_spec(DataConfig(images=folder, labels=folder, val_images=folder, val_labels=folder / "masks"))
    box = '<box label="a" xtl="0" ytl="0" xbr="1" ybr="1"/>'
    xml = f'<annotations><image name="a" width="8" height="6">{box}</image></annotations>'
    write(folder / "a.xml", xml)
    with pytest.raises(
        UserError,
        match=r"files of several tools: .*LabelMe \(a\.json\).*; give one file, or a glob, .*/\*\*/\*\.json' or",
    ):
        recognise(folder, folder)
    found = recognise(folder, folder / "*.json")
    assert found is not None and found.summary.files == 2
    for name in "ab":
        write(folder / "two" / f"{name}.xml", xml)
    with pytest.raises(UserError, match=r"several files of CVAT: .*a\.xml, .*b\.xml; give one"):
        recognise(folder, folder / "two")


def test_masks_with_other_files_beside_them_stay_masks(folder: Path) -> None:
    photo(folder / "masks" / "a.png")
    write(folder / "masks" / "notes.json", {"shapes": [], "imagePath": ""})
    assert recognise(folder, folder / "masks") is None
    write(folder / "masks" / "a.json", {"shapes": [shape("a")], "imagePath": "a.png"})  # a copy of the photo
    assert recognise(folder, folder / "masks") is not None


def test_two_paths_behind_a_command(folder: Path) -> None:
    check_folders(folder, folder / "a.json", verb="train")
    assert (
        is_folder_of_both(folder) and with_folders(DataConfig(), folder, None, verb="train", given=()).labels == folder
    )


def test_the_root_of_an_export_gets_the_command_for_it(tmp_path: Path) -> None:
    roboflow, yolo, supervisely = (tmp_path / name for name in ("r", "y", "s"))
    for split in ("train", "valid"):
        photo(roboflow / split / "a.jpg")
        write(roboflow / split / "_annotations.coco.json", "{}")
        photo(yolo / split / "images" / "a.jpg")
        write(yolo / split / "labels" / "a.txt", "0 0.5 0.5 0.5 0.5")
    write(yolo / "data.yaml", "train: ../train/images\nval: ../valid/images\nnames: [car]\n")
    photo(supervisely / "ds" / "img" / "a.jpg")
    write(supervisely / "ds" / "ann" / "a.jpg.json", "{}")
    for root, command in (
        (roboflow, f"{roboflow}/train {roboflow}/train --data.val-images {roboflow}/valid --data.val-labels"),
        (yolo, f"--data.spec {yolo}/data.yaml --data.root {yolo}`"),
        (supervisely, f"{supervisely}/ds/img {supervisely}/ds/ann`"),
    ):
        assert not is_folder_of_both(root)
        with pytest.raises(UserError) as caught:
            check_folders(root, None, verb="train")
        assert f"type `segvit train {command}" in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["labelstudio.json", "via.json", "cvat.xml", "yolo", "supervisely", "supervisely/ann", "perclass"],
)
def test_the_same_boxes_in_the_forms_of_seven_tools(name: str, shared_cases: Path) -> None:
    folder = shared_cases / "label-tools"
    samples = opened(folder / "photos", folder / name, "background", "box")
    expected = np.zeros((48, 64))
    expected[8:24, 6:24] = 1
    assert (labels_of(samples) == expected).all()


@pytest.mark.parametrize(
    "element, told",
    [
        ("polygon", "XML of LabelMe's old website"),
        ("bndbox", "Pascal VOC, with boxes alone, which segvit does not read; give the folder"),
    ],
)
def test_xml_of_one_photo_is_named(element: str, told: str, tmp_path: Path) -> None:
    text = f"<annotation><object><name>a</name><{element}></{element}></object></annotation>"
    with pytest.raises(UserError, match=told):
        recognise(tmp_path, write(tmp_path / "labels" / "a.xml", text).parent)


def test_files_of_no_known_form(tmp_path: Path) -> None:
    unknown, place = "holds no annotations of a known form", r"cannot be read as JSON .*line 1 column"
    for name, content, told in (
        ("a.json", "{}", unknown),
        ("b.json", "{", place),
        ("c.json", "", place),
        ("c.txt", "hello", unknown),
        ("d.xml", "<a/>", unknown),
        ("e.bin", "\0", unknown),
        ("f.csv", "", "f.csv: the file is empty"),
        ("g/a.json", "[1,", place),
    ):
        file = write(tmp_path / name, content)
        with pytest.raises(UserError, match=told):
            recognise(tmp_path, file.parent if file.parent != tmp_path else file)
    assert recognise(tmp_path, tmp_path / "none") is None


def test_the_report_counts_doubtful_shapes(folder: Path) -> None:
    bow = [[0, 0], [5, 5], [5, 0], [0, 5]]
    shapes = [
        shape("Dog", bow),
        shape("dog ", [[1, 1], [1.5, 1], [1.5, 1.5]]),
        shape("dog", [[5, 3], [12, 3], [12, 5]]),
    ]
    write(folder / "b.json", {"shapes": [*shapes, shape("dog", [[1, 1]], "point")], "imagePath": "b.jpg"})
    photo(folder / "new.jpg")
    survey = check_splits(DataConfig(images=folder, labels=folder, val_fraction=0.5), ["train", "val"])
    kinds = {finding.kind: finding for finding in survey.findings}
    b = folder / "b.json"
    for kind, text in (
        ("left-out", f"1 image without labels left out: {folder / 'new.jpg'}"),
        ("no-areas", f"1 shape of no area left out (1 x point): {b}"),
        (
            "outside",
            f"1 shape with a part more than 1 pixel outside the image, which is cut off: {b}: polygon of 'dog'",
        ),
        ("tiny", f"1 shape of less than one pixel, which may label nothing: {b}: polygon of 'dog '"),
        ("self-crossing", "1 polygon with edges that cross"),
        ("names-alike", "class names differ by case or blanks only: 'Dog' and 'dog' and 'dog '"),
    ):
        assert text in kinds[kind].text and kinds[kind].level == "warning" and kinds[kind].count == 1
    assert not survey.errors


def test_one_class_alone_says_what_to_type(folder: Path) -> None:
    data = DataConfig(images=folder, labels=folder, classes=("car", "van=ignore", "dog=ignore"), val_fraction=0.5)
    assert "type `--data.classes background car`" in " ".join(check_splits(data, ["train", "val"]).errors)


@pytest.mark.parametrize("name", ["background", "Background", "_background_", "bg", " BG "])
def test_every_part_agrees_on_the_names_of_background(name: str, folder: Path) -> None:
    write(folder / "b.json", {"shapes": [shape("dog"), shape(name, CORNER)], "imagePath": "b.jpg"})
    assert classes_of(folder) == ("background", "car", "dog", "van")
    assert labels_of(opened(folder, folder), 1)[4, 6] == 0
    assert drawn_classes([name, "car"]) == {1: "car"}
    assert without_background([name, "car"], [(1, 2, 3), (4, 5, 6)]) == (None, (4, 5, 6))
