"""The end of a run that gets no better: when, what is left, and what resuming does."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import segvit.data.dataset as dataset_module
import segvit.training.validation as validation_module
from segvit.config import TrainConfig
from segvit.errors import UserError
from segvit.losses import Losses
from segvit.training.train import train
from segvit.weights.hub import model_card
from segvit.weights.model_file import read_header
from tests.helpers.tiny import run_records, tiny_run

SCORES = [0.2, 0.4, 0.3, 0.4, 0.5, 0.5, 0.1, 0.2, 0.6, 0.7]
"""mIoU of the validations at steps 1, 2, ..."""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """Ten steps, each with a validation whose score is written above."""
    monkeypatch.setattr(dataset_module, "SHAPES_LENGTH", {"train": 10, "val": 1})
    validate = validation_module.evaluate

    def scored(*arguments: Any, **settings: Any) -> Any:
        result = validate(*arguments, **settings)
        steps = [record["step"] for record in run_records(tmp_path / "run") if "loss" in record]
        return replace(result, metrics=replace(result.metrics, miou=SCORES[steps[-1] - 1]))

    monkeypatch.setattr(validation_module, "evaluate", scored)
    return tiny_run(tmp_path / "run", steps=10, eval_every=1, save_every=4, batch_size=1)


def steps_of(config: TrainConfig) -> list[int]:
    return [record["step"] for record in run_records(config.output) if "loss" in record]


@pytest.mark.parametrize(
    "patience, end, best",
    [
        (1, 3, 0.4),
        (3, 8, 0.5),
        pytest.param(2, 4, 0.4, marks=pytest.mark.slow),
        pytest.param(4, 10, 0.7, marks=pytest.mark.slow),
        pytest.param(None, 10, 0.7, marks=pytest.mark.slow),
    ],
)
def test_it_ends_after_so_many_validations_without_a_better_one(
    config: TrainConfig, patience: int | None, end: int, best: float
) -> None:
    run = train(replace(config, early_stop=patience))
    assert steps_of(config) == list(range(1, end + 1))
    assert run.miou == best
    assert read_header(config.output / "last.safetensors")["step"] == end
    assert read_header(config.output / "best.safetensors")["step"] == SCORES.index(best) + 1


def test_resuming_counts_on(config: TrainConfig) -> None:
    config = replace(config, early_stop=3)

    def stop(step: int, _: Losses) -> None:
        if step == 8:  # after validations 6 and 7 were no better, checkpoint 4
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(replace(config, save_every=7), on_step=stop)
    assert train(replace(config, save_every=7), resume=True).miou == 0.5
    assert steps_of(config) == list(range(1, 9))


def test_a_stopped_run_stays_stopped_and_goes_on_with_more_patience(config: TrainConfig) -> None:
    stopped = replace(config, early_stop=3)
    first = train(stopped)
    again = train(stopped, resume=True)
    assert steps_of(config) == list(range(1, 9))
    assert again.miou == first.miou and read_header(config.output / "last.safetensors")["step"] == 8
    assert train(replace(config, early_stop=None), resume=True).miou == 0.7
    assert steps_of(config) == list(range(1, 11))


def test_without_a_score_the_newest_model_is_kept(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on a validation set in which every pixel is ignored: no NaN in the log, and no early stop."""
    monkeypatch.setattr(sys.modules[__name__], "SCORES", [None] * 10)
    run = train(replace(config, steps=2, early_stop=1))
    assert run.miou is None and steps_of(config) == [1, 2]
    assert read_header(run.path)["step"] == 2 and read_header(run.path)["metrics"]["miou"] is None
    assert not any("miou" in record for record in run_records(config.output))
    assert "step 2: validation mIoU none (every pixel of the labels is ignored)" in capsys.readouterr().out
    card = model_card(read_header(run.path), repo="somebody/model")
    assert "| mIoU | - |" in card and "eval_results" not in card and "nan" not in card.lower()


def test_no_patience_is_refused(config: TrainConfig) -> None:
    with pytest.raises(UserError, match="early_stop is 0"):
        train(replace(config, early_stop=0))
