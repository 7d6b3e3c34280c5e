"""Runs with every step of the augmentation: they resume to the bit, and their first crops are painted."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from segvit.config import AugmentConfig, DataConfig, TrainConfig
from segvit.data.shapes.scenes import write_shapes
from segvit.errors import UserError
from segvit.recipes.train import train
from segvit.training.run_folder.first_crops import augmented_sheet
from tests.helpers.tiny import run_records, tiny_run

EVERYTHING = AugmentConfig(
    resize_long=None, aspect=1.3, rotation=20.0, vertical_flip=0.5, rot90=0.5, gamma=0.4, blur=1.5, noise=8.0,
    jpeg_quality=60, erase=0.5, copy_paste=0.5, cutmix=0.5,
)  # fmt: skip


def strong(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    shift = int(torch.randint(9, ()))
    return image.roll(shift, 2), mask.roll(shift, 1)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    monkeypatch.setenv("SEGVIT_CACHE", str(tmp_path / "cache"))
    write_shapes(tmp_path / "scenes", train=6, val=2, size=48)
    data = DataConfig(spec="shapes", root=tmp_path / "scenes", workers=0)
    return tiny_run(tmp_path / "run", steps=4, eval_every=4, save_every=2, data=data, augment=EVERYTHING)


def losses(folder: Path) -> list[float]:
    return [record["loss"] for record in run_records(folder) if "loss" in record]


def test_a_resumed_run_repeats_the_losses_to_the_bit(config: TrainConfig, tmp_path: Path) -> None:
    train(config, transform=strong)
    whole = losses(config.output)
    assert len(whole) == 4
    stopped = replace(config, output=tmp_path / "stopped", data=replace(config.data, workers=2))

    def stop(step: int, _: object) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(stopped, transform=strong, on_step=stop)
    with pytest.raises(UserError, match="was started with transform and would be resumed with no part of its own"):
        train(stopped, resume=True)
    train(stopped, transform=strong, resume=True)
    assert losses(stopped.output) == whole


def test_features_of_ones_own_crops_are_not_kept(config: TrainConfig, tmp_path: Path) -> None:
    augment = replace(config.augment, views=2)
    data = replace(config.data, cache_features=tmp_path / "features")
    cached = replace(config, augment=augment, data=data, optim=replace(config.optim, freeze="backbone"))
    with pytest.raises(UserError, match="your transform strong does not say when its code changes"):
        train(cached, transform=strong)


def test_the_sheet_shows_the_crops_of_the_run(config: TrainConfig, tmp_path: Path) -> None:
    train(replace(config, steps=1))
    sheet = augmented_sheet(replace(config, steps=1))
    sheet.save(tmp_path / "sheet.png")
    with Image.open(config.output / "train_batches.png") as first, Image.open(tmp_path / "sheet.png") as again:
        assert first.size == again.size and first.tobytes() == again.tobytes()
