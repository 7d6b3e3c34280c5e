"""The learning rate finder: what it sweeps, what it suggests, and that it leaves nothing behind."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import segvit.data.dataset as dataset_module
from segvit.cli.main import app
from segvit.config import OptimConfig, TrainConfig
from segvit.errors import UserError
from segvit.training.lr_find import centred_means, find_learning_rate, smooth, steepest
from segvit.training.train import train
from tests.helpers.tiny import run_records, tiny_run


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    monkeypatch.setattr(dataset_module, "SHAPES_LENGTH", {"train": 10, "val": 1})
    monkeypatch.chdir(tmp_path)
    return tiny_run(tmp_path / "run", optim=OptimConfig(lr=1e-3, warmup_steps=2))


def test_it_sweeps_the_run_itself(config: TrainConfig, tmp_path: Path) -> None:
    found = find_learning_rate(config, start=1e-5, end=1e-2, num_steps=12)
    assert len(found.rates) == 12 and not found.diverged
    ratios = [after / before for before, after in zip(found.rates, found.rates[1:], strict=False)]
    assert ratios == pytest.approx([1000 ** (1 / 11)] * 11)
    assert (found.rates[0], found.rates[-1]) == pytest.approx((1e-5, 1e-2))
    # The first loss is that of the run, whatever the rate, and the second one that of a run at the first rate.
    once = replace(config, optim=replace(config.optim, lr=1e-5, warmup_steps=0, power=0.0), steps=2, eval_every=2)
    train(once)
    losses = [record["loss"] for record in run_records(once.output) if "loss" in record]
    assert list(found.losses[:2]) == pytest.approx(losses, rel=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_it_ends_where_the_loss_doubles(config: TrainConfig) -> None:
    found = find_learning_rate(config, start=1e-5, end=1e3, num_steps=40)
    assert found.diverged and len(found.rates) < 40
    assert found.losses[-1] > 2 * min(found.losses)
    assert found.suggested <= found.rates[found.lowest]


def test_the_steepest_fall_is_suggested() -> None:
    rates = [10.0 ** (-7 + step / 10) for step in range(70)]
    losses = [4 / (1 + math.exp(3 * (math.log10(rate) + 3))) + 1 + (rate > 0.1) * 9 for rate in rates]
    assert steepest(rates, losses) == pytest.approx(1e-3, rel=0.3)
    with pytest.raises(UserError, match=r"rises from the first rate on \(1\.0e-07\).*--start"):
        steepest(rates, [float(step) for step in range(70)])


def test_the_smoothed_loss_does_not_lag() -> None:
    falls = [5.0] * 20 + [1.0] * 20
    means = centred_means(falls)
    assert means[16] == 5 and means[23] == 1 and means[19] + means[20] == pytest.approx(6)
    assert means[0] == 5 and means[-1] == 1 and len(means) == 40


def test_the_running_mean_starts_unbiased() -> None:
    assert smooth([3.0] * 5) == pytest.approx([3.0] * 5)
    assert smooth([1.0, 2.0]) == pytest.approx([1.0, (0.9 * 1 + 2) / 1.9])


@pytest.mark.parametrize(
    "start, end, num_steps, told", [(0, 1, 20, "above 0"), (1, 1, 20, "lower one"), (1e-5, 1, 5, "too few")]
)
def test_a_sweep_that_cannot_be_meant_is_refused(
    config: TrainConfig, start: float, end: float, num_steps: int, told: str
) -> None:
    with pytest.raises(UserError, match=told):
        find_learning_rate(config, start=start, end=end, num_steps=num_steps)


def test_the_command_line_says_and_draws_it(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.save(tmp_path / "run.yaml")
    words = ["lr-find", "--config", "run.yaml", "--start", "1e-4", "--end", "1e-2", "--num-steps", "12"]
    app([*words, "--plot", "charts/lr.png"])
    printed = capsys.readouterr().out
    assert "12 of 12 steps: the loss never doubled: a higher --end" in printed
    assert "suggested: --optim.lr " in printed and "lowest" in printed
    assert (tmp_path / "charts" / "lr.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in tmp_path.rglob("*")} == {"run.yaml", "charts", "lr.png"}
    with pytest.raises(UserError, match=r"--plot lr\.jpg: give a file that ends in \.png, \.pdf or \.svg"):
        app([*words, "--plot", "lr.jpg"])


def test_two_folders_are_taken_as_by_train(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(settings: TrainConfig, given: Sequence[str]) -> TrainConfig:
        raise UserError(f"{settings.data.images} {settings.data.labels} {','.join(given)}")

    monkeypatch.setattr("segvit.cli.lr_find.with_recipe", chosen)
    for folder in ("photos", "masks"):
        (tmp_path / folder).mkdir()
    with pytest.raises(UserError, match=r"^photos masks steps,data\.images,data\.labels$"):
        app(["lr-find", "photos", "masks", "--steps", "9"])
    with pytest.raises(UserError, match="give the folder of the masks as well: `segvit lr-find photos MASKS`"):
        app(["lr-find", "photos"])
    with pytest.raises(UserError, match=r"photos and --data\.images .* both name a folder"):
        app(["lr-find", "photos", "masks", "--data.images", "photos"])
