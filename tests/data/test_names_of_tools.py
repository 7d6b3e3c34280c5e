"""Masks as labelling tools export them: which colours and numbers their files of names give, and folders of both."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segvit.config import DataConfig
from segvit.data.check.class_names import name_classes
from segvit.data.check.findings import painted_spec
from segvit.data.check.mixed_splits import mixed_splits
from segvit.data.check.report import check_splits
from segvit.data.dataset import open_dataset
from segvit.data.folder_spec import folder_spec
from segvit.data.two_folders import is_folder_of_both
from segvit.errors import UserError

COLORS = {"background": (0, 0, 0), "tool": (250, 50, 83), "box": (140, 120, 240)}
MAP = "# label:color_rgb:parts:actions\n" + "".join(f"{name}:{r},{g},{b}::\n" for name, (r, g, b) in COLORS.items())
SHOWN = np.tile(np.array([0, 1, 2, 2], np.uint8), (3, 1))  # (3, 4), the class of each pixel in the order of COLORS


def export(root: Path, picture: Image.Image, names: str = MAP, file: str = "labelmap.txt") -> DataConfig:
    """Two photos whose masks are both `picture`, with a file of names beside them."""
    for folder in ("photos", "masks"):
        (root / folder).mkdir()
    for number in range(2):
        Image.new("RGB", picture.size, (number, 0, 0)).save(root / "photos" / f"{number}.jpg")
        picture.save(root / "masks" / f"{number}.png")
    (root / file).write_text(names)
    return DataConfig(images=root / "photos", labels=root / "masks")


def palette_picture(order: list[str], *, others: tuple[int, int, int] = (1, 2, 3)) -> Image.Image:
    """The classes of SHOWN as numbers in a picture whose palette has the colours of these classes."""
    numbers = np.array([order.index(name) for name in COLORS], np.uint8)[SHOWN]
    picture = Image.fromarray(numbers, mode="P")
    colors = [COLORS.get(name, others) for name in order]
    picture.putpalette([part for color in colors for part in color])
    return picture


def classes_read(config: DataConfig) -> tuple[list[str], list[str]]:
    """The names of the classes, and the name that each pixel of the first row has."""
    samples = open_dataset(name_classes(config).config, "train")
    names = list(samples.spec.classes)
    return names, [names[k] for k in samples.read(0).labels[0].tolist()]


@pytest.mark.parametrize(
    "picture",
    [
        Image.fromarray(np.array(list(COLORS.values()), np.uint8)[SHOWN]),
        palette_picture(["background", "tool", "box"]),
        palette_picture(["background", "box", "tool"]),  # numbers in the order of another list
        palette_picture(["box", "other", "tool", "background"]),
        Image.fromarray(SHOWN),  # grey numbers, whose colours mean nothing
    ],
    ids=["rgb", "palette", "other order", "gaps", "grey"],
)
def test_every_form_of_one_export_gives_the_same_classes(tmp_path: Path, picture: Image.Image) -> None:
    names, row = classes_read(export(tmp_path, picture))
    assert names == list(COLORS) and row == ["background", "tool", "box", "box"]


def test_a_palette_of_other_colours_is_read_by_number(tmp_path: Path) -> None:
    picture = palette_picture(["background", "tool", "box"])
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])  # VOC's
    assert name_classes(export(tmp_path, picture)).config.classes == tuple(COLORS)


def test_a_mask_of_black_and_white_is_read_by_colour_where_a_class_is_white(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 255]], np.uint8))
    config = export(tmp_path, picture, "background:0,0,0::\nthing:255,255,255::\n")
    assert classes_read(config) == (["background", "thing"], ["background", "thing"])


def test_a_palette_that_contradicts_the_file_in_part_is_refused(tmp_path: Path) -> None:
    config = export(tmp_path, palette_picture(["background", "box", "tool"]))
    (tmp_path / "labelmap.txt").write_text(MAP.replace("250,50,83", "9,9,9"))
    with pytest.raises(UserError, match=r"value 1 has the colour \[140, 120, 240\] of 'box' .* does not list"):
        name_classes(config)


def test_typed_names_take_their_colours_from_the_file(tmp_path: Path) -> None:
    config = export(tmp_path, palette_picture(["background", "box", "tool"]))
    typed = DataConfig(**{**vars(config), "classes": ("box", "background", "tool")})
    assert classes_read(typed) == (["box", "background", "tool"], ["background", "tool", "box", "box"])


def test_proposed_names_come_from_the_file_and_never_from_the_number_of_pixels(tmp_path: Path) -> None:
    config = export(tmp_path, Image.fromarray(np.array(list(COLORS.values()), np.uint8)[SHOWN]))
    typed = DataConfig(**{**vars(config), "classes": ("a", "b", "c")})
    survey = check_splits(typed, ["train"])
    assert "{name: box, color: [140, 120, 240]}  # 6 pixels" in survey.errors[0]
    (tmp_path / "labelmap.txt").unlink()
    text = painted_spec(_counts(), folder_spec(typed))
    assert "{name: class_1, color: [140, 120, 240]}  # 6 pixels" in text
    assert "{name: class_3, color: [250, 50, 83]}  # 2 pixels" in text


def _counts() -> Counter[tuple[int, int, int]]:
    return Counter({(140, 120, 240): 6, (0, 0, 0): 3, (250, 50, 83): 2})


def roboflow(root: Path, suffix: str = "jpg", header: str = "Pixel Value, Class") -> DataConfig:
    """Photos and masks in one folder."""
    root.mkdir(exist_ok=True)
    for number in range(2):
        Image.new("RGB", (4, 3), (number, 0, 0)).save(root / f"{number}.{suffix}")
        Image.fromarray(SHOWN).save(root / f"{number}_mask.png")
    (root / "_classes.csv").write_text(f"{header}\n0, background\n1, tool\n2, big, red box\n")
    return DataConfig(images=root, labels=root)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_masks_beside_their_photos_and_a_table_of_values(tmp_path: Path, suffix: str) -> None:
    config = roboflow(tmp_path, suffix)
    assert is_folder_of_both(tmp_path)
    assert name_classes(config).config.classes == ("background=0", "tool=1", "big,red box=2")
    assert classes_read(config)[1] == ["background", "tool", "big,red box", "big,red box"]
    assert not check_splits(name_classes(config).config, ["train", "val"]).errors


def test_a_value_that_the_table_lacks_is_added_and_the_others_are_kept(tmp_path: Path) -> None:
    config = roboflow(tmp_path)
    (tmp_path / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, tool\n")
    survey = check_splits(name_classes(config).config, ["train", "val"])
    assert survey.fixed and survey.fixed.classes == ("background=0", "tool=1", "value_2=2")
    assert "add `NAME=2` to --data.classes" in " ".join(survey.errors)


def test_a_table_of_another_task_names_no_classes(tmp_path: Path) -> None:
    config = roboflow(tmp_path, header="filename, tool, box")
    assert name_classes(config).config.classes == ("value_0=0", "value_1=1", "value_2=2")
    (tmp_path / "_classes.csv").write_text("Pixel Value, Class\nx, tool\n")
    with pytest.raises(UserError, match=r"_classes.csv: 'x,tool' is not a pixel value and a class"):
        name_classes(config)


def test_an_export_of_roboflow(shared_data: Path) -> None:
    folder = shared_data / "annotations" / "roboflow"
    survey = check_splits(name_classes(DataConfig(images=folder, labels=folder)).config, ["train", "val"])
    assert not survey.errors and [row.name for row in survey.reports["train"].rows][7:] == [
        "road",
        "stair",
        "tree",
        "wall",
    ]


def test_labels_in_one_file_get_no_proposal_of_folders_that_are_not_there(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / "photos" / split).mkdir(parents=True)
    (tmp_path / "ann.json").write_text("{}")
    found = mixed_splits(DataConfig(images=tmp_path / "photos", labels=tmp_path / "ann.json"))
    assert found is not None and "ann.json/" not in found.text
    assert "/train TRAIN_LABELS --data.val-images" in found.text
    assert "with the labels of train/ and val/ in files or folders of their own" in found.text


def test_folders_with_several_splits_below_them(tmp_path: Path) -> None:
    for split in ("Train", "valid", "test"):
        roboflow(tmp_path / split)
    config = DataConfig(images=tmp_path, labels=tmp_path, classes=("background", "tool", "box"))
    (warning,) = [text for text in check_splits(config, ["train"]).warnings if "holds Train/" in text]
    assert f"`segvit check-data {tmp_path}/Train {tmp_path}/Train --data.val-images {tmp_path}/valid" in warning
    apart = DataConfig(
        **{**vars(config), "images": tmp_path / "Train", "labels": tmp_path / "Train"},
    )
    assert not [text for text in check_splits(apart, ["train"]).warnings if "holds" in text]
