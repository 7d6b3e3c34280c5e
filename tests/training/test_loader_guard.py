"""What ends a run with an answer, each provoked for real.

Infinite weights, truncated images, killed loaders, changed files and a full disk.
"""

import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn

import segvit.training.batches as batches_module
import segvit.training.learner as learner_module
import segvit.training.loader_guard as guards_module
import segvit.training.not_finite as not_finite_module
import segvit.training.train as train_module
from segvit.cli.main import main
from segvit.config import DataConfig, LossConfig, Structure, TrainConfig
from segvit.data.shapes.scenes import write_shapes
from segvit.errors import UserError
from segvit.losses import CRITERIA, Losses, criterion
from segvit.models.create import create_model
from segvit.models.segvit import SegViT
from segvit.training.checkpoint import checkpoint_path, checkpoints
from segvit.training.loader_guard import LoaderDied, shield_from_sigterm
from segvit.training.replay import _watching, replay
from segvit.training.train import NotFinite, train
from segvit.utils.signals import Interrupted, Stop
from tests.helpers.tiny import random_images, run_records, tiny_config, tiny_run

OnStep = Callable[[int, Losses], None]


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Six scenes to train on and three to validate on, as JPEG."""
    root = tmp_path / "scenes"
    write_shapes(root, train=6, val=3, size=32, seed=0)
    for path in root.glob("images/*/*.png"):
        Image.open(path).save(path.with_suffix(".jpg"), quality=95)
        path.unlink()
    assert len(list(root.glob("images/*/*.jpg"))) == 9
    return root


@pytest.fixture
def config(scenes: Path, tmp_path: Path) -> TrainConfig:
    return tiny_run(tmp_path / "run", data=DataConfig(spec="shapes", root=scenes, workers=0))


def images(scenes: Path, split: str = "train") -> list[Path]:
    return sorted((scenes / "images" / split).glob("*.jpg"))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def at_step(step: int, act: Callable[[], Any]) -> OnStep:
    """What does something once, after so many steps."""

    def on_step(done: int, _: Losses) -> None:
        if done == step:
            act()

    return on_step


def interrupt() -> None:
    raise KeyboardInterrupt


def losses(folder: Path) -> list[float]:
    return [record["loss"] for record in run_records(folder) if "loss" in record]


# Numbers that are not finite ------------------------------------------------------------------------------------------


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[SegViT]:
    """The models that runs make."""
    models: list[SegViT] = []

    def keep(*arguments: Any, **settings: Any) -> SegViT:
        models.append(create_model(*arguments, **settings))
        return models[-1]

    monkeypatch.setattr(learner_module, "create_model", keep)
    return models


def on_command_line(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The exit code of `segvit`."""
    monkeypatch.setattr(sys, "argv", ["segvit", *words])
    try:
        main()
    except SystemExit as leave:
        return int(leave.code or 0)
    return 0


