"""A training run: stopped and resumed to the bit, refused with a reason, and its model read back."""

import json
import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file

import segvit.data.dataset as dataset_module
import segvit.training.learner as learner_module
import segvit.training.validation as validation_module
import segvit.utils.signals as signals_module
from segvit.config import HeadClasses, OptimConfig, TrainConfig
from segvit.data.shapes.scenes import write_shapes
from segvit.errors import UserError
from segvit.losses import Losses
from segvit.models.create import create_model
from segvit.models.segvit import SegViT
from segvit.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from segvit.training.train import train
from segvit.utils.signals import Interrupted, Stop
from segvit.weights.load import load_model
from segvit.weights.model_file import read_header
from tests.helpers.tiny import tiny_run

STEPS = 6
Changes = Any
"""Fields of TrainConfig."""


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten scenes to train on, so that six steps of three cross an epoch's end, and three to validate on."""
    monkeypatch.setattr(dataset_module, "SHAPES_LENGTH", {"train": 10, "val": 3})


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    """Six steps of a tiny model, with everything on that draws random numbers."""
    return tiny_run(tmp_path / "run", steps=STEPS, batch_size=3, eval_every=STEPS, loggers=("tensorboard",))


def stop_at(step: int) -> Callable[[int, Losses], None]:
    """What Ctrl-C after so many steps does: before that step's checkpoint."""

    def on_step(done: int, _: Losses) -> None:
        if done == step:
            raise KeyboardInterrupt

    return on_step


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(folder: Path, expected: Path) -> None:
    """The same log and the same weights, to the bit."""
    assert [r["step"] for r in records(folder) if "loss" in r] == list(range(1, STEPS + 1))
    assert records(folder) == records(expected)
    for name in ("best.safetensors", "last.safetensors"):
        ours, theirs = load_file(folder / name), load_file(expected / name)
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            assert torch.equal(ours[key], value), f"{name}: {key}"


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "eval_every, save_every, stop",
    [
        pytest.param(STEPS, 1, 3, id="no validation before"),
        pytest.param(2, 1, 3, id="a validation before", marks=pytest.mark.slow),
        pytest.param(2, 2, 4, id="a validation before the stop is redone"),
        pytest.param(1, 4, 5, id="one long ago", marks=pytest.mark.slow),
    ],
)
def test_stopped_and_resumed_is_uninterrupted_to_the_bit(
    config: TrainConfig, tmp_path: Path, workers: int, eval_every: int, save_every: int, stop: int
) -> None:
    config = replace(config, data=replace(config.data, workers=workers), eval_every=eval_every, save_every=save_every)
    whole = replace(config, output=tmp_path / "whole")
    uninterrupted = train(whole)
    with pytest.raises(KeyboardInterrupt):
        train(config, on_step=stop_at(stop))
    assert not (config.output / "last.safetensors").exists()
    torch.manual_seed(12345)  # another process has another state
    resumed = train(config, resume=True)
    assert_same_run(config.output, whole.output)
    assert resumed.miou == uninterrupted.miou
    assert resumed.result == uninterrupted.result


@pytest.mark.parametrize("head_classes", get_args(HeadClasses))
def test_stopped_twice_is_uninterrupted_to_the_bit(
    config: TrainConfig, tmp_path: Path, head_classes: HeadClasses
) -> None:
    config = replace(config, model=replace(config.model, head_classes=head_classes))
    whole = replace(config, output=tmp_path / "whole")
    train(whole)
    for stop, resume in ((2, False), (5, True)):
        with pytest.raises(KeyboardInterrupt):
            train(config, resume=resume, on_step=stop_at(stop))
    train(config, resume=True)
    assert_same_run(config.output, whole.output)


def test_the_numbers_depend_on_neither_workers_nor_validations(config: TrainConfig, tmp_path: Path) -> None:
    other = replace(config, data=replace(config.data, workers=2), eval_every=1, save_every=5, output=tmp_path / "other")
    train(config)
    train(other)
    losses = [[r for r in records(c.output) if "loss" in r] for c in (config, other)]
    assert losses[0] == losses[1]
    ours, theirs = (load_file(c.output / "last.safetensors") for c in (config, other))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_another_seed_is_another_run(config: TrainConfig, tmp_path: Path) -> None:
    losses = {}
    for seed in (0, 1):
        train(replace(config, seed=seed, steps=1, output=tmp_path / str(seed)))
        losses[seed] = records(tmp_path / str(seed))[0]["loss"]
    assert losses[0] != losses[1]


