"""The running average of the weights: its value, its place in files and checkpoints, and who says so."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import segvit.data.dataset as dataset_module
import segvit.training.learner as learner_module
from segvit.cli.main import app
from segvit.config import DataConfig, LossConfig, TrainConfig
from segvit.errors import UserError
from segvit.evaluation.evaluate import evaluate
from segvit.losses import Losses
from segvit.models.create import create_model
from segvit.models.segvit import SegViT
from segvit.training.checkpoint import checkpoints
from segvit.training.ema import create_average, decay_at
from segvit.training.train import train
from segvit.weights.load import load_model
from segvit.weights.model_file import read_header
from tests.helpers.tiny import run_records, tiny_run

DECAY = 0.6
SAID = "weights: the average over the run (EMA, decay 0.6) at step 6"


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_module, "SHAPES_LENGTH", {"train": 10, "val": 3})


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return tiny_run(tmp_path / "run", ema_decay=DECAY)


def test_the_average_is_the_written_out_sum() -> None:
    model = nn.Linear(3, 2)
    model.register_buffer("mean", torch.tensor([1.0]))
    average = create_average(model, decay=0.3)
    expected = model.weight.detach().clone()
    for update in range(6):
        with torch.no_grad():
            model.weight.copy_(torch.randn(2, 3, generator=torch.Generator().manual_seed(update)))
        average.update_parameters(model)
        decay = 0 if update == 0 else min(0.3, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * model.weight.detach()
        torch.testing.assert_close(average.module.weight, expected)
    assert torch.equal(average.module.mean, model.mean)
    assert not any(parameter.requires_grad for parameter in average.module.parameters())


@pytest.mark.skipif(
    torch.torch_version.TorchVersion(torch.__version__) < "2.12", reason="torch 2.11 cannot average bf16"
)
def test_the_average_of_a_model_in_bf16_is_in_float32() -> None:
    model = nn.Linear(2, 2).bfloat16()
    average = create_average(model, decay=0.5)
    for _ in range(3):
        average.update_parameters(model)
    assert average.module.weight.dtype == torch.float32
    assert torch.equal(average.module.weight, model.weight.float())


def test_the_decay_warms_up() -> None:
    decays = [decay_at(n, 0.999) for n in range(1, 20_000)]
    assert decays[0] == pytest.approx(2 / 11) and decays == sorted(decays)
    assert decays[-1] == 0.999 and decays[100] < 0.93
    weights, shares = 1.0, []  # of a run of 200 steps: how much of the average is of the first half?
    for n in range(1, 200):
        decay = decay_at(n, 0.999)
        shares = [share * decay for share in shares or [weights]] + [1 - decay]
    assert sum(shares[:100]) < 0.02


def test_the_files_hold_the_average_of_the_runs_weights(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[SegViT] = []

    def keep(*arguments: object, **settings: object) -> SegViT:
        made.append(create_model(*arguments, **settings))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(learner_module, "create_model", keep)
    seen: list[dict[str, torch.Tensor]] = []

    def note(step: int, _: Losses) -> None:
        seen.append({name: value.clone() for name, value in made[0].state_dict().items()})

    run = train(config, on_step=note)
    expected = seen[0]
    for n, state in enumerate(seen[1:], start=1):
        decay = min(DECAY, (1 + n) / (10 + n))
        expected = {name: decay * expected[name] + (1 - decay) * value for name, value in state.items()}
    for name in ("best", "last"):
        written = load_file(config.output / f"{name}.safetensors")
        assert written.keys() == expected.keys()
        for key, value in written.items():
            torch.testing.assert_close(value, expected[key], rtol=1e-5, atol=1e-6)
        header = read_header(config.output / f"{name}.safetensors")
        assert (header["weights"], header["ema_decay"], header["step"]) == ("ema", DECAY, 6)
    assert any(not torch.equal(written[key], seen[-1][key]) for key in written)
    model = load_model(run.path)
    scenes = dataset_module.open_dataset(config.data, "val", size=32)
    assert evaluate(model, scenes, config=config.eval).miou == run.miou  # validated was the average


def test_the_average_does_not_touch_the_training(config: TrainConfig, tmp_path: Path) -> None:
    train(config)
    plain = replace(config, ema_decay=None, output=tmp_path / "plain")
    train(plain)
    ours, theirs = ([r for r in run_records(c.output) if "loss" in r] for c in (config, plain))
    assert ours == theirs
    assert "weights" not in read_header(plain.output / "last.safetensors")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"structure": "shrunk", "image_size": 64, "downsampling": "edge", "upscaler": "conv"},
        {"merge_threshold": 0.5, "head_classes": "presence"},
        {"merge_shares": (0.4, 0.5), "upscaler": "conv"},
    ],
    ids=str,
)
def test_resumed_it_is_the_same_to_the_bit(changes: dict[str, Any], config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, model=replace(config.model, depth=3 if changes else 2, **changes))
    whole = replace(config, output=tmp_path / "whole")
    train(whole)

    def stop(step: int, _: Losses) -> None:
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, on_step=stop)
    torch.manual_seed(99)
    train(config, resume=True)
    assert run_records(config.output) == run_records(whole.output)
    for name in ("best", "last"):
        ours, theirs = (load_file(c.output / f"{name}.safetensors") for c in (config, whole))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    ours, theirs = (torch.load(checkpoints(c.output)[0])["average"] for c in (config, whole))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert int(ours["n_averaged"]) == 6


def test_resume_with_another_decay_is_refused(config: TrainConfig) -> None:
    train(replace(config, steps=2))
    with pytest.raises(UserError, match=r"ema_decay: 0\.6 in the run, None now"):
        train(replace(config, steps=2, ema_decay=None), resume=True)


@pytest.mark.parametrize("decay", [1.0, -0.1, math.nan])
def test_a_decay_that_cannot_be_meant_is_refused(config: TrainConfig, decay: float) -> None:
    with pytest.raises(UserError, match="ema_decay is"):
        train(replace(config, ema_decay=decay))


def test_info_evaluate_and_export_say_so(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = SAID
    path = str(train(config).path)
    capsys.readouterr()
    app(["info", path], exit_on_error=False)
    assert "average over the run (EMA, decay 0.6) at step 6" in " ".join(capsys.readouterr().out.split())
    app(["evaluate", path, "--data.spec", "shapes", "--json", str(tmp_path / "e.json"), "--device", "cpu"])
    assert said in capsys.readouterr().out
    assert json.loads((tmp_path / "e.json").read_text())["weights"] == said.removeprefix("weights: ")
    exported: list[SegViT] = []

    def export(model: SegViT, *_: object, **__: object) -> Any:
        exported.append(model)
        return SimpleNamespace(lines=list)

    monkeypatch.setattr("segvit.export.export.export_model", export)
    app(["export", path, str(tmp_path / "m.onnx")])
    assert said in capsys.readouterr().out
    state = load_file(path)
    assert all(torch.equal(value, state[name]) for name, value in exported[0].state_dict().items())


@pytest.mark.slow
def test_an_exported_average_says_so(config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app(["export", str(train(config).path), str(tmp_path / "m.onnx")])
    capsys.readouterr()
    app(["evaluate", str(tmp_path / "m.onnx"), "--data.spec", "shapes", "--device", "cpu"])
    assert SAID in capsys.readouterr().out


def test_a_run_from_an_average_is_none_itself(config: TrainConfig, tmp_path: Path) -> None:
    start = train(config).path
    network = load_model(start).config
    tuned = replace(
        config, init=str(start), model=network, data=DataConfig(spec="shapes", workers=0), ema_decay=None, steps=1,
        output=tmp_path / "tuned",
    )  # fmt: skip
    assert "weights" not in read_header(train(tuned).path)


NEWER = {"": ("ema_decay", "early_stop", "grad_checkpointing", "compile", "accumulate"), "loss": ("class_weights",)}
NEWER |= {"optim": ("freeze", "layer_decay"), "augment": ("rare_class_probability",)}
"""Settings that the first checkpoints did not know, by section."""


def test_a_checkpoint_from_before_these_settings_resumes_with_their_defaults(
    config: TrainConfig, tmp_path: Path
) -> None:
    whole = replace(config, ema_decay=None, output=tmp_path / "whole")
    train(whole)
    old = replace(whole, output=tmp_path / "old")

    def stop(step: int, _: Losses) -> None:
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(old, on_step=stop)
    path = checkpoints(old.output)[0]
    state = torch.load(path)
    for key in ("average", "stale"):
        del state[key]
    for section, names in NEWER.items():
        for name in names:
            del (state["config"][section] if section else state["config"])[name]
    torch.save(state, path)
    with pytest.raises(UserError, match=r"ema_decay: None in the run, 0\.6 now"):
        train(replace(old, ema_decay=DECAY), resume=True)
    with pytest.raises(UserError, match=r"optim\.freeze: 'none' in the run, 'backbone' now"):
        train(replace(old, optim=replace(old.optim, freeze="backbone")), resume=True)
    train(old, resume=True)
    assert run_records(old.output) == run_records(whole.output)


TWO_PROCESSES = """
import sys, torch, segvit.data.dataset as dataset
from segvit.config import TrainConfig
from segvit.training.train import train
dataset.SHAPES_LENGTH = {"train": 10, "val": 3}
torch.set_num_threads(1)
train(TrainConfig.load(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["data", "fsdp"])
def test_two_processes_average_what_one_does(config: TrainConfig, tmp_path: Path, parallel: str) -> None:
    """With blocks that run again, a frozen layer and weights of classes, too."""
    model = replace(config.model, head_dropout=0.0, drop_path=0.0, depth=3)
    optim = replace(config.optim, freeze=1, layer_decay=0.8)
    loss = LossConfig(class_weights=("balanced",))
    one = replace(config, model=model, optim=optim, loss=loss, grad_checkpointing=True, output=tmp_path / "one")
    train(one)
    two = replace(one, parallel=parallel, output=tmp_path / "two")
    two.save(tmp_path / "two.yaml")
    (tmp_path / "start.py").write_text(TWO_PROCESSES)
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(tmp_path / "start.py")]
    done = subprocess.run([sys.executable, *words, str(tmp_path / "two.yaml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    losses = [[r["loss"] for r in run_records(c.output) if "loss" in r] for c in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    ours, theirs = (load_file(c.output / "last.safetensors") for c in (two, one))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-3)
