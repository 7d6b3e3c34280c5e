"""Where `segvit predict` writes: what it refuses to replace, the folder without --output, globs, files left out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from segvit.cli import main as cli
from segvit.data.images import HEIF_SUFFIXES, IMAGE_SUFFIXES, lacking, read_image, read_size
from segvit.errors import UserError
from segvit.models.segvit import SegViT
from segvit.prediction.inputs import find_inputs
from segvit.prediction.predict_files import predict_files
from tests.helpers.tiny import labelling_model

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model() -> SegViT:
    return labelling_model(image_size=16, patch_size=8)


@pytest.fixture(scope="module")
def model_file(model: SegViT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    model.save(path)
    return path


@pytest.fixture
def segvit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model_file: Path
) -> Run:
    """`segvit predict` with the tiny model, in an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def run(*words: Any) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["segvit", "predict", *map(str, (model_file, *words, "--device", "cpu"))])
        code = 0
        try:
            cli.main()
        except SystemExit as leave:
            code = int(leave.code or 0)
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out, said.err

    return run


def photo(path: Path, value: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (value, 120, 60)).save(path)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.json")}


# --- one name, two photos --------------------------------------------------------------------------------------------


def test_the_results_of_another_photo_are_not_replaced(segvit: Run, tmp_path: Path) -> None:
    photo(tmp_path / "photos" / "0004.jpg"), photo(tmp_path / "masks" / "0004.png", 7)
    assert segvit("photos/0004.jpg", "--output", "seen")[0] == 0
    before = contents(tmp_path / "seen")
    for words in (("masks",), ("masks/0004.png",), ("masks/*.png",)):
        code, _, error = segvit(*words, "--output", "seen")
        assert code == 2 and "seen/0004.png holds the labels of" in error and "photos/0004.jpg" in error
        assert "masks/0004.png" in error and "another --output, or --overwrite" in error
        assert contents(tmp_path / "seen") == before
    assert segvit("masks", "--output", "seen", "--overwrite")[0] == 0
    assert json.loads((tmp_path / "seen" / "0004.json").read_text())["image"] == str(tmp_path / "masks" / "0004.png")


