"""A run on five bands of 16 bits, from files to labels: train, save, resume, load, evaluate, predict, export."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

import segvit
from segvit.config import ModelConfig, TrainConfig
from segvit.data.dataset import open_dataset
from segvit.data.sampling.pixel_statistics import measure, with_statistics
from segvit.errors import UserError
from segvit.inference.network import reading_of
from segvit.models.create import create_model
from segvit.prediction.predict_files import predict_files
from segvit.training.batches import training_crops
from segvit.training.run_folder.first_crops import augmented_sheet
from segvit.training.start import RunData, open_splits

rasterio = pytest.importorskip("rasterio")
TINY = {"embed_dim": 32, "depth": 2, "num_heads": 2, "taps": (0, 1), "image_size": 32}


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> TrainConfig:
    """The settings of a run on five bands."""
    random = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000)}
    for number in range(4):
        labels = np.zeros((40, 56), np.uint8)
        labels[:, 20 + number :] = 1
        values = (random.random((5, 40, 56)) * 800 + labels * 1500.0 + 1).astype(np.uint16)
        values[:, 0, 0] = 0
        form = {"height": 40, "width": 56, "count": 5, "dtype": "uint16", "nodata": 0}
        with rasterio.open(tmp_path / "images" / f"{number}.tif", "w", driver="GTiff", **form, **place) as target:
            target.write(values)
        Image.fromarray(labels).save(tmp_path / "masks" / f"{number}.png")
    data = segvit.DataConfig(
        images=tmp_path / "images",
        labels=tmp_path / "masks",
        classes=("a", "b"),
        val_fraction=0.25,
        workers=0,
        white=4095,
    )
    model = ModelConfig(backbone="vit_tiny_patch16_224", bands=5, **TINY)
    return TrainConfig(model=model, data=data, steps=2, batch_size=2, output=tmp_path / "run", device="cpu", loggers=())


def test_five_bands_from_training_to_labels(
    run: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = segvit.train(config=run)
    said = capsys.readouterr().out
    assert "augment.saturation and augment.hue are for red, green, blue" in said
    assert "mean and deviation of 3 training images: band 1" in said
    model = segvit.load_model(done.path)
    assert model.bands == 5 and model.config is not None and model.config.bands == 5
    assert reading_of(model).white == 4095
    expected = measure(open_dataset(run.data, "train", bands=5))
    assert model.mean.tolist() == pytest.approx(expected.mean) and model.std.tolist() == pytest.approx(expected.std)
    assert TrainConfig.load(run.output / "config.yaml").model.mean == expected.mean

    again = segvit.evaluate(model, images=tmp_path / "images", labels=tmp_path / "masks")
    assert again.images == 4 and again.miou is not None
    photo = tmp_path / "images" / "0.tif"
    result = segvit.predict(model, photo)
    assert result.image.shape == (40, 56, 3) and result.labels.shape == (40, 56)
    with rasterio.open(photo) as source:
        array = source.read().transpose(1, 2, 0)
    assert (segvit.predict(model, array).labels == result.labels).all()
    assert model(torch.zeros(1, 5, 33, 47)).mask_logits.shape[1] == 1
    with pytest.raises(UserError, match=r"expected \(B, 5, H, W\)"):
        model(torch.zeros(1, 3, 32, 32))
    done_files = predict_files(model, [photo], tmp_path / "seen", workers=0)
    assert not done_files.failures and not done_files.remarks

    resumed = segvit.train(config=replace(run, steps=3), resume=True)
    assert segvit.load_model(resumed.path).mean.tolist() == model.mean.tolist()


def test_measured_statistics_are_those_of_all_pixels_with_data(run: TrainConfig) -> None:
    samples = open_dataset(run.data, "train", bands=5)
    pixels = torch.cat([samples.read(index).image.flatten(1) for index in range(len(samples))], dim=1).double()
    pixels = pixels[:, (pixels > 0).all(dim=0)]
    found = measure(samples)
    assert pixels.shape[1] == 3 * (40 * 56 - 1)
    assert found.mean == pytest.approx(pixels.mean(dim=1).tolist(), rel=1e-5)
    assert found.std == pytest.approx(pixels.std(dim=1, correction=0).tolist(), rel=1e-5)
    assert found.images == 3 and not found.constant


def test_pixels_without_data_do_not_count_as_black(run: TrainConfig) -> None:
    """With half of an image without data, the mean stays that of the other half."""
    path = run.data.images
    assert path is not None
    for file in sorted(Path(path).iterdir()):
        with rasterio.open(file, "r+") as target:
            values = target.read()
            values[:] = 2000
            values[:, :20] = 0
            target.write(values)
    found = measure(open_dataset(run.data, "train", bands=5))
    assert found.mean == pytest.approx([2000 / 4095] * 5, rel=1e-5) and found.constant == (0, 1, 2, 3, 4)


def test_a_mean_that_is_given_is_kept(run: TrainConfig) -> None:
    splits = {"train": open_dataset(run.data, "train", bands=5)}
    found = measure(splits["train"])
    mean, std = (0.1, 0.2, 0.3, 0.4, 0.5), (0.6, 0.7, 0.8, 0.9, 1.0)
    for given, expected in (
        ({"mean": mean}, (mean, found.std)),
        ({"std": std}, (found.mean, std)),
        ({"mean": mean, "std": std}, (mean, std)),
        ({}, (found.mean, found.std)),
    ):
        config = replace(run, model=replace(run.model, **given))
        done = with_statistics(config, splits, state=None, say=None).model
        assert (done.mean, done.std) == expected


def test_statistics_are_not_measured_for_the_weights_of_another_model(run: TrainConfig) -> None:
    """They fit the mean and deviation of their own model. A run that resumes has no further use of the model."""
    splits = {"train": open_dataset(run.data, "train", bands=5)}
    config = replace(run, init="best.safetensors", data=replace(run.data, statistics="measured"))
    with pytest.raises(UserError, match=r"measured: .* weights of best.safetensors .* leave data.statistics out"):
        with_statistics(config, splits, state=None, say=None)
    assert with_statistics(config, splits, state={}, say=None).model.mean is None
    plain = replace(config, data=replace(run.data, statistics=None))
    assert with_statistics(plain, splits, state=None, say=None).model.mean is None


def test_three_bands_that_are_no_colours(run: TrainConfig, tmp_path: Path) -> None:
    """Bands are colours by their names, not by their number."""
    for path in (tmp_path / "images").iterdir():
        with rasterio.open(path) as source:
            values = source.read()[:3]
        with rasterio.open(path, "w", driver="GTiff", height=40, width=56, count=3, dtype="uint16") as target:
            target.write(values)
    for names, colors in ((("nir", "red", "green"), False), (("Red", "green", "blue"), True), ((), True)):
        config = replace(run, model=replace(run.model, bands=None), data=replace(run.data, bands=names))
        train = open_dataset(config.data, "train")
        lines: list[str] = []
        done = with_statistics(config, {"train": train}, state=None, say=lines.append)
        assert (done.model.mean is None) == colors and any("hue" in line for line in lines) != colors
        crops = training_crops(done, RunData(train=train, val=train, digest=""), mean=torch.full((3,), 0.5))
        assert (crops.transform.augment.hue == 0) != colors and (crops.transform.augment.saturation == 0) != colors


def test_the_sheet_of_other_bands_is_that_of_the_run(run: TrainConfig, tmp_path: Path) -> None:
    segvit.train(config=replace(run, steps=1))
    sheet = augmented_sheet(replace(run, steps=1))
    with Image.open(run.output / "train_batches.png") as first:
        assert first.size == sheet.size and first.convert("RGB").tobytes() == sheet.convert("RGB").tobytes()


def test_other_bands_than_those_of_the_start_are_explained(run: TrainConfig) -> None:
    """Nobody typed model.bands: the settings come from the model of `init`."""
    config = replace(run, init="one.safetensors", model=replace(run.model, bands=1))
    config = replace(config, data=replace(run.data, bands=("a", "b", "c", "d", "e")))
    with pytest.raises(UserError, match=r"one\.safetensors takes images of 1 band, but the data name 5") as caught:
        open_splits(config)
    assert "model.bands" not in str(caught.value)


def test_dark_images_are_named_before_the_first_step(run: TrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    segvit.train(config=replace(run, data=replace(run.data, white=None), steps=1))
    assert "almost black; give the value of white" in capsys.readouterr().out


@pytest.mark.slow
def test_the_white_of_the_model_is_taken_over(run: TrainConfig, tmp_path: Path) -> None:
    first = segvit.train(config=replace(run, steps=1))
    start = segvit.load_model(first.path)
    assert start.config is not None
    data = replace(run.data, white=None)
    config = replace(run, init=str(first.path), model=start.config.without_weights(), data=data, steps=1)
    again = segvit.load_model(segvit.train(config=replace(config, output=tmp_path / "second")).path)
    assert again.spec is not None and again.spec.white == 4095 and again.mean.tolist() == start.mean.tolist()


@pytest.mark.parametrize("bands", [1, 2, 5])
def test_pretrained_patch_embeddings_are_spread_as_timm_does(bands: int, tmp_path: Path) -> None:
    name = "vit_tiny_patch16_224.augreg_in21k"
    torch.manual_seed(0)
    donor = timm.create_model(name, num_classes=0)
    save_file(donor.state_dict(), tmp_path / "w.safetensors")
    config = ModelConfig(backbone=name, image_size=32, bands=bands, pretrained_file=tmp_path / "w.safetensors")
    model = create_model(config=config, num_classes=2)
    colors = donor.patch_embed.proj.weight
    if bands == 1:
        expected = colors.sum(dim=1, keepdim=True)
    else:
        expected = torch.stack([colors[:, band % 3] for band in range(bands)], dim=1) * 3 / bands
    assert torch.allclose(model.backbone.patch_embed.proj.weight, expected, atol=1e-6)
    assert model.mean.tolist() == [0.5] * bands


def test_settings_that_contradict_are_refused(run: TrainConfig) -> None:
    with pytest.raises(UserError, match=r"model\.mean has 3 values, and the images 5 bands"):
        create_model(config=replace(run.model, mean=(0.5, 0.5, 0.5)), num_classes=2)
    with pytest.raises(UserError, match=r"model\.bands is 0"):
        create_model(config=replace(run.model, bands=0), num_classes=2)
    spec = replace(segvit.load_spec("camvid"), bands=("a", "b"))
    with pytest.raises(UserError, match=r"model\.bands is 5, but the data name 2: a, b"):
        create_model(config=run.model, spec=spec)
    with pytest.raises(UserError, match="scenes are red, green, blue"):
        open_dataset(segvit.DataConfig(spec="shapes", white=4095), "train")


@pytest.mark.slow
def test_an_exported_model_takes_five_bands(run: TrainConfig, tmp_path: Path) -> None:
    model = segvit.load_model(segvit.train(config=replace(run, steps=1)).path)
    photo = tmp_path / "images" / "0.tif"
    exported = segvit.export_onnx(model, tmp_path / "m.onnx", images=[photo])
    assert exported.agreement.differing <= 0.001
    other = segvit.load_onnx(tmp_path / "m.onnx")
    assert (segvit.predict(other, photo).labels == segvit.predict(model, photo).labels).all()
