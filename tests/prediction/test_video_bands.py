"""Videos with models of other bands: grey for one band, refused for others before a frame is read."""

from pathlib import Path

import numpy as np
import pytest
import torch

import segvit
from segvit.config import ModelConfig
from segvit.prediction.predict_files import predict_files
from segvit.prediction.video import predict_video
from segvit.prediction.video_options import VideoOptions

pytest.importorskip("av")
from PIL import Image

from tests.helpers.films import decoded, moving_crop, write_film


def make_model(bands: int) -> segvit.SegViT:
    torch.manual_seed(0)
    config = ModelConfig(embed_dim=32, depth=2, num_heads=2, taps=(0, 1), bands=bands, init_std=0.3)
    model = segvit.create_model("vit_tiny_patch16_224", num_classes=4, image_size=32, config=config)
    return model.eval()


@pytest.fixture
def film(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    photo = random.integers(0, 256, (8, 10, 3), dtype=np.uint8).repeat(10, axis=0).repeat(10, axis=1)
    return write_film(tmp_path / "film.mp4", moving_crop(photo, 3, (48, 64)))


def test_a_model_of_one_band_takes_the_grey_of_each_frame(film: Path, tmp_path: Path) -> None:
    model = make_model(1)
    for confidence in (False, True):
        target = tmp_path / str(confidence) / "film"
        done = predict_video(model, film, target, options=VideoOptions(frames=True), confidence=confidence, workers=0)
        assert done.frames == 3
        maps = sorted(path for path in target.parent.rglob("*.png") if "overlay" not in path.name)
        for path, frame in zip(maps, decoded(film), strict=True):
            grey = np.asarray(Image.fromarray(frame).convert("L"))
            assert (np.asarray(Image.open(path)) == segvit.predict(model, grey).labels).all()


def test_a_model_of_other_bands_is_refused_before_the_first_frame(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segvit.prediction.video.open_video", None)
    done = predict_files(make_model(4), [film], tmp_path / "seen", workers=0)
    assert "film.mp4: a video has 3 bands, and the model takes 4" in done.video_failures[0].reason