def test_resume_takes_what_does_not_alter_the_numbers(config: TrainConfig, tmp_path: Path) -> None:
    whole = replace(config, output=tmp_path / "whole")
    train(whole)
    with pytest.raises(KeyboardInterrupt):
        train(config, on_step=stop_at(3))
    moved = config.output.rename(tmp_path / "moved")
    other = replace(config, data=replace(config.data, workers=1), log_every=7, save_every=3, output=moved)
    train(other, resume=True)
    assert_same_run(moved, whole.output)


def test_resumed_after_its_end_it_says_the_same(config: TrainConfig) -> None:
    first = train(config)
    log = records(config.output)
    again = train(config, resume=True)
    assert again.miou == first.miou and again.result == first.result
    assert [r for r in records(config.output) if "loss" in r] == [r for r in log if "loss" in r]


def test_what_a_run_leaves(config: TrainConfig) -> None:
    run = train(replace(config, eval_every=2))
    names = {path.name for path in config.output.iterdir() if path.is_file()}
    assert {"config.yaml", "metrics.jsonl", "best.safetensors", "last.safetensors", "checkpoint-0000006.pt"} <= names
    assert not [name for name in names if name.endswith(".partial")]
    assert list(config.output.rglob("*tfevents*"))
    assert TrainConfig.load(config.output / "config.yaml") == replace(config, eval_every=2)
    validated = [r for r in records(config.output) if "miou" in r]
    assert [r["step"] for r in validated] == [2, 4, 6]
    assert run.miou == max(r["miou"] for r in validated)
    trained = [r for r in records(config.output) if "loss" in r]
    for record in trained:
        terms = [value for key, value in record.items() if key.split("_")[0] in ("class", "focal", "dice")]
        assert len(terms) == 6
        assert record["loss"] == pytest.approx(sum(terms), rel=1e-5)
    assert trained[0]["lr"] == pytest.approx(1e-3 * 1e-6)
    assert [r["lr"] for r in trained[2:]] == pytest.approx([1e-3 * (1 - t / STEPS) for t in range(2, STEPS)])


def test_the_best_model_predicts_and_knows_its_run(config: TrainConfig) -> None:
    run = train(config)
    model = load_model(run.path)
    assert model.spec is not None and model.spec.name == "shapes"
    labels = model.predict(torch.randint(0, 256, (1, 3, 37, 50), dtype=torch.uint8))
    assert labels.shape == (1, 37, 50)
    assert model.protocol == config.eval
    header = read_header(run.path)
    assert header["step"] == STEPS
    assert header["train"] == config.to_dict() | {"output": config.output.name}  # no folder of this machine
    assert header["metrics"]["miou"] == run.miou


def test_training_lowers_the_loss(config: TrainConfig) -> None:
    train(replace(config, steps=40, save_every=40, eval_every=40, optim=OptimConfig(lr=2e-3, warmup_steps=5)))
    losses = [r["loss"] for r in records(config.output) if "loss" in r]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_bf16_trains_near_float32(config: TrainConfig, tmp_path: Path) -> None:
    mixed = replace(config, precision="bf16", output=tmp_path / "mixed")
    train(config)
    train(mixed)
    losses = [[r["loss"] for r in records(c.output) if "loss" in r] for c in (config, mixed)]
    assert all(math.isfinite(loss) for loss in losses[1])
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert all(value.dtype == torch.float32 for value in load_file(mixed.output / "best.safetensors").values())


# Refusals -------------------------------------------------------------------------------------------------------------


def test_a_folder_that_holds_a_run_is_refused(config: TrainConfig) -> None:
    train(config)
    before = (config.output / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=rf"{config.output} already holds a run.*--resume.*--output"):
        train(config)
    assert (config.output / "metrics.jsonl").read_bytes() == before


