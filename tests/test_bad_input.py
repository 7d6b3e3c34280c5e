"""What users get wrong: every error names the file or key, says what came, and what to type."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from segvit.cli import main as cli
from segvit.config import DataConfig, EvalConfig, ModelConfig, TrainConfig
from segvit.data.check.check import check_dataset
from segvit.data.dataset import SegmentationDataset, open_dataset
from segvit.data.images import read_image
from segvit.data.labels.index import read_labels
from segvit.data.shapes.scenes import ShapesDataset
from segvit.data.spec import DatasetSpec, load_spec
from segvit.errors import UserError
from segvit.evaluation.evaluate import evaluate
from segvit.models.create import create_model
from segvit.models.segvit import SegViT
from segvit.prediction.predict import predict
from segvit.prediction.predict_files import predict_files
from segvit.training.train import train

TINY = ModelConfig(
    backbone="vit_tiny_patch16_224",
    image_size=32,
    patch_size=8,
    embed_dim=32,
    depth=2,
    num_heads=2,
    head_num_layers=1,
)


def said(run: Callable[[], Any], *parts: str) -> str:
    """The text of the UserError that `run` raises, which holds every part."""
    with pytest.raises(UserError) as caught:
        run()
    text = str(caught.value)
    for part in parts:
        assert part in text, f"{part!r} is not in: {text}"
    return text


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run a command line that must fail, and give its one error line."""

    def run(*arguments: Any) -> str:
        monkeypatch.setattr("sys.argv", ["segvit", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert caught.value.code == 2
        errors = capsys.readouterr().err
        assert "Traceback" not in errors
        return " ".join(errors.replace("│", "").split())

    return run


@pytest.fixture(scope="module")
def model() -> SegViT:
    torch.manual_seed(0)
    return create_model(config=TINY, num_classes=8, spec=load_spec("shapes"), protocol=EvalConfig(mode="whole")).eval()


@pytest.fixture(scope="module")
def model_file(model: SegViT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    model.save(path)
    return path


class Folders:
    """Three good pairs in two folders, to spoil."""

    def __init__(self, root: Path) -> None:
        self.images, self.masks = root / "photos", root / "masks"
        self.config = DataConfig(images=self.images, labels=self.masks, classes=("sky", "road"), val_fraction=0)
        for folder in (self.images, self.masks):
            folder.mkdir()
        for name in ("a", "b", "c"):
            noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
            Image.fromarray(noise).save(self.images / f"{name}.jpg")
            self.mask(np.arange(20 * 30).reshape(20, 30) % 2, name)

    def mask(self, values: Any, name: str = "b") -> Path:
        path = self.masks / f"{name}.png"
        values = np.asarray(values)
        Image.fromarray(values if values.dtype == np.uint16 else values.astype(np.uint8)).save(path)
        return path

    def error(self, *parts: str, **changes: Any) -> None:
        """The check and reading the spoilt pair "b" both say every part; a training run says it before it begins."""
        config = DataConfig(**{**vars(self.config), **changes})
        samples = open_dataset(config, "train")
        assert isinstance(samples, SegmentationDataset)
        index = [pair.name for pair in samples.pairs].index("b")
        said(lambda: samples.read(index), *parts)
        said(lambda: check_dataset(samples, decode=True).raise_on_error(), *parts)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


def test_the_folders_are_good_before_they_are_spoilt(folders: Folders) -> None:
    report = check_dataset(open_dataset(folders.config, "train"), decode=True)
    assert not report.errors and not report.warnings


# --- label maps ------------------------------------------------------------------------------------------------------


def test_an_unknown_label_value(folders: Folders) -> None:
    path = folders.mask(np.eye(20, 30) * 77)
    folders.error(str(path), "label value 77 is not a class", "0 sky, 1 road", "--data.classes NAME=77")
    folders.error(str(path), "--data.ignore 255 --data.ignore 77")


def test_an_unknown_value_in_a_dataset_with_a_spec(tmp_path: Path) -> None:
    spec = tmp_path / "mine.yaml"
    spec.write_text("name: mine\nclasses: [sky, road]\nignore: [9]\nsplits: {train: {images: photos, labels: masks}}\n")
    folders = Folders(tmp_path)
    path = folders.mask(np.eye(20, 30) * 77)
    samples = open_dataset(DataConfig(spec=str(spec), root=tmp_path), "train")
    said(lambda: samples.read(1), str(path), "label value 77", "'mine'", "ignored: 9", "`ignore: [9, 77]`")


def test_a_label_one_too_large_for_the_number_of_classes(folders: Folders) -> None:
    """Classes counted from 1, with or without 0 for "unlabelled"."""
    path = folders.mask(np.eye(20, 30) + 1)
    for name in ("a", "c"):
        folders.mask(np.eye(20, 30) + 1, name)
    shifted = "--data.classes sky=1 --data.classes road=2"
    folders.error(str(path), "label value 2 is not a class", "one too large", shifted)
    folders.mask(np.arange(600).reshape(20, 30) % 3)
    folders.error(str(path), "label value 2 is not a class", shifted, "--data.ignore 0")


def test_a_0_255_mask(folders: Folders) -> None:
    path = folders.mask(np.eye(20, 30) * 255)
    for name in ("a", "c"):
        folders.mask(np.eye(20, 30) * 255, name)
    remedy = "--data.classes sky=0 --data.classes road=255"
    folders.error(str(path), "label value 255", "0/255 mask", remedy, ignore=())
    # with the default, 255 is ignored and nothing but one class is left: the check says so
    report = check_dataset(open_dataset(folders.config, "train"))
    said(report.raise_on_error, "hold only 0 and 255", "'sky'", remedy)
    fixed = DataConfig(**{**vars(folders.config), "classes": ("sky=0", "road=255")})  # what it said to type
    assert not check_dataset(open_dataset(fixed, "train")).errors


def test_everything_ignored(folders: Folders) -> None:
    for name in ("a", "b", "c"):
        folders.mask(np.full((20, 30), 255), name)
    said(check_dataset(open_dataset(folders.config, "train")).raise_on_error, "every pixel is ignored", "255", "ignore")


def test_a_photo_as_a_label_map(folders: Folders) -> None:
    path = folders.mask(np.arange(600).reshape(20, 30) % 200)
    folders.error(str(path), "look like a photo", "without interpolation", "PNG")


def test_image_and_labels_of_unequal_size(folders: Folders) -> None:
    path = folders.mask(np.zeros((10, 15)))
    folders.error(str(path), str(folders.images / "b.jpg"), "30 x 20", "15 x 10", "resize one of them")
    folders.mask(np.eye(30, 20))
    folders.error("30 x 20", "20 x 30", "turned by 90 degrees", "EXIF")


@pytest.mark.parametrize("kind", ["painted", "grey"])
def test_a_mask_of_three_channels(folders: Folders, kind: str) -> None:
    values = np.zeros((20, 30, 3))
    values[5:] = [255, 0, 0] if kind == "painted" else [1, 1, 1]
    path = folders.mask(values)
    remedy = "painted in colours" if kind == "painted" else "getchannel(0).save"
    folders.error(str(path), "3 channels (R, G, B)", "one number per pixel", remedy)


def test_a_mask_with_transparency(folders: Folders) -> None:
    path = folders.mask(np.full((20, 30, 4), 255))
    folders.error(str(path), "4 channels (R, G, B, A)")
    values = np.full((20, 30, 4), 255)
    values[:5, :, 3] = 0  # what is drawn lies in the transparency alone
    folders.mask(values)
    folders.error(str(path), "all labels are in its transparency", 'getchannel("A").save')
    folders.mask(np.stack([np.eye(20, 30), np.full((20, 30), 255)], axis=-1))
    folders.error(str(path), "2 channels (L, A)", "one of them is transparency", "getchannel(0).save")


def test_a_mask_of_floats(folders: Folders, tmp_path: Path) -> None:
    path = tmp_path / "b.tif"
    Image.fromarray(np.zeros((20, 30), dtype=np.float32)).save(path)
    said(lambda: read_labels(path), str(path), "floating-point", "whole numbers")
    said(lambda: read_image(path), str(path), "floating-point", "8 or 16 bits")


def test_training_says_it_before_it_begins(folders: Folders, tmp_path: Path) -> None:
    path = folders.mask(np.eye(20, 30) * 77)
    config = DataConfig(**{**vars(folders.config), "val_fraction": 0.4, "workers": 0})
    run = TrainConfig(model=TINY, data=config, steps=1, batch_size=1, device="cpu", output=tmp_path / "run")
    said(lambda: train(run), str(path), "label value 77", "--data.classes NAME=77")
    assert not run.output.exists()


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["photos", "masks"])
@pytest.mark.parametrize("spoil", ["cut short", "empty", "text"])
def test_a_file_that_is_no_whole_image(folders: Folders, kind: str, spoil: str) -> None:
    path = folders.images / "b.jpg" if kind == "photos" else folders.masks / "b.png"
    size = path.stat().st_size
    content = {"cut short": path.read_bytes()[: size // 2], "empty": b"", "text": b"no picture"}[spoil]
    path.write_bytes(content)
    what = "an image" if kind == "photos" else "a label map"
    folders.error(str(path), f"cannot be read as {what}", "replace or remove the file")


def test_a_missing_partner_on_either_side(folders: Folders) -> None:
    (folders.masks / "b.png").unlink()
    text = said(lambda: open_dataset(folders.config, "train"), "images without a label map", str(folders.masks), "(b)")
    assert "data.images" in text and "same path except for the suffix" in text
    folders.mask(np.zeros((20, 30)))
    (folders.images / "a.jpg").unlink()
    said(lambda: open_dataset(folders.config, "train"), "label maps without an image", str(folders.images), "(a)")


def test_partners_by_globs_as_the_error_says(folders: Folders) -> None:
    for path in folders.masks.iterdir():
        path.rename(path.with_name(path.stem + "_mask.png"))
    said(lambda: open_dataset(folders.config, "train"), "data.labels 'masks/*_mask.png'")
    globs = {"images": folders.images / "*.jpg", "labels": folders.masks / "*_mask.png"}
    assert len(open_dataset(DataConfig(**{**vars(folders.config), **globs}), "train")) == 3


def test_an_empty_folder_and_one_of_other_files(folders: Folders) -> None:
    for path in folders.masks.iterdir():
        path.unlink()
    said(lambda: open_dataset(folders.config, "train"), "data.labels", str(folders.masks), "no file of type .png")
    (folders.masks / "a.npy").write_bytes(b"x")
    said(lambda: open_dataset(folders.config, "train"), "has 1 other files (a.npy)")


def test_a_folder_that_is_not_there(folders: Folders, tmp_path: Path) -> None:
    config = DataConfig(**{**vars(folders.config), "images": tmp_path / "fotos"})
    said(lambda: open_dataset(config, "train"), "data.images", f"no folder {tmp_path / 'fotos'}")


def test_two_images_of_one_name(folders: Folders) -> None:
    Image.new("RGB", (30, 20)).save(folders.images / "b.png")
    said(lambda: open_dataset(folders.config, "train"), "b.jpg", "b.png", "same name 'b'", "keep one")


def test_a_list_as_windows_writes_it_and_names_as_macos_does(folders: Folders, tmp_path: Path) -> None:
    composed, taken_apart = "caf\u00e9", "cafe\u0301"  # look the same
    (tmp_path / "photos" / "a.jpg").rename(tmp_path / "photos" / f"{taken_apart}.jpg")
    (tmp_path / "masks" / "a.png").rename(tmp_path / "masks" / f"{composed}.png")
    spec = tmp_path / "mine.yaml"
    spec.write_text("name: m\nclasses: [a, b]\nsplits: {train: {images: photos, labels: masks, list: names.txt}}\n")
    (tmp_path / "names.txt").write_bytes(f"\ufeff{taken_apart}.jpg\r\nb\r\n".encode())
    samples = open_dataset(DataConfig(spec=str(spec), root=tmp_path), "train")
    assert [samples.read(index).name for index in range(2)] == [composed, "b"]


def test_a_name_in_the_list_without_a_file(folders: Folders, tmp_path: Path) -> None:
    spec = tmp_path / "mine.yaml"
    spec.write_text("name: m\nclasses: [a, b]\nsplits: {train: {images: photos, labels: masks, list: names.txt}}\n")
    config = DataConfig(spec=str(spec), root=tmp_path)
    said(lambda: open_dataset(config, "train"), "names.txt", "cannot read the list")
    (tmp_path / "names.txt").write_text("\n")
    said(lambda: open_dataset(config, "train"), "names.txt", "is empty")
    (tmp_path / "names.txt").write_text("a\nzebra\n")
    said(lambda: open_dataset(config, "train"), "names.txt", "(zebra)", "remove the names from the list")


# --- specs and settings of data --------------------------------------------------------------------------------------

GOOD_SPEC = "name: m\nclasses: [sky, road]\nsplits: {train: {images: a, labels: b}}\n"


@pytest.mark.parametrize(
    "text, parts",
    [
        (GOOD_SPEC.replace("classes", "clases"), ("'clases'", "did you mean 'classes'")),
        (GOOD_SPEC.replace("images", "image"), ("split 'train'", "'image'", "did you mean 'images'")),
        (GOOD_SPEC.replace("sky", "{nmae: sky}"), ("entry 1", "'nmae'", "did you mean 'name'")),
        (GOOD_SPEC.replace("sky", "{name: sky, colour: [1, 2, 3]}"), ("entry 1", "'colour'", "did you mean 'color'")),
        (GOOD_SPEC.replace("sky", "{name: sky, color: [1, 2]}"), ("entry 1", "[1, 2]", "red, green, blue in 0..255")),
        (GOOD_SPEC.replace("sky", "{name: sky, color: [1, 2, 300]}"), ("[1, 2, 300]", "'sky'", "0..255")),
        (GOOD_SPEC.replace("sky", "{name: sky, raw: one}"), ("entry 1", "`raw` is 'one'", "whole number")),
        (GOOD_SPEC.replace("sky", "{name: sky, raw: 1}"), ("raw value 1 is given more than once",)),
        (GOOD_SPEC.replace("sky", "{name: sky, raw: 70000}"), ("raw value 70000", "0..65535")),
        (GOOD_SPEC.replace("sky", "no"), ("entry 1", "`name` is False", "in quotes")),
        (GOOD_SPEC.replace("sky", "road"), ("class name 'road' is given more than once",)),
        (GOOD_SPEC.replace("[sky, road]", "sky"), ("`classes` is 'sky'", "a list of names")),
        (GOOD_SPEC + "ignore: 255\n", ("`ignore` is 255", "[255]")),
        (GOOD_SPEC + "ignore: [1]\n", ("raw value 1 is class 'road' and is ignored too",)),
        (GOOD_SPEC.replace("name: m\n", ""), ("key `name` is missing",)),
        (GOOD_SPEC.replace(", labels: b", ""), ("split 'train'", "key `labels` is missing")),
        ("- sky\n- road\n", ("not a spec", "['sky', 'road']")),
        ("classes: [", ("not a YAML file",)),
        (f"name: m\nclasses: {list(map(str, range(300)))}\n", ("300 classes", "1 to 255")),
    ],
)
def test_a_mistake_in_a_spec(text: str, parts: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD_SPEC)
    load_spec(path)
    path.write_text(text)
    said(lambda: load_spec(path), str(path), *parts)


def test_a_typo_in_a_datasets_name() -> None:
    said(lambda: load_spec("camvd"), "'camvd'", "did you mean 'camvid'", "ade20k, camvid, cityscapes", "YAML file")
    config = DataConfig(spec="camvid", root=Path("x"), train_split="trian")
    said(lambda: open_dataset(config, "train"), "no split 'trian'", "train, val", "data.train_split")


def test_a_spec_for_another_dataset(folders: Folders, tmp_path: Path) -> None:
    config = DataConfig(spec="camvid", root=tmp_path)
    said(
        lambda: open_dataset(config, "train"),
        "dataset 'camvid', split 'train'",
        f"no folder {tmp_path / 'images' / 'train'}",
        "should contain images/train",
        "masks, photos",
    )
    (tmp_path / "CamVid" / "images" / "train").mkdir(parents=True)
    said(lambda: open_dataset(config, "train"), f"it is in {tmp_path / 'CamVid'}: give that as the root")
    missing = DataConfig(spec="camvid", root=tmp_path / "nowhere")
    said(lambda: open_dataset(missing, "train"), f"{tmp_path / 'nowhere'} does not exist")


PHOTOS, MASKS = Path("photos"), Path("masks")


@pytest.mark.parametrize(
    "config, parts",
    [
        (DataConfig(), ("no dataset given", "--data.spec NAME --data.root FOLDER", "--data.images FOLDER")),
        (DataConfig(classes=("a",)), ("no dataset given",)),
        (DataConfig(spec="camvid"), ("'camvid'", "--data.root FOLDER")),
        (DataConfig(spec="camvid", images=PHOTOS), ("data.spec 'camvid'", "data.images", "drop one")),
        (DataConfig(spec="camvid", root=PHOTOS, classes=("a",)), ("data.spec 'camvid'", "data.classes")),
        (DataConfig(spec="camvid", root=PHOTOS, ignore=(0,)), ("data.spec 'camvid'", "data.ignore")),
        (DataConfig(root=PHOTOS, images=PHOTOS, labels=MASKS), ("data.root works only with data.spec",)),
        (DataConfig(images=PHOTOS, classes=("a",)), ("data.images is given without data.labels", "--data.labels")),
        (DataConfig(labels=MASKS, classes=("a",)), ("data.labels is given without data.images", "--data.images")),
        (DataConfig(images=PHOTOS, labels=MASKS), ("class names", "--data.classes")),
        (
            DataConfig(images=PHOTOS, labels=MASKS, classes=("a",), val_images=PHOTOS),
            ("data.val_images is given without data.val_labels", "--data.val_labels"),
        ),
        (DataConfig(images=PHOTOS, labels=MASKS, classes=("a=b",)), ("data.classes", "'a=b'", "name=VALUE")),
        (DataConfig(images=PHOTOS, labels=MASKS, classes=("=3",)), ("data.classes", "'=3'", "name=VALUE")),
        (DataConfig(images=PHOTOS, labels=MASKS, classes=("a", "b=0")), ("raw value 0", "more than once")),
        (DataConfig(images=PHOTOS, labels=MASKS, classes=("a", "a")), ("class name 'a'", "more than once")),
    ],
    ids=str,
)
def test_contradictory_or_missing_settings(config: DataConfig, parts: tuple[str, ...]) -> None:
    said(lambda: open_dataset(config, "train"), *parts)


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_a_fraction_that_is_none(folders: Folders, fraction: float) -> None:
    config = DataConfig(**{**vars(folders.config), "val_fraction": fraction})
    said(lambda: open_dataset(config, "val"), f"data.val_fraction is {fraction}")


def test_nothing_left_to_validate_on(folders: Folders) -> None:
    said(lambda: open_dataset(folders.config, "val"), "data.val_fraction is 0", "data.val_images")
    for name in ("a", "c"):
        (folders.images / f"{name}.jpg").unlink()
        (folders.masks / f"{name}.png").unlink()
    config = DataConfig(**{**vars(folders.config), "val_fraction": 0.1})
    said(lambda: open_dataset(config, "train"), str(folders.images / "b.jpg"), "only pair", "data.val_labels")


# --- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, parts",
    [
        ("vit_tiny_patch16_22", ("unknown backbone 'vit_tiny_patch16_22'", "did you mean", "vit_tiny_patch16_224")),
        ("qqqq", ("unknown backbone 'qqqq'", "timm.list_models")),
        ("swin_tiny_patch4_window7_224", ("'swin_tiny_patch4_window7_224' is not a plain ViT (SwinTransformer)",)),
        ("resnet50", ("'resnet50' is not a plain ViT (ResNet)", "take one such as vit_base_patch16_384")),
    ],
)
def test_a_backbone_that_does_not_do(name: str, parts: tuple[str, ...], command: Callable[..., str]) -> None:
    said(lambda: create_model(name, num_classes=3), *parts)
    error = command("info", name)
    for part in parts:
        assert part in error


@pytest.mark.parametrize(
    "changes, parts",
    [
        ({"taps": (0, 2)}, ("model.taps (0, 2)", "from 0 to 1")),
        ({"taps": (1, 0)}, ("model.taps (1, 0)", "ascending")),
        ({"taps": (-1,)}, ("model.taps (-1,)", "from 0 to 1")),
        ({"head_dim": 64, "head_num_heads": 3}, ("head width 64", "3 heads", "model.head_num_heads")),
        ({"num_heads": 5}, ("vit_tiny_patch16_224", "'num_heads': 5")),
    ],
)
def test_settings_that_do_not_fit_the_model(changes: dict[str, Any], parts: tuple[str, ...]) -> None:
    said(lambda: create_model(config=ModelConfig(**{**vars(TINY), **changes}), num_classes=3), *parts)


def test_a_model_on_a_dataset_of_other_classes(
    model: SegViT, model_file: Path, folders: Folders, command: Callable[..., str]
) -> None:
    samples = open_dataset(folders.config, "train")
    said(lambda: evaluate(model, samples), "the model has 8 classes", "'folders' has 2", "--data.spec")
    error = command(
        "evaluate", model_file, "--data.images", folders.images, "--data.labels", folders.masks,
        "--data.classes", "sky", "road", "--device", "cpu",
    )  # fmt: skip
    assert "the model has 8 classes" in error and "'folders' has 2" in error
    other = DatasetSpec.from_dict({"name": "other", "classes": [*load_spec("shapes").classes[:7], "lamp"]})
    scenes = ShapesDataset(1, size=32)
    scenes.spec = other
    said(lambda: evaluate(model, scenes), "class 7 is 'sign' in the model and 'lamp' in the dataset 'other'")


@pytest.mark.parametrize("change", [{"window": 16, "stride": 20}, {"window": 16, "stride": -1}, {"window": -8}])
def test_windows_that_leave_gaps(model: SegViT, change: dict[str, int]) -> None:
    config = EvalConfig(mode="slide", **change)
    image = np.zeros((40, 40, 3), dtype=np.uint8)
    said(lambda: predict(model, image, config=config), f"window {change['window']}", "1 <= stride <= window")


# --- predict ---------------------------------------------------------------------------------------------------------


def test_predict_on_what_is_not_there(model_file: Path, tmp_path: Path, command: Callable[..., str]) -> None:
    missing, empty, output = tmp_path / "nowhere.jpg", tmp_path / "empty", tmp_path / "seen"
    assert f"no such file or folder: {missing}" in command("predict", model_file, missing, "--output", output)
    empty.mkdir()
    (empty / "notes.txt").write_text("x")
    error = command("predict", model_file, empty, "--output", output)
    assert f"{empty} holds no image" in error and ".jpg" in error and ".tif" in error
    assert "no model file" in command("predict", tmp_path / "nothing.safetensors", empty, "--output", output)
    assert not output.exists()


def photo(path: Path, size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 60)).save(path)
    return path


def test_two_inputs_of_one_output(model: SegViT, tmp_path: Path) -> None:
    one, two = photo(tmp_path / "x" / "a.jpg"), photo(tmp_path / "y" / "a.png")
    output = tmp_path / "seen"
    said(
        lambda: predict_files(model, [one, two], output),
        str(one),
        str(two),
        "a.png",
        "two commands with different --output",
    )
    photo(tmp_path / "x" / "a.png")
    said(lambda: predict_files(model, [tmp_path / "x"], output), "a.jpg", "a.png", "rename one of them")
    aside = photo(tmp_path / "z" / "a_overlay.jpg")
    said(lambda: predict_files(model, [one, aside], output), str(one), str(aside), "a_overlay.png")
    assert not output.exists()


def test_an_output_that_would_replace_a_photo(model: SegViT, tmp_path: Path) -> None:
    path = photo(tmp_path / "a.png")
    before = path.read_bytes()
    said(lambda: predict_files(model, [tmp_path], tmp_path), str(path), "an output would replace it", "--output")
    said(lambda: predict_files(model, [path], tmp_path / "x" / ".."), "a.png", "an output would replace it", "--output")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "array",
    [
        np.full((8, 9, 3), 7, dtype=np.float32),
        np.full((8, 9, 3), np.nan, dtype=np.float64),
        np.zeros((8, 9, 3), dtype=np.int64),
        np.zeros((3, 8, 9), dtype=np.uint8),
        np.zeros((8, 9, 5), dtype=np.uint8),
        np.zeros((1, 8, 9, 3), dtype=np.uint8),
        np.zeros(9, dtype=np.uint8),
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)
def test_an_array_that_is_no_image(model: SegViT, array: Any) -> None:
    said(lambda: predict(model, array), f"{array.dtype} {array.shape}", "uint8 (H, W, 3)", "astype('uint8')")


def test_images_of_pillow_are_read_as_their_files(model: SegViT, tmp_path: Path) -> None:
    """Transparency over white, 16 bits scaled, whether a file or an open image is given."""
    for name, values in (
        ("clear.png", np.full((16, 16, 4), (9, 9, 9, 0), dtype=np.uint8)),
        ("deep.png", np.full((16, 16), 100 * 257, dtype=np.uint16)),
    ):
        Image.fromarray(values).save(tmp_path / name)
        with Image.open(tmp_path / name) as opened:
            assert (predict(model, opened).image == predict(model, tmp_path / name).image).all()
    assert predict(model, tmp_path / "deep.png").image.tolist()[0][0] == [100, 100, 100]
    said(lambda: predict(model, Image.new("F", (8, 8))), "floating-point")


@pytest.mark.parametrize("opacity", ["-0.1", "1.5", "60"])
def test_opacity_out_of_range(opacity: str, model_file: Path, tmp_path: Path, command: Callable[..., str]) -> None:
    error = command("predict", model_file, photo(tmp_path / "a.jpg"), "--output", tmp_path / "o", "--opacity", opacity)
    assert f"--opacity {float(opacity)}" in error and "from 0 to 1" in error


def test_a_device_that_is_not_there(
    model_file: Path, tmp_path: Path, command: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    arguments = ("predict", model_file, photo(tmp_path / "a.jpg"), "--output", tmp_path / "o", "--device")
    error = command(*arguments, "cuda")
    assert "device 'cuda' is not available here" in error and "cpu" in error and "--device auto" in error
    error = command(*arguments, "gpu")
    assert re.search(r'"gpu".*--device.*"auto", "cpu", "cuda", "mps"', error)


def test_raw_ids_of_a_model_without_a_spec(tmp_path: Path, command: Callable[..., str]) -> None:
    create_model(config=TINY, num_classes=3).save(tmp_path / "m.safetensors")
    error = command(
        "predict", tmp_path / "m.safetensors", photo(tmp_path / "a.jpg"), "--output", tmp_path / "o", "--ids", "raw"
    )
    assert "--ids raw" in error and "no dataset spec" in error
