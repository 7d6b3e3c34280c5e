"""Two folders behind a command, `segvit check-data PHOTOS MASKS`: what is refused, and where class names come from."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import segvit
from segvit.cli import main as cli
from segvit.config import DataConfig
from segvit.data.check.class_names import name_classes
from segvit.data.dataset import open_dataset
from segvit.data.two_folders import check_order
from segvit.errors import UserError
from tests.helpers.annotated import photo, write as labelled

COLORS = ((0, 0, 0), (250, 50, 20), (10, 60, 240))


def write(root: Path, *values: int, colors: bool = False) -> DataConfig:
    """Six photos and masks of 24 x 16 pixels whose columns hold these values, or colours by their number."""
    (root / "photos").mkdir()
    (root / "masks").mkdir()
    mask = np.tile(np.resize(np.array(values, np.uint8), 24), (16, 1))
    for number in range(6):
        noise = np.random.default_rng(number).integers(0, 256, (16, 24, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / "photos" / f"{number}.png")
        pixels = np.array(COLORS, np.uint8)[mask] if colors else mask
        Image.fromarray(pixels).save(root / "masks" / f"{number}.png")
    return DataConfig(images=root / "photos", labels=root / "masks")


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str]]:
    """Run a command in the folder of the data: its exit code, and what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: Any) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["segvit", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as leave:
            code = int(leave.code or 0)
        seen = capsys.readouterr()
        assert "Traceback" not in seen.err
        return code, seen.out + seen.err

    return run


@pytest.mark.parametrize(
    "values, classes, ignored",
    [
        ((0, 18), ("value_0=0", "value_18=18"), False),
        ((0, 255), ("value_0=0", "value_255=255"), False),
        ((0, 85, 170, 255), ("value_0=0", "value_85=85", "value_170=170", "value_255=255"), False),
        ((0, 128, 255), ("value_0=0", "value_128=128", "value_255=255"), False),
        ((0, 1, 2, 255), ("value_0=0", "value_1=1", "value_2=2"), True),
        ((0, 15, 255), ("value_0=0", "value_15=15"), True),
        ((1, 2), ("value_1=1", "value_2=2"), False),
    ],
)
def test_without_names_the_values_name_the_classes(
    tmp_path: Path, values: tuple[int, ...], classes: tuple[str, ...], ignored: bool
) -> None:
    config = write(tmp_path, *values)
    named = name_classes(config)
    assert named.config.classes == classes
    assert ("255 is ignored" in named.text) == ignored
    assert named.text.startswith("warning: the classes have no names")
    assert f"--data.classes NAME={values[0]} NAME={values[1]}" in named.text
    assert f"in {tmp_path / 'masks' / 'classes.txt'}" in named.text
    read = open_dataset(named.config, "train").read(0)
    assert set(read.labels.unique().tolist()) == {*range(len(classes))} | ({255} if ignored else set())


def test_ignored_values_of_ones_own_are_no_classes(tmp_path: Path) -> None:
    config = write(tmp_path, 0, 7, 9)
    named = name_classes(DataConfig(**{**vars(config), "ignore": (0,)}))
    assert named.config.classes == ("value_7=7", "value_9=9") and "0 is ignored" in named.text


@pytest.mark.parametrize(
    "place, text, classes",
    [
        ("masks/classes.txt", "sky\nroad\n\n", ("sky", "road")),
        ("classes.txt", "\ufeffsky\r\nroad\r\n", ("sky", "road")),
        ("classes.txt", "sky=0\nroad=18\n", ("sky=0", "road=18")),
        ("classes.txt", "0 sky\n18: wet road\n", ("sky=0", "wet road=18")),
        ("masks/class_names.txt", "__ignore__\n_background_\nroad\n", ("_background_", "road")),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nsky:0,0,0::\nroad:250,50,20::\n", ("sky", "road")),
    ],
)
def test_names_come_from_a_file_in_the_folder_of_masks_or_beside_it(
    tmp_path: Path, place: str, text: str, classes: tuple[str, ...]
) -> None:
    config = write(tmp_path, 0, 18 if "18" in text else 1)
    (tmp_path / place).write_text(text, encoding="utf-8", newline="")
    named = name_classes(config)
    assert named.config.classes == classes
    assert named.text.startswith(f"class names from {tmp_path / place}: ")
    assert set(open_dataset(named.config, "train").read(0).labels.unique().tolist()) == {0, 1}


def test_painted_masks_take_names_from_the_colours_of_a_labelmap(tmp_path: Path) -> None:
    config = write(tmp_path, 0, 2, 1, colors=True)
    (tmp_path / "labelmap.txt").write_text("background:0,0,0::\nbox:10,60,240::\ntool:250,50,20::\n")
    named = name_classes(config)
    assert named.config.classes == ("background=#000000", "box=#0a3cf0", "tool=#fa3214")
    train = open_dataset(named.config, "train")
    assert train.spec.classes == ("background", "box", "tool") and train.spec.palette == (COLORS[0], *COLORS[:0:-1])
    assert train.read(0).labels[0, :3].tolist() == [0, 1, 2]  # the columns hold black, blue, red


def test_smooth_edges_of_painted_masks_are_read_by_the_word_that_the_errors_name(tmp_path: Path) -> None:
    pixels = np.zeros((16, 24, 3), dtype=np.uint8)
    pixels[:, 12:] = 0x8C, 0x78, 0xF0
    pixels[:, :12, 0] = np.arange(192).reshape(16, 12) % 60  # a smooth edge, nearest to black
    for number in range(2):
        for folder in ("photos", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
        Image.new("RGB", (24, 16), (number, 0, 0)).save(tmp_path / "photos" / f"{number}.jpg")
        Image.fromarray(pixels).save(tmp_path / "masks" / f"{number}.png")
    config = DataConfig(
        images=tmp_path / "photos", labels=tmp_path / "masks", classes=("ground=#000000", "box=#8c78f0")
    )
    with pytest.raises(UserError, match=r"smooth edges.*add `others=nearest` to --data.classes") as caught:
        open_dataset(config, "train").read(0)  # type: ignore[union-attr]
    assert "format: color" not in str(caught.value)
    for word, value in (("nearest", 0), ("ignore", 255), ("box", 1)):
        samples = open_dataset(replace(config, classes=(*config.classes, f"others={word}")), "train")
        assert samples.read(0).labels[1, 1] == value and samples.read(0).labels[1, 20] == 1  # type: ignore[union-attr]
    with pytest.raises(UserError, match="'others=sky': write others=nearest, others=ignore or a class"):
        open_dataset(replace(config, classes=(*config.classes, "others=sky")), "train")
    ramp = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    Image.fromarray(ramp).save(tmp_path / "masks" / "0.png")
    with pytest.raises(UserError, match=r"colours: .*`--data.classes 'NAME=#8c78f0' 'NAME=#.* others=nearest"):
        name_classes(replace(config, classes=()))


def test_painted_masks_without_names_are_named_by_their_colours(tmp_path: Path) -> None:
    named = name_classes(write(tmp_path, 0, 1, colors=True))
    assert named.config.classes == ("color_000000=#000000", "color_fa3214=#fa3214")
    assert "--data.classes 'NAME=#000000'" in named.text


def test_given_names_a_spec_and_one_folder_are_left_alone(tmp_path: Path) -> None:
    config = write(tmp_path, 0, 1)
    for given in (
        DataConfig(**{**vars(config), "classes": ("a", "b")}),
        DataConfig(spec="shapes"),
        DataConfig(images=config.images),
    ):
        named = name_classes(given)
        assert named.config is given and not named.text


def test_values_that_cannot_be_classes_are_refused(tmp_path: Path) -> None:
    config = write(tmp_path, 0, 255, 250, 3)
    with pytest.raises(UserError, match=r"hold 4 different values: so many look like photos or smoothed masks"):
        name_classes(config)
    (tmp_path / "classes.txt").write_text("# only a comment\n")
    with pytest.raises(UserError, match=r"classes.txt: there is no class name in it"):
        name_classes(config)


def test_check_data_ends_with_the_same_two_folders_to_train(
    tmp_path: Path, command: Callable[..., tuple[int, str]]
) -> None:
    write(tmp_path, 0, 85, 170)
    code, said = command("check-data", "photos", "masks")
    assert code == 0 and "value_85" in said and said.endswith("Run:\n  segvit train photos masks\n")
    code, said = command("check-data", "photos", "masks", "--data.classes", "a=0", "b=85", "c=170")
    assert code == 0 and said.endswith("  segvit train photos masks --data.classes a=0 b=85 c=170\n")
    code, said = command("check-data", "photos", "masks", "--data.classes", "a", "b", "c")
    assert code == 1 and "  segvit check-data photos masks --data.classes a=0 b=85 c=170\n" in said


def test_the_recipe_names_the_classes_and_keeps_them(tmp_path: Path) -> None:
    found = segvit.recipe(write(tmp_path, 0, 7), {"model.pretrained": False, "device": "cpu"})
    assert found.config.data.classes == ("value_0=0", "value_7=7")
    assert found.text.startswith("warning: the classes have no names")


@pytest.mark.parametrize(
    "words, told",
    [
        ("photos", "give the folder of the masks as well: `segvit {verb} photos MASKS`"),
        (".", "give two folders: `segvit {verb} photos masks`"),
        ("fotos masks", "there is no folder fotos (did you mean 'photos'?): give the folder of the photos"),
        ("photos/0.png masks", "photos/0.png is a file: give the folder of the photos, as in `segvit {verb} PHOTOS"),
        ("photos own.yaml", "For a file of settings in YAML, type `segvit {verb} --config own.yaml`"),
        ("spec.yaml", "type `segvit {verb} --data.spec spec.yaml --data.root FOLDER`"),
        ("photos labels.json", "labels.json holds no annotations of a known form; give another file"),
        ("photos photos", "photos holds photos alone, neither masks such as 0_mask.png nor annotations: give the"),
        ("finetune", "finetune is no folder: type `segvit {verb} --config finetune`"),
        ("camvid", "camvid is no folder: type `segvit {verb} --data.spec camvid --data.root FOLDER`"),
        (
            "masks photos",
            "masks holds masks and photos holds photos: swap them, as in `segvit check-data photos",
        ),
        ("photos masks --data.labels masks", "photos and --data.labels masks both name a folder: leave one out"),
    ],
)
@pytest.mark.parametrize("verb", ["check-data", "train"])
def test_what_is_wrong_with_the_folders_is_told(
    tmp_path: Path, command: Callable[..., tuple[int, str]], verb: str, words: str, told: str
) -> None:
    write(tmp_path, 0, 1)
    (tmp_path / "own.yaml").write_text("steps: 3\n")
    (tmp_path / "spec.yaml").write_text("splits: {train: {images: a, labels: b}}\n")
    (tmp_path / "labels.json").write_text("{}")
    code, said = command(verb, *words.split())
    assert code == 2 and told.format(verb=verb) in said
    assert not (tmp_path / "runs").exists()


def test_folders_are_swapped_only_if_both_look_so(tmp_path: Path) -> None:
    config = write(tmp_path, 0, 1)
    assert config.images and config.labels
    noise = np.random.default_rng(0).integers(0, 60_000, (16, 24))
    for number in range(6):  # drawn images of few colours, and masks of 16 bits with many values
        Image.new("RGB", (24, 16), COLORS[1]).save(config.images / f"{number}.png")
        Image.fromarray(noise.astype(np.uint16)).save(config.labels / f"{number}.png")
    check_order(config.images, config.labels)
    Image.fromarray(noise.astype(np.uint8)).convert("RGB").save(config.labels / "0.jpg")
    check_order(config.images, config.labels)


def write_labelme(root: Path) -> None:
    """Four photos of 24 x 16 pixels with LabelMe's files in another folder."""
    for number in range(4):
        photo(root / "photos" / f"{number}.png", (16, 24))
        shapes = [
            {"label": "leaf", "points": [[2, 2], [12, 2], [12, 12], [2, 12]], "shape_type": "polygon"},
            {"label": "leaf", "points": [[1, 1]], "shape_type": "point"},
        ]
        file = {"shapes": shapes, "imagePath": f"{number}.png", "imageHeight": 16, "imageWidth": 24}
        labelled(root / "labelled" / f"{number}.json", file)


def test_files_of_a_labelling_tool_are_checked_without_flags(
    tmp_path: Path, command: Callable[..., tuple[int, str]]
) -> None:
    write_labelme(tmp_path)
    code, said = command("check-data", "photos", "labelled")
    assert code == 0 and said.startswith("labelme: 4 files, 4 polygons, classes background, leaf\n")
    assert said.count("4 shapes of no area left out (4 x point)") == 1
    assert said.endswith("Run:\n  segvit train photos labelled\n")
    code, said = command("check-data", "--data.images", "photos", "--data.labels", "labelled", "--data.classes", "leaf")
    assert code == 1 and "type `--data.classes background leaf`" in said
    code, said = command("check-data", "photos", "labelled", "--data.classes", "background", "leav")
    assert code == 2 and "'leav' is no class in labelled (did you mean 'leaf'?)" in said


@pytest.mark.slow
def test_files_of_a_labelling_tool_are_trained_on(tmp_path: Path, command: Callable[..., tuple[int, str]]) -> None:
    write_labelme(tmp_path)
    small = ("--model.no-pretrained", "--model.backbone", "vit_tiny_patch16_224", "--model.image-size", 32)
    code, said = command("train", "photos", "labelled", "--steps", 2, *small)
    assert (
        code == 0 and said.count("labelme: 4 files") == 1 and said.count("warning: 4 shapes of no area left out") == 1
    )
    code, said = command("evaluate", "runs/photos/best.safetensors")
    assert code == 0 and "leaf" in said
    code, said = command("train", "--resume", "--steps", 3)
    assert code == 0 and (tmp_path / "runs" / "photos" / "best.safetensors").exists()