def test_a_run_that_never_saved_can_be_started_again(config: TrainConfig) -> None:
    broken = replace(config, model=replace(config.model, head_num_heads=3))
    with pytest.raises(UserError, match="head_num_heads"):
        train(broken)
    with pytest.raises(KeyboardInterrupt):
        train(config, on_step=stop_at(1))
    train(config)
    assert [r["step"] for r in records(config.output) if "loss" in r] == list(range(1, STEPS + 1))


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda c: replace(c, optim=replace(c.optim, lr=2e-3)), r"optim\.lr: 0\.001 in the run, 0\.002 now"),
        (lambda c: replace(c, steps=1), r"has done \d steps, and steps is 1: give more with --steps"),
        (lambda c: replace(c, augment=replace(c.augment, scale=(1.0, 1.0))), r"augment\.scale: \[0\.8, 1\.3\]"),
        (lambda c: replace(c, model=replace(c.model, depth=3), seed=1), r"(?s)model\.depth: 2.*seed: 0 in the run"),
    ],
    ids=["learning rate", "steps", "augmentation", "two"],
)
def test_resume_with_other_settings_is_refused(
    config: TrainConfig, change: Callable[[TrainConfig], TrainConfig], told: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(config, on_step=stop_at(2))
    with pytest.raises(UserError, match=told):
        train(change(config), resume=True)


def test_resume_without_a_checkpoint_is_refused(config: TrainConfig) -> None:
    with pytest.raises(
        UserError, match=r"nothing to resume: there is no checkpoint in .*run; start .* without --resume"
    ):
        train(config, resume=True)
    assert not config.output.exists()


def spoil(kind: str, path: Path) -> None:
    content = path.read_bytes()
    if kind == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("<html>not found</html>")
    elif kind == "a list":
        torch.save([1, 2], path)
    else:
        assert kind == "other keys"
        torch.save({"state_dict": {}}, path)


@pytest.mark.parametrize("kind", ["cut", "empty", "text", "a list", "other keys"])
def test_a_spoilt_checkpoint_is_refused(config: TrainConfig, kind: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(config, on_step=stop_at(2))
    for path in checkpoints(config.output):
        spoil(kind, path)
    with pytest.raises(UserError, match=r"checkpoint-0000001\.pt: not a checkpoint that segvit wrote, or cut short"):
        train(config, resume=True)


def test_of_two_checkpoints_the_newest_good_one_is_taken(
    config: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = replace(config, output=config.output / "whole")
    train(whole)
    config = replace(config, output=config.output / "spoilt")
    with pytest.raises(KeyboardInterrupt):
        train(config, on_step=stop_at(3))
    newest, before = checkpoints(config.output)
    spoil("cut", newest)
    train(config, resume=True)
    assert f"{newest}: not a checkpoint" in (said := capsys.readouterr().out) and f"resuming from {before.name}" in said
    assert_same_run(config.output, whole.output)


def test_a_checkpoint_that_cannot_be_read_does_not_outlive_good_ones(config: TrainConfig) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(config, on_step=stop_at(4))
    newest, before = checkpoints(config.output)
    spoil("cut", newest)
    with pytest.raises(KeyboardInterrupt):
        train(config, resume=True, on_step=stop_at(3))
    save_checkpoint(config.output, {**load_checkpoint(before), "step": 2}, keep=1)
    assert [path.name for path in checkpoints(config.output)] == ["checkpoint-0000002.pt"]


def test_a_hole_in_a_checkpoint_is_seen(config: TrainConfig) -> None:
    train(config)
    newest = checkpoints(config.output)[0]
    tokens = load_checkpoint(newest)["model"]["head.class_tokens"].numpy().tobytes()
    newest.write_bytes(newest.read_bytes().replace(tokens, bytes(len(tokens))))
    with pytest.raises(UserError, match=r"cut short .*data/\d+ is damaged"):
        load_checkpoint(newest)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_is_passed_on_counts_once(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    with Stop() as stop:
        for _ in range(2):
            os.kill(os.getpid(), number)
        assert stop.number == number
        monkeypatch.setattr(signals_module, "ECHO", -1.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)


@pytest.mark.parametrize("keep", [1, 3])
def test_as_many_checkpoints_are_kept_as_asked_for(config: TrainConfig, keep: int) -> None:
    train(replace(config, save_every=1, keep_checkpoints=keep))
    steps = [int(path.stem.split("-")[1]) for path in checkpoints(config.output)]
    assert steps == [STEPS - back for back in range(keep)]


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_ends_the_step_and_leaves_a_checkpoint(config: TrainConfig, number: signal.Signals) -> None:
    whole = replace(config, output=config.output / "whole")
    train(whole)
    config = replace(config, output=config.output / "stopped", save_every=100)

    def ask(done: int, _: Losses) -> None:
        if done == 2:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=rf"{number.name} after step 2; its checkpoint is written") as caught:
        train(config, on_step=ask)
    assert caught.value.exit_code == 128 + number and signal.getsignal(number) is before
    assert [path.name for path in checkpoints(config.output)] == ["checkpoint-0000002.pt"]
    train(config, resume=True)
    assert_same_run(config.output, whole.output)


def test_a_validation_that_a_signal_breaks_off_is_made_up_for(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, eval_every=2)
    whole = replace(config, output=config.output / "whole")
    best = train(whole).miou
    config = replace(config, output=config.output / "stopped")
    evaluate = validation_module.evaluate

    def ask(*arguments: Any, progress: Callable[[int, int], None], **settings: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        monkeypatch.undo()
        monkeypatch.setattr(dataset_module, "SHAPES_LENGTH", {"train": 10, "val": 3})
        return evaluate(*arguments, progress=progress, **settings)

    monkeypatch.setattr(validation_module, "evaluate", ask)
    with pytest.raises(Interrupted, match="after step 2"):
        train(config)
    assert not [record for record in records(config.output) if "miou" in record]
    assert train(config, resume=True).miou == best
    assert records(config.output) == records(whole.output)


@pytest.mark.parametrize("parts", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_accumulated_gradients_are_those_of_the_batch(config: TrainConfig, parts: int) -> None:
    config = replace(config, batch_size=4, model=replace(config.model, head_dropout=0.0, drop_path=0.0))
    whole = replace(config, output=config.output / "whole")
    train(whole)
    cut = replace(config, output=config.output / "cut", accumulate=parts)
    train(cut)
    ours, theirs = ([r["loss"] for r in records(run.output) if "loss" in r] for run in (cut, whole))
    assert ours == pytest.approx(theirs, rel=1e-5)
    with pytest.raises(UserError, match=r"batch_size 4 does not divide into 1 processes of 3 parts"):
        train(replace(config, output=config.output / "odd", accumulate=3))


def test_a_crash_while_saving_leaves_the_last_checkpoint(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    save, calls = torch.save, []

    def break_off(state: Any, file: Any) -> None:
        calls.append(state["step"])
        if len(calls) == 3:
            file.write(b"half")
            raise OSError("disk full")
        save(state, file)

    monkeypatch.setattr(torch, "save", break_off)
    with pytest.raises(UserError, match=r"disk full.*checkpoint-0000002\.pt is whole"):
        train(config)
    monkeypatch.undo()
    monkeypatch.setattr(dataset_module, "SHAPES_LENGTH", {"train": 10, "val": 3})
    assert [path.name for path in checkpoints(config.output)][:1] == ["checkpoint-0000002.pt"]
    train(config, resume=True)
    assert [r["step"] for r in records(config.output) if "loss" in r] == list(range(1, STEPS + 1))


def test_a_first_checkpoint_that_the_disk_does_not_take_says_how_to_start_again(tmp_path: Path) -> None:
    lost = tmp_path / "removed"
    with pytest.raises(UserError, match=r"no checkpoint had been written before\. Make room.*--output .*--overwrite"):
        save_checkpoint(lost, {"step": 1}, keep=1)


@pytest.mark.parametrize("value", [math.inf, math.nan], ids=["inf", "nan"])
def test_a_loss_that_is_no_number_names_the_step_and_the_images(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    root = tmp_path / "scenes"
    write_shapes(root, train=6, val=2, size=32, seed=0)
    config = replace(config, data=replace(config.data, root=root), batch_size=2)
    made: list[SegViT] = []

    def keep(*arguments: Any, **settings: Any) -> SegViT:
        made.append(create_model(*arguments, **settings))
        return made[-1]

    def poison(done: int, _: Losses) -> None:
        if done == 2:
            with torch.no_grad():
                made[0].backbone.patch_embed.proj.bias.fill_(value)

    monkeypatch.setattr(learner_module, "create_model", keep)
    with pytest.raises(UserError, match=r"the loss is nan at step (2|3)\b") as caught:
        train(config, on_step=poison)
    text = str(caught.value)
    names = {path.stem for path in root.rglob("*") if path.is_file() and path.stem in text}
    assert len(names) in (1, 2) and text.count(str(root)) >= 2
    assert torch.load(checkpoints(config.output)[0])["step"] == 2


@pytest.mark.parametrize(
    "change, key",
    [
        (lambda c: replace(c, steps=0), "steps is 0"),
        (lambda c: replace(c, batch_size=0), "batch_size is 0"),
        (lambda c: replace(c, save_every=0), "save_every is 0"),
        (lambda c: replace(c, eval_every=-1), "eval_every is -1"),
        (lambda c: replace(c, optim=replace(c.optim, lr=0.0)), r"optim\.lr is 0"),
        (lambda c: replace(c, optim=replace(c.optim, clip_norm=-1.0)), r"optim\.clip_norm is -1"),
        (lambda c: replace(c, model=replace(c.model, image_size=0)), r"model\.image_size is 0"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(
    config: TrainConfig, change: Callable[[TrainConfig], TrainConfig], key: str
) -> None:
    with pytest.raises(UserError, match=key):
        train(change(config))
    assert not config.output.exists()
