"""A run prints the warnings of the check of its data once, and its mIoU says of how many classes it is the mean."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segvit.config import DataConfig, TrainConfig
from segvit.training.start import MOST_WARNINGS, open_splits
from segvit.training.train import train
from tests.helpers.tiny import tiny_run


@pytest.fixture
def run(tmp_path: Path) -> TrainConfig:
    """A run on eight pairs, of which one training image alone shows the second class."""
    for number in range(8):
        for folder in ("photos", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "photos" / f"{number}.png")
        Image.fromarray(np.zeros((32, 32), dtype=np.uint8)).save(tmp_path / "masks" / f"{number}.png")
    data = DataConfig(
        images=tmp_path / "photos", labels=tmp_path / "masks", classes=("ground", "box"), val_fraction=0.25, workers=0
    )
    config = replace(tiny_run(tmp_path / "run"), data=data, steps=1, eval_every=1)
    (first, *_) = open_splits(config)["train"].files  # type: ignore[attr-defined]
    Image.fromarray(np.eye(32, dtype=np.uint8)).save(first[1])
    return config


def test_a_run_prints_the_warnings_of_the_check(run: TrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    train(run)
    out = capsys.readouterr().out
    assert out.count("warning: val: 1 of 2 classes are in none of the 2 label maps: 1 box") == 1
    assert out.count(f"details: segvit check-data {run.data.images} ") == 1 and "--data.val-fraction 0.25" in out
    assert "step 1: validation mIoU" in out
    train(run, resume=True)
    assert "warning:" not in capsys.readouterr().out  # once


def test_an_miou_of_fewer_classes_says_so(run: TrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    result = train(run).result
    scored = 2 - len(result.metrics.absent)
    text = f" of {scored} of 2 classes" if scored < 2 else ""
    assert result.fewer_classes == text
    assert f"{text}\n" in capsys.readouterr().out.split("validation mIoU", 1)[1]
    whole = replace(result, metrics=replace(result.metrics, iou=(0.5, 0.5)))
    assert whole.fewer_classes == ""
    assert replace(result, metrics=replace(result.metrics, iou=(1.0, None))).fewer_classes == " of 1 of 2 classes"


def test_many_warnings_are_cut(run: TrainConfig) -> None:
    for path in sorted((run.data.images or Path()).iterdir())[1:]:
        path.write_bytes((run.data.images or Path()).joinpath("0.png").read_bytes())
    said: list[str] = []
    open_splits(run, say=said.append)
    assert any("in train and in val" in line for line in said)
    assert len(said) <= MOST_WARNINGS + 1 and all(len(line) < 400 for line in said[:-1])


def test_the_folder_of_a_run_is_tried_before_its_data(run: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    from segvit.errors import UserError

    monkeypatch.setattr("segvit.training.start.open_splits", lambda *_, **__: pytest.fail("the data were read"))
    with pytest.raises(UserError, match=r"/proc/x: cannot be written .*; give another --output"):
        train(replace(run, output=Path("/proc/x")))
