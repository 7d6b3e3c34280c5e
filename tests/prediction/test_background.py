"""`--no-background`: the overlay leaves the class called background unpainted, in pictures, videos and figures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from PIL import Image

import segvit
from segvit.cli.main import app
from segvit.errors import UserError
from segvit.models.segvit import SegViT
from segvit.pictures import labels_figure
from segvit.pictures.inside import files
from segvit.pictures.inside.record import Inside
from segvit.pictures.paint import _thicken
from segvit.prediction.predict_files import predict_files
from tests.helpers.films import Pixels, decoded, write_film
from tests.helpers.tiny import labelling_model


@pytest.fixture(scope="module")
def photo() -> Pixels:
    """(480, 640, 3): patches of colour, large enough not to be enlarged under a legend."""
    random = np.random.default_rng(0)
    return random.integers(0, 256, (12, 16, 3), dtype=np.uint8).repeat(40, axis=0).repeat(40, axis=1)


@pytest.fixture(scope="module")
def labels(photo: Pixels) -> npt.NDArray[np.int64]:
    """(480, 640): what the model predicts."""
    return segvit.predict(labelling_model(image_size=64, patch_size=16), photo).labels


@pytest.fixture(scope="module")
def number(labels: npt.NDArray[np.int64]) -> int:
    """The class that covers most of the photo. It is the background."""
    return int(np.bincount(labels.ravel()).argmax())


@pytest.fixture(scope="module")
def model(number: int) -> SegViT:
    made = labelling_model(image_size=64, patch_size=16)
    assert made.spec is not None
    names = list(made.spec.classes)
    names[number] = "Background"
    made.spec = replace(made.spec, classes=tuple(names))
    return made


def test_the_overlay_keeps_the_photo_there(
    model: SegViT, photo: Pixels, labels: npt.NDArray[np.int64], number: int, tmp_path: Path
) -> None:
    Image.fromarray(photo).save(tmp_path / "photo.png")
    line = np.zeros_like(labels, dtype=bool)
    line[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    line[1:] |= labels[1:] != labels[:-1]
    plain = ~_thicken(line, 3)
    background, rest = plain & (labels == number), plain & (labels != number)
    assert background.any() and rest.any()
    predict_files(model, [tmp_path / "photo.png"], tmp_path / "seen", background=False)
    predict_files(model, [tmp_path / "photo.png"], tmp_path / "all")
    seen, whole = (
        np.asarray(Image.open(tmp_path / name / "photo_overlay.png"))[: len(photo)] for name in ("seen", "all")
    )
    assert (seen[background] == photo[background]).all() and (whole[background] != photo[background]).any()
    assert (seen[rest] == whole[rest]).all()
    index = [(tmp_path / name / "photo.png").read_bytes() for name in ("seen", "all")]
    assert index[0] == index[1], "the label map is the same"
    assert yaml.safe_load((tmp_path / "seen" / "predict.yaml").read_text())["background"] is False
    with pytest.raises(UserError, match="background was off and is not set"):
        predict_files(model, [tmp_path / "photo.png"], tmp_path / "seen")


def test_videos_keep_their_picture_there(
    model: SegViT, photo: Pixels, labels: npt.NDArray[np.int64], number: int, tmp_path: Path
) -> None:
    film = write_film(tmp_path / "film.mp4", [photo] * 2)
    off = []
    for name, background in (("seen", False), ("all", True)):
        predict_files(model, [film], tmp_path / name, background=background)
        frame = decoded(tmp_path / name / "film_overlay.mp4")[0][: len(photo), : photo.shape[1]].astype(int)
        off.append(np.abs(frame - photo)[labels == number].mean())
    assert off[0] < 0.5 * off[1]


def test_no_class_of_that_name_is_an_error(photo: Pixels, tmp_path: Path) -> None:
    labelling_model(image_size=64, patch_size=16).save(tmp_path / "model.safetensors")
    Image.fromarray(photo).save(tmp_path / "photo.png")
    words = [str(tmp_path / "model.safetensors"), str(tmp_path / "photo.png"), "--output", str(tmp_path / "seen")]
    for verb in ("predict", "look"):
        with pytest.raises(UserError, match=r"no class is called background, .*; the classes are sky"):
            app([verb, *words, "--no-background", "--device", "cpu"])
    assert not list((tmp_path).glob("seen/**/*.png"))


def test_figures_leave_it_unpainted(
    model: SegViT, photo: Pixels, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Inside] = []
    monkeypatch.setattr(files, "save_inside", lambda inside, folder, format: drawn.append(inside) or [])
    model.save(tmp_path / "model.safetensors")
    Image.fromarray(photo).save(tmp_path / "photo.png")
    words = ["look", str(tmp_path / "model.safetensors"), str(tmp_path / "photo.png"), "--device", "cpu"]
    app([*words, "--output", str(tmp_path / "all")])
    app([*words, "--output", str(tmp_path / "seen"), "--no-background"])
    whole, seen = drawn
    assert [k for k, color in enumerate(seen.palette) if color is None] == [number]
    assert None not in whole.palette
    pixels = [np.asarray(labels_figure(inside).axes[1].images[0].get_array()) for inside in (whole, seen)]
    assert pixels[0].shape == pixels[1].shape and (pixels[0] != pixels[1]).any()