def test_a_photo_is_the_same_by_any_path(segvit: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo(tmp_path / "photos" / "a.jpg")
    segvit("photos", "--output", "seen")
    photo(tmp_path / "photos" / "a.jpg", 200)  # changed since
    monkeypatch.chdir(tmp_path / "photos")
    code, out, _ = segvit("a.jpg", "--output", "../seen")
    assert code == 0 and "1 label map in ../seen" in out


def test_a_json_of_somebody_else_is_not_replaced(model: SegViT, tmp_path: Path) -> None:
    for name in ("a", "b"):
        photo(tmp_path / "photos" / f"{name}.jpg")
    predict_files(model, [tmp_path / "photos" / "a.jpg"], tmp_path / "seen")
    (tmp_path / "seen" / "b.json").write_text('{"shapes": []}')  # as an annotation tool writes it
    with pytest.raises(UserError, match=r"b\.json exists and was not written by segvit predict.*--output"):
        predict_files(model, [tmp_path / "photos"], tmp_path / "seen")
    assert (tmp_path / "seen" / "b.json").read_text() == '{"shapes": []}'


# --- without --output ------------------------------------------------------------------------------------------------


def test_the_folder_without_output(segvit: Run, tmp_path: Path) -> None:
    photo(tmp_path / "photos" / "a.jpg"), photo(tmp_path / "other" / "a.jpg"), photo(tmp_path / "other" / "b.jpg")
    assert "1 label map in runs/predict\n" in segvit("photos")[1]
    before = contents(tmp_path / "runs" / "predict")
    assert "0 new label maps in runs/predict; 1 existed already" in segvit("photos")[1]  # the same command resumes
    assert "1 label map in runs/predict\n" in segvit("other/b.jpg")[1]  # a new name joins
    assert "1 label map in runs/predict-2\n" in segvit("other/a.jpg")[1]  # another photo of the same name does not
    assert "1 label map in runs/predict-3\n" in segvit("photos", "--opacity", "1")[1]  # nor do other settings
    assert "0 new label maps in runs/predict-3; 1 existed" in segvit("photos", "--opacity", "1")[1]
    now = contents(tmp_path / "runs" / "predict")
    assert {name: now[name] for name in before} == before
    assert "1 label map in runs/predict-2\n" in segvit("other/a.jpg", "--overwrite")[1]
    assert names(tmp_path / "runs") == {"predict/a", "predict/b", "predict-2/a", "predict-3/a"}


def test_default_folders_are_no_inputs(segvit: Run, tmp_path: Path) -> None:
    photo(tmp_path / "deep" / "a.jpg")
    segvit(".")
    segvit(".", "--opacity", "1")
    assert "0 new label maps in runs/predict; 1 existed" in segvit(".")[1]
    assert names(tmp_path / "runs") == {"predict/deep/a", "predict-2/deep/a"}


# --- globs -----------------------------------------------------------------------------------------------------------


def test_globs_that_the_shell_leaves_alone(segvit: Run, tmp_path: Path) -> None:
    for name in ("a.jpg", "b.png", ".hidden.jpg", "deep/c.jpg", "deep/d.txt"):
        photo((tmp_path / "photos" / name).with_suffix(".png")).rename(tmp_path / "photos" / name)

    def found(*patterns: str) -> set[str]:
        return {item.stem.as_posix() for item in find_inputs(patterns, []).items}

    assert segvit("photos/*.jpg", "--output", "seen")[0] == 0 and names(tmp_path / "seen") == {"a"}
    assert found("photos/**/*.jpg") == {"a", "deep/c"}
    assert found("photos/*.{jpg,png}") == {"a", "b"} and found("ph*/[ab].*") == {"photos/a", "photos/b"}
    assert found("photos/*") == {"a", "b", "deep/c"} and found(str(tmp_path / "photos" / "?.jpg")) == {"a"}
    code, _, error = segvit("photos/*.jpeg", "--output", "seen")
    assert code == 2 and "no file or folder matches photos/*.jpeg" in error
    photo(tmp_path / "photos" / "[1].jpg")
    assert found("photos/[1].jpg") == {"[1]"}  # a file of that name comes first


# --- kinds of files --------------------------------------------------------------------------------------------------


def write_kinds(folder: Path) -> None:
    """One photo of every kind that Pillow writes, and files that are none."""
    folder.mkdir()
    picture = Image.new("RGB", (16, 16), (90, 120, 60))
    formats = {".jfif": "JPEG", ".avif": "AVIF", ".gif": "GIF", ".jp2": "JPEG2000", ".webp": "WEBP", ".tga": "TGA"}
    for suffix, format in formats.items():
        picture.save(folder / f"photo{suffix[1:]}{suffix}", format=format)
    for name in ("scan.nii", "notes.txt", "more.txt", "README"):
        (folder / name).write_bytes(b"no image")


def test_no_file_is_passed_over_without_a_word(segvit: Run, tmp_path: Path) -> None:
    assert features.check("avif") and features.check("jpg_2000")
    write_kinds(tmp_path / "photos")
    code, out, _ = segvit("photos", "--output", "seen")
    assert code == 0 and "6 label maps in seen" in out
    assert "left out, since they are neither images nor videos: 2 .txt, 1 without a suffix, 1 .nii" in out
    code, out, _ = segvit("photos", "--output", "photos")  # its own files are not counted
    assert code == 0 and ": 2 .txt, 1 without a suffix, 1 .nii" in segvit("photos", "--output", "photos")[1]


def test_animations_are_counted_and_stacks_are_refused(segvit: Run, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (64, 48), color) for color in ("red", "blue")]
    for name in ("a.webp", "b.tif"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        frames[0].save(tmp_path / "photos" / name, save_all=True, append_images=frames[1:])
    photo(tmp_path / "photos" / "c.jpg")
    code, out, error = segvit("photos", "--output", "seen")
    assert code == 2 and "2 label maps in seen" in out
    assert "photos/a.webp: an animation of 2 frames, of which the first is labelled" in out
    assert "b.tif: the TIFF has 2 pages" in error


def test_photos_of_phones_are_read(tmp_path: Path) -> None:
    import pillow_heif

    values = np.full((48, 64, 3), (90, 120, 60), dtype=np.uint8)
    values[:, 32:] = (200, 40, 40)
    pillow_heif.from_bytes(mode="RGB", size=(64, 48), data=values.tobytes()).save(tmp_path / "a.heic", quality=90)
    assert read_size(tmp_path / "a.heic") == (48, 64)
    assert np.abs(np.asarray(read_image(tmp_path / "a.heic")).astype(int) - values)[:, [5, 58]].max() < 12
    assert [item.stem.name for item in find_inputs([tmp_path], []).items] == ["a"]


def test_photos_of_phones_without_the_extra_are_counted(
    segvit: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segvit.data.images.find_spec", lambda name: None)
    photo(tmp_path / "photos" / "a.jpg")
    for name in ("b.heic", "c.HEIC", "d.heif"):
        (tmp_path / "photos" / name).write_bytes(b"\0\0\0\x18ftypheic")
    remedy = "type `pip install 'segvit[heic]'`, or export them as JPEG"
    code, out, error = segvit("photos", "--output", "seen")
    assert code == 2 and "1 label map in seen" in out  # what can be read is labelled
    assert "2 .heic files left out: HEIC photos need pillow-heif" in error and "1 .heif file left out" in error
    assert remedy in error and "replace or remove" not in error
    with pytest.raises(UserError, match="segvit\\[heic\\]"):
        read_image(tmp_path / "photos" / "b.heic")
    (tmp_path / "photos" / "a.jpg").unlink()
    code, _, error = segvit("photos", "--output", "seen")
    assert code == 2 and "photos holds no image or video" in error and "2 .heic, 1 .heif" in error and remedy in error
    assert set(HEIF_SUFFIXES) < set(IMAGE_SUFFIXES) and lacking(".jpg") is None