def test_an_infinite_weight_is_found_saved_and_replayed(
    config: TrainConfig, made: list[SegViT], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def spoil() -> None:
        with torch.no_grad():
            made[0].backbone.blocks[1].mlp.fc1.bias[3] = math.inf

    config = replace(config, accumulate=2)
    with pytest.raises(NotFinite) as caught:
        train(config, on_step=at_step(2, spoil))
    told, layer = str(caught.value), "backbone.blocks.1.mlp.fc1"
    assert told.startswith("the loss is nan at step 2. First not finite: the output of " + layer + " (Linear)")
    assert f"weights that are not finite: {layer}.bias." in told and told.count(".jpg") == 2
    assert f"--resume continues from {checkpoint_path(config.output, 2)}" in told
    saved = config.output / "not-finite-step2.pt"
    assert f"`segvit train --replay {saved}`" in told

    capsys.readouterr()
    assert on_command_line(monkeypatch, "train", "--replay", str(saved)) == 2
    seen = capsys.readouterr().out
    assert f"step 2 of {config.output}: first not finite: the output of {layer} (Linear)" in seen
    assert seen.count(".jpg") == 2

    content = torch.load(saved, weights_only=True)
    content["model"][f"{layer}.bias"].zero_()
    torch.save(content, saved)
    assert on_command_line(monkeypatch, "train", "--replay", str(saved), "--device", "cpu") == 0
    assert "all numbers are finite here" in capsys.readouterr().out


def test_the_first_gradient_is_that_next_to_the_fault(config: TrainConfig, made: list[SegViT]) -> None:
    def spoil_gradient(layer: nn.Module, _: Any, output: Tensor) -> None:
        output.register_hook(lambda gradient: gradient * math.nan)

    def spoil() -> None:
        made[0].backbone.blocks[0].register_forward_hook(spoil_gradient)

    with pytest.raises(NotFinite, match=r"gradient is nan at step 1\. First not finite: the gradient of") as caught:
        train(config, on_step=at_step(1, spoil))
    assert "the gradient of backbone.blocks.0.mlp.fc2." in str(caught.value)
    seen = replay(config.output / "not-finite-step1.pt")  # in which the fault is not
    assert seen.finding is None


def test_a_replay_draws_the_same_dropout(
    config: TrainConfig, made: list[SegViT], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config.model.head_dropout > 0 and config.model.drop_path > 0
    logits = []

    def keep(output: Any, *arguments: Any, **terms: Any) -> Losses:
        logits.append(output.class_logits.detach())
        return criterion(output, *arguments, **terms)

    monkeypatch.setitem(CRITERIA, "atm", keep)

    def spoil() -> None:
        made[0].backbone.blocks[0].mlp.fc1.weight.register_hook(lambda gradient: gradient * math.nan)

    with pytest.raises(NotFinite, match=r"the gradient of backbone\.blocks\.0\.mlp\.fc1\.weight"):
        train(config, on_step=at_step(1, spoil))
    replay(config.output / "not-finite-step1.pt")
    _first_step, went_wrong, examined, replayed = logits
    assert torch.equal(went_wrong, examined) and torch.equal(went_wrong, replayed)


def test_a_norm_that_overflows_is_told_apart(config: TrainConfig) -> None:
    config = replace(config, loss=LossConfig(class_coefficient=1e32))
    with pytest.raises(NotFinite, match=r"norm of the gradient is inf at step 0\. Each output and gradient is finite"):
        train(config)


@pytest.mark.parametrize("structure", ["plain", "shrunk"])
def test_layers_of_a_sound_model_are_finite(structure: Structure) -> None:
    torch.manual_seed(0)
    model = create_model(config=tiny_config("beitv2", structure), num_classes=3)
    with _watching(model) as seen:
        model(random_images(2, (64, 64))).mask_logits.sum().backward()
    assert not seen


@pytest.mark.parametrize("wrong", [["--resume"], ["--config", "shapes/demo"], ["--steps", "3"]])
def test_a_replay_takes_no_settings(
    wrong: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert on_command_line(monkeypatch, "train", "--replay", "step.pt", *wrong) == 2
    assert "type --replay step.pt alone" in capsys.readouterr().err


def test_a_file_that_holds_no_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no file .*step\.pt"):
        replay(tmp_path / "step.pt")
    torch.save({"model": {}}, tmp_path / "step.pt")
    with pytest.raises(UserError, match=r"not a step that segvit saved \(no class_weights, .*"):
        replay(tmp_path / "step.pt")


def test_steps_that_fp16_skips_end_the_run_when_there_is_nothing_else(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards_module, "MAX_SKIPPED", 3)
    skipped = iter([True, True, False, True, True, True])
    monkeypatch.setattr(Accelerator, "optimizer_step_was_skipped", property(lambda _: next(skipped)))
    with pytest.raises(UserError, match=r"fp16 has skipped the last 3 steps.*--precision bf16"):
        train(config)
    assert losses(config.output) and checkpoints(config.output)[0] == checkpoint_path(config.output, 5)


# Unreadable images ----------------------------------------------------------------------------------------------------


def test_an_unreadable_image_is_refused_by_default(config: TrainConfig, scenes: Path) -> None:
    truncate(images(scenes)[2])
    with pytest.raises(UserError, match=rf"{images(scenes)[2]}: cannot be read as an image"):
        train(config)
    assert not config.output.exists()


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_an_unreadable_image_is_replaced_listed_and_the_same_when_resumed(
    config: TrainConfig, scenes: Path, workers: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(replace(config, output=tmp_path / "sound"))
    truncate(bad := images(scenes)[2])
    config = replace(config, data=replace(config.data, skip_unreadable=1, workers=workers))
    whole = replace(config, output=tmp_path / "whole", data=replace(config.data, workers=0))
    train(whole)
    with pytest.raises(KeyboardInterrupt):
        train(config, on_step=at_step(4, interrupt))
    train(config, resume=True)
    assert run_records(config.output) == run_records(whole.output)
    assert losses(whole.output) != losses(tmp_path / "sound")
    (line,) = (config.output / "unreadable.txt").read_text().splitlines()
    assert line.startswith(f"{bad}: cannot be read as an image")
    assert f"{line} -> left out, 1 of at most 1" in capsys.readouterr().out


def test_one_unreadable_image_too_many_ends_the_run_with_the_list(config: TrainConfig, scenes: Path) -> None:
    first, second = images(scenes)[1:3]
    truncate(first)
    config = replace(config, data=replace(config.data, skip_unreadable=1))
    with pytest.raises(UserError, match=r"2 images cannot be read, and data\.skip_unreadable allows 1") as caught:
        train(config, on_step=at_step(1, lambda: truncate(second)))
    assert f"  {first}: cannot" in str(caught.value) and f"  {second}: cannot" in str(caught.value)


def test_unreadable_validation_images_are_left_out_and_counted(
    config: TrainConfig, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, *_ = images(scenes, "val")
    truncate(bad)
    config = replace(config, steps=1, data=replace(config.data, skip_unreadable=2))
    result = train(config).result
    assert result.images == 2 and [score.name for score in result.per_image] == [
        path.stem for path in images(scenes, "val")[1:]
    ]
    assert "unreadable images left out: 1 of 3" in capsys.readouterr().out
    assert (config.output / "unreadable.txt").read_text().startswith(f"{bad}: cannot")
    assert "2 images (1 that cannot be read left out)" in result.protocol_line()

    def spoil() -> None:
        for path in images(scenes, "val"):
            path.write_bytes(b"")

    with pytest.raises(UserError, match=r"3 images cannot be read, and data\.skip_unreadable allows 2"):
        train(replace(config, output=config.output / "again"), on_step=at_step(1, spoil))
    allowing = replace(config.data, skip_unreadable=3)
    for path in images(scenes, "val"):
        assert path.stat().st_size == 0
    with pytest.raises(UserError, match="not one of 3 images can be read"):
        train(replace(config, data=allowing, output=config.output / "nothing"))


# A process of the loader ----------------------------------------------------------------------------------------------


def loaders() -> list[int]:
    return [child.pid for child in multiprocessing.active_children() if child.pid]


def terminate(*processes: int) -> None:
    """SIGTERM from a process that is no parent of theirs."""
    subprocess.run(["kill", "-TERM", *map(str, processes)], check=True)


@pytest.mark.slow
def test_a_killed_loader_is_told_and_the_run_goes_on_to_the_bit(config: TrainConfig, tmp_path: Path) -> None:
    train(whole := replace(config, steps=20, output=tmp_path / "whole"))
    config = replace(whole, output=config.output, data=replace(config.data, workers=2))
    with pytest.raises(LoaderDied, match=r"one of 2\) was ended by SIGKILL: usually memory ran out") as caught:
        train(config, on_step=at_step(2, lambda: os.kill(loaders()[0], signal.SIGKILL)))
    newest = checkpoints(config.output)[0]
    assert f"--data.workers 1; --resume continues from {newest}" in str(caught.value)
    train(replace(config, data=replace(config.data, workers=1)), resume=True)
    assert run_records(config.output) == run_records(whole.output)


def test_sigterm_for_all_processes_is_an_interruption(config: TrainConfig) -> None:
    """As a batch system sends it: to the run and to its loaders."""
    config = replace(config, steps=1000, save_every=1000, data=replace(config.data, workers=2))

    with pytest.raises(Interrupted, match="stopped by SIGTERM after step 3"):
        train(config, on_step=at_step(3, lambda: terminate(*loaders(), os.getpid())))
    assert checkpoints(config.output) == [checkpoint_path(config.output, 3)]
    assert not loaders()


def test_loaders_live_on_when_they_alone_are_asked_to_end(config: TrainConfig) -> None:
    config = replace(config, data=replace(config.data, workers=2))
    train(config, on_step=at_step(1, lambda: terminate(*loaders())))
    assert len(losses(config.output)) == config.steps and not loaders()


def test_a_loader_that_has_just_started_lives_on(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own handler of SIGTERM is set then, and the shield is not up yet."""

    def slow_shield(number: int) -> None:
        time.sleep(3 * number)
        shield_from_sigterm(number)

    monkeypatch.setattr(batches_module, "shield_from_sigterm", slow_shield)
    config = replace(config, data=replace(config.data, workers=2))
    train(config, on_step=at_step(1, lambda: terminate(*loaders())))
    assert len(losses(config.output)) == config.steps and not loaders()
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_loader_that_dies_of_it_is_an_interruption_too(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes while the run waits for the images of a loader that it has ended."""
    config = replace(config, steps=1000, save_every=1000, data=replace(config.data, workers=1))
    leave = train_module.Trainer.leave_if_asked

    def leave_too_early(trainer: train_module.Trainer, step: int, stop: Stop) -> None:
        leave(trainer, step, stop)
        if step == 3:
            (loader,) = multiprocessing.active_children()
            loader.kill()
            loader.join()
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(train_module.Trainer, "leave_if_asked", leave_too_early)
    with pytest.raises(Interrupted, match="stopped by SIGTERM after step 3"):
        train(config)
    assert checkpoints(config.output) == [checkpoint_path(config.output, 3)]


# Another dataset ------------------------------------------------------------------------------------------------------


def started(config: TrainConfig) -> TrainConfig:
    """A run with a checkpoint to go on from."""
    with pytest.raises(KeyboardInterrupt):
        train(config, on_step=at_step(3, interrupt))
    return config


def test_a_changed_dataset_is_refused_unless_accepted(
    config: TrainConfig, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started(config)
    added, changed, *_ = images(scenes)
    for path in (added, scenes / "labels" / "train" / f"{added.stem}.png"):
        path.with_stem("more").write_bytes(path.read_bytes())
    changed.write_bytes(changed.read_bytes() + b"x")
    gone = images(scenes, "val")[0]
    gone.unlink()
    (scenes / "labels" / "val" / f"{gone.stem}.png").unlink()
    with pytest.raises(UserError, match=rf"the dataset has changed since {config.output} was started") as caught:
        train(config, resume=True)
    size = changed.stat().st_size
    for line in (
        "added: train image more.jpg",
        "added: train labels more.png",
        f"removed: val image {gone.name}",
        f"removed: val labels {gone.stem}.png",
        f"changed: train image {changed.name}: {size - 1} bytes in the run, {size} now",
    ):
        assert f"\n  {line}" in str(caught.value)
    train(config, resume=True, accept_changed_data=True)
    assert "--accept-changed-data accepts it:\n  added: train image more.jpg" in capsys.readouterr().out
    train(config, resume=True)  # what was accepted is what the run knows now


def test_a_moved_dataset_is_the_same(config: TrainConfig, scenes: Path) -> None:
    started(config)
    moved = scenes.rename(scenes.with_name("moved"))
    for path in moved.rglob("*"):
        os.utime(path, (1, 1))
    train(replace(config, data=replace(config.data, root=moved)), resume=True)


def test_a_checkpoint_from_before_there_was_a_digest_is_taken(config: TrainConfig, scenes: Path) -> None:
    started(config)
    for path in checkpoints(config.output):
        state = torch.load(path, weights_only=True)
        del state["data"]
        torch.save(state, path)
    (config.output / "dataset.json").unlink()
    images(scenes)[0].write_bytes(images(scenes)[0].read_bytes() + b"x")
    train(config, resume=True)
    assert (config.output / "dataset.json").exists()


def test_a_list_in_another_order_is_another_dataset(config: TrainConfig, scenes: Path) -> None:
    listed = scenes / "list.txt"
    names = sorted(path.stem for path in images(scenes))
    listed.write_text("\n".join(names))
    config = replace(config, data=replace(config.data, train_list=listed))
    started(config)
    listed.write_text("\n".join(reversed(names)))
    with pytest.raises(UserError, match="changed: the order of the images"):
        train(config, resume=True)


def test_memory_that_does_not_do_to_find_the_layer_leaves_it_to_replay(
    config: TrainConfig, made: list[SegViT], monkeypatch: pytest.MonkeyPatch
) -> None:
    def give_up(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("no room")

    def spoil(model: SegViT) -> None:
        with torch.no_grad():
            model.head.class_tokens.fill_(math.inf)

    monkeypatch.setattr(not_finite_module, "examine", give_up)
    with pytest.raises(UserError, match=r"at step 2.*(?s:.)*--replay .*not-finite-step2\.pt` .*names the first layer"):
        train(config, on_step=at_step(2, lambda: spoil(made[0])))
    assert (config.output / "not-finite-step2.pt").is_file()


def test_a_lost_manifest_is_said(config: TrainConfig, scenes: Path) -> None:
    started(config)
    (config.output / "dataset.json").write_text("{}")
    images(scenes)[0].write_bytes(images(scenes)[0].read_bytes() + b"x")
    with pytest.raises(UserError, match=r"the differences are not known: dataset\.json is missing"):
        train(config, resume=True)


# A full disk ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full_disks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Errors of runs whose disk was full, by the moment; helpers/full_disk.py runs them in a process of its own."""
    folder = tmp_path_factory.mktemp("disk")
    words = [sys.executable, "-m", "tests.helpers.full_disk", str(folder)]
    for before in (["unshare", "--mount"], ["unshare", "--map-root-user", "--mount"], []):
        try:
            done = subprocess.run([*before, *words], capture_output=True, text=True, cwd=Path(__file__).parents[2])
        except FileNotFoundError:
            continue
        if done.returncode == 0:
            told: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
            return told
    raise AssertionError(done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment, file",
    [
        ("start", "config.yaml"),
        ("log", "metrics.jsonl"),
        ("picture", "validation/step-0000006.png"),
        ("report", "report"),
        ("list", "unreadable.txt"),
        ("batch", "not-finite-step2.pt"),
    ],
)
def test_a_full_disk_is_told_and_the_run_goes_on(full_disks: dict[str, dict[str, Any]], moment: str, file: str) -> None:
    seen = full_disks[moment]
    assert seen["error"] == ("NotFinite" if moment == "batch" else "UserError")
    assert file in seen["text"] and "cannot be written" in seen["text"]
    assert seen["reason"] in seen["text"] or moment == "batch"  # torch's writer gives none
    assert ("--resume continues from" in seen["text"]) == bool(seen["saved"]) == (moment != "start")
    assert not seen["partial"]
    assert seen["resumed"] == seen["whole"]
