"""The folder of a run: its name, its lock, beginning anew, more steps, moved data, and the model of a stopped run."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import segvit.data.dataset as dataset_module
from segvit.cli import main as cli
from segvit.config import DataConfig, TrainConfig
from segvit.errors import UserError
from segvit.losses import Losses
from segvit.prediction.predict import predict
from segvit.training.run_folder import first_crops
from segvit.training.run_folder.model import model_of_checkpoint
from segvit.training.run_folder.names import checkpoints, claim, known_part, name_of, run_to_resume
from segvit.training.train import Trainer, train
from segvit.utils.files import check_writable
from segvit.utils.lock import held
from segvit.utils.signals import Interrupted
from segvit.weights.load import load_model
from tests.helpers.tiny import run_records, tiny_run


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    monkeypatch.setattr(dataset_module, "SHAPES_LENGTH", {"train": 6, "val": 2})
    return tiny_run(tmp_path / "run", steps=3, eval_every=3)


def write_folders(root: Path) -> DataConfig:
    """Six photos and masks of two classes."""
    for folder in ("photos", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(6):
        noise = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / "photos" / f"{number}.png")
        Image.fromarray((noise[..., 0] // 128).astype(np.uint8)).save(root / "masks" / f"{number}.png")
    return DataConfig(images=root / "photos", labels=root / "masks", classes=("a", "b"), workers=0)


def stop_after(step: int) -> Callable[[int, Losses], None]:
    def ask(done: int, _: Losses) -> None:
        if done == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return ask


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data, name",
    [
        (DataConfig(images=Path("people/photos")), "photos"),
        (DataConfig(images=Path("people/photos/*.jpg")), "photos"),
        (DataConfig(images=Path("people/**/*_{a,b}.jpg")), "people"),
        (DataConfig(spec="camvid"), "camvid"),
        (DataConfig(spec="data/my.yaml"), "my"),
        (DataConfig(), "shapes"),
    ],
)
def test_a_run_is_named_after_the_photos_or_the_spec(data: DataConfig, name: str) -> None:
    assert name_of(data, otherwise="shapes") == name


def test_the_folder_of_the_photos_may_be_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert name_of(DataConfig(images=Path())) == tmp_path.name


def test_each_run_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    star = tmp_path / "runs" / "*"
    assert [claim(star, "photos").name for _ in range(3)] == ["photos", "photos-2", "photos-3"]
    assert claim(tmp_path / "own", "photos") == claim(tmp_path / "own", "photos") == tmp_path / "own"
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file.*cannot be written.*give another --output"):
        claim(tmp_path / "file" / "*", "photos")


def test_runs_that_start_at_once_each_get_a_folder(tmp_path: Path) -> None:
    """Where `runs` does not exist yet, as in a loop over settings in a new place."""
    for round in range(12):
        star, together = tmp_path / str(round) / "runs" / "*", threading.Barrier(8)

        def start(_: int, star: Path = star, together: threading.Barrier = together) -> str:
            together.wait()
            for _ in range(2):  # the command line looks before it imports torch, and the run looks again
                check_writable(known_part(star), folder=True, remedy="give another --output")
            return claim(star, "photos").name

        with ThreadPoolExecutor(8) as pool:
            names = sorted(pool.map(start, range(8)))
        assert names == ["photos", *(f"photos-{number}" for number in range(2, 9))]
        assert sorted(path.name for path in star.parent.iterdir()) == names
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(map(str, range(12)))


def test_runs_without_an_output_do_not_meet(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = replace(config, output=TrainConfig().output, steps=1)
    assert [train(config).path for _ in range(2)] == [
        Path("runs/shapes/best.safetensors"),
        Path("runs/shapes-2/best.safetensors"),
    ]
    assert TrainConfig.load("runs/shapes-2/config.yaml").output == Path("runs/shapes-2")
    with pytest.raises(UserError, match=r"(?s)2 runs can be resumed; .*train --resume --output runs/shapes"):
        train(config, resume=True)
    shutil.rmtree("runs/shapes-2")
    assert train(config, resume=True).path == Path("runs/shapes/best.safetensors")


def test_the_run_to_resume_is_the_only_one_with_a_checkpoint(tmp_path: Path) -> None:
    star = tmp_path / "*"
    with pytest.raises(UserError, match=r"nothing to resume: there is no checkpoint in .*/\*; give the folder"):
        run_to_resume(star, name=None)
    for name in ("photos", "photos-2", "street"):
        (tmp_path / name).mkdir()
    for name in ("photos-2", "street"):
        (tmp_path / name / "checkpoint-0000003.pt").write_bytes(b"")
    assert run_to_resume(star, name="photos") == tmp_path / "photos-2"
    assert run_to_resume(star, name="street") == tmp_path / "street"
    assert run_to_resume(tmp_path / "own", name=None) == tmp_path / "own"
    with pytest.raises(UserError, match="2 runs can be resumed"):
        run_to_resume(star, name=None)


# --- two runs, and a run anew ----------------------------------------------------------------------------------------


def test_a_folder_with_a_run_under_way_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    config.output.mkdir()
    code = "import sys; from pathlib import Path; from segvit.utils.lock import held\n"
    code += "with held(Path(sys.argv[1]), what='a run', say=print): print('held', flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", code, str(config.output)]
    other = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    try:
        (config.output / "best.safetensors").write_bytes(b"")
        choices: list[dict[str, Any]] = [{}, {"overwrite": True}, {"resume": True}]
        for options in choices:
            told = rf"run: a run is under way in this folder \(process {other.pid}, since 2"
            with pytest.raises(UserError, match=told):
                train(config, **options)
        (config.output / "best.safetensors").unlink()
        assert not (config.output / "config.yaml").exists()
    finally:
        other.kill()  # a dead process holds nothing
        other.communicate()
    train(config)
    with held(config.output, what="a run", say=print):  # nor does a run that has ended
        pass


def test_a_run_that_failed_holds_nothing(config: TrainConfig) -> None:
    with pytest.raises(UserError):
        train(replace(config, model=replace(config.model, head_num_heads=3)))
    with held(config.output, what="a run", say=print):
        pass


def test_a_model_without_a_checkpoint_is_replaced_only_on_request(config: TrainConfig) -> None:
    first = train(config)
    with pytest.raises(UserError, match=r"already holds a run: continue it with --resume, start anew with --overwrite"):
        train(config)
    for path in checkpoints(config.output):
        path.unlink()
    with pytest.raises(UserError, match=r"best.safetensors is there, without a checkpoint.*--overwrite, or choose"):
        train(config)
    with pytest.raises(UserError, match=r"no checkpoint in .*; start the run with --overwrite instead of --resume"):
        train(config, resume=True)
    again = train(config, overwrite=True)
    assert again.miou == first.miou and len([r for r in run_records(config.output) if "loss" in r]) == 3
    with pytest.raises(UserError, match="--overwrite starts a new run, and --resume continues one"):
        train(config, resume=True, overwrite=True)


def test_overwrite_removes_what_the_run_wrote_and_nothing_else(config: TrainConfig) -> None:
    train(config)
    mine = [config.output / name for name in ("validation/photo.png", "notes.txt", "tensorboard/mine")]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    (config.output / "validation" / "step-0000009.png").write_bytes(b"of the old run")
    train(config, overwrite=True)
    assert all(path.read_text() == "mine" for path in mine)
    assert not (config.output / "validation" / "step-0000009.png").exists()


def test_a_run_that_cannot_start_overwrites_nothing(config: TrainConfig) -> None:
    model = train(config).path
    before = {path: path.stat().st_mtime_ns for path in (model, *checkpoints(config.output))}
    with pytest.raises(UserError, match="head_num_heads"):
        train(replace(config, model=replace(config.model, head_num_heads=3)), overwrite=True)
    with pytest.raises(UserError, match=r"--overwrite would remove .*best\.safetensors, which init names"):
        train(replace(config, init=str(model)), overwrite=True)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    with pytest.raises(UserError, match=r"name it, as in --output runs/photos"):
        train(replace(config, output=config.output.parent / "*"), overwrite=True)


# --- resuming --------------------------------------------------------------------------------------------------------


def test_a_finished_run_takes_more_steps(config: TrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    train(config)
    rates = [record["lr"] for record in run_records(config.output) if "lr" in record]
    more = replace(config, steps=5)
    capsys.readouterr()
    train(more, resume=True)
    said = capsys.readouterr().out
    assert "5 steps instead of 3: the learning rate now falls to 0 at step 5" in said
    found = [record["lr"] for record in run_records(config.output) if "lr" in record]
    lr = config.optim.lr
    assert found[:3] == rates and found[3:] == pytest.approx([lr * (1 - 3 / 5) ** 1.0, lr * (1 - 4 / 5) ** 1.0])
    assert TrainConfig.load(config.output / "config.yaml").steps == 5
    with pytest.raises(UserError, match=r"has done 5 steps, and steps is 4: give more with --steps"):
        train(replace(config, steps=4), resume=True)


def test_a_run_that_stopped_early_takes_more_steps(config: TrainConfig) -> None:
    early = replace(config, steps=6, eval_every=1, early_stop=1, optim=replace(config.optim, lr=1e-12))
    train(early)
    done = len([record for record in run_records(config.output) if "lr" in record])
    assert done < 6
    train(replace(early, steps=8), resume=True)
    assert len([record for record in run_records(config.output) if "lr" in record]) > done


def test_a_run_is_resumed_where_its_data_have_moved(config: TrainConfig, tmp_path: Path) -> None:
    data = write_folders(tmp_path / "old")
    config = replace(config, data=data)
    with pytest.raises(Interrupted):
        train(config, on_step=stop_after(1))
    moved = (tmp_path / "old").rename(tmp_path / "new")
    data = replace(data, images=moved / "photos", labels=moved / "masks")
    assert train(replace(config, data=data), resume=True).miou is not None
    Image.new("RGB", (40, 40)).save(moved / "photos" / "0.png")
    with pytest.raises(UserError, match="the dataset has changed since"):
        train(replace(config, data=data), resume=True)


def test_a_moved_file_of_weights_is_no_other_setting(config: TrainConfig, tmp_path: Path) -> None:
    first = train(replace(config, output=tmp_path / "first"))
    config = replace(config, init=str(first.path))
    with pytest.raises(Interrupted):
        train(config, on_step=stop_after(1))
    with pytest.raises(UserError, match=r"init: 'best.safetensors' in the run, 'other.safetensors' now"):
        train(replace(config, init="other.safetensors"), resume=True)
    first.path.unlink()
    train(replace(config, init="elsewhere/best.safetensors"), resume=True)


# --- what a run prints and draws at its start ------------------------------------------------------------------------


def test_the_first_line_comes_with_the_first_step(config: TrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    train(replace(config, log_every=50))
    said = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert said[:2] == ["step 1/3", "step 3/3"]
    with pytest.raises(Interrupted):
        train(replace(config, log_every=50, steps=8), resume=True, on_step=stop_after(6))
    said = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert said[0] == "step 4/8"


def test_the_first_crops_are_drawn_with_their_labels(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Any, ...]] = []
    draw = first_crops.crop_sheet

    def note(*arguments: Any) -> Image.Image:
        seen.append(arguments)
        return draw(*arguments)

    monkeypatch.setattr(first_crops, "crop_sheet", note)
    batches: list[Any] = []
    step_of = Trainer.step

    def step(self: Trainer, number: int, *batch: torch.Tensor) -> Losses:
        batches.append(batch)
        return step_of(self, number, *batch)

    monkeypatch.setattr(Trainer, "step", step)
    config = replace(config, data=replace(write_folders(tmp_path), val_fraction=0.34), batch_size=2)
    train(config)
    ((images, labels, names, spec),) = seen
    assert len(names) == 6 and set(names) <= {str(number) for number in range(6)} and spec.classes == ("a", "b")
    drawn = torch.cat([images for images, _, _ in batches]).permute(0, 2, 3, 1)  # 3 steps of 2
    assert np.array_equal(images, drawn.numpy())
    assert np.array_equal(labels, torch.cat([labels for _, labels, _ in batches]).numpy())
    sheet = Image.open(config.output / "train_batches.png").convert("RGB")
    colors = {color for _, color in sheet.getcolors(1 << 24) or []}
    assert set(spec.palette) <= colors  # of the legend
    (config.output / "train_batches.png").unlink()
    train(config, resume=True)
    assert not (config.output / "train_batches.png").exists()


# --- the model of a stopped run --------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"ema_decay": 0.9}], ids=["weights", "average"])
def test_a_stopped_run_leaves_a_model_and_its_checkpoint_becomes_one(
    config: TrainConfig, tmp_path: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, **changes)
    with pytest.raises(Interrupted) as caught:
        train(config, on_step=stop_after(2))
    last = config.output / "last.safetensors"
    assert str(caught.value) == (
        f"stopped by SIGTERM after step 2; its checkpoint is written, and its model {last}. "
        f"Resume with: segvit train --resume --output {config.output}"
    )
    model = load_model(last)
    assert model.extra["step"] == 2 and model.extra["metrics"] is None
    photo = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert predict(model, photo).labels.shape == (32, 32)
    checkpoint = checkpoints(config.output)[0]
    written = tmp_path / "made.safetensors"
    monkeypatch.setattr("sys.argv", ["segvit", "convert", str(checkpoint), str(written)])
    cli.main()
    made, own = load_file(written), load_file(last)
    assert made.keys() == own.keys() and all(torch.equal(made[name], own[name]) for name in own)
    assert load_model(written).spec == model.spec and load_model(written).protocol == model.protocol
    assert ("weights" in load_model(written).extra) == ("ema_decay" in changes)


def test_low_rank_weights_of_a_checkpoint_are_merged(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, optim=replace(config.optim, lora_rank=2))
    train(config)
    model_of_checkpoint(checkpoints(config.output)[0], tmp_path / "made.safetensors")
    made, own = load_file(tmp_path / "made.safetensors"), load_file(config.output / "last.safetensors")
    assert made.keys() == own.keys() and all(torch.equal(made[name], own[name]) for name in own)


def test_a_checkpoint_as_a_model_says_how_to_convert_it(config: TrainConfig) -> None:
    train(config)
    checkpoint = checkpoints(config.output)[0]
    with pytest.raises(
        UserError, match=rf"convert a checkpoint of a run .*`segvit convert {re.escape(str(checkpoint))}"
    ):
        load_model(checkpoint)
    with pytest.raises(UserError, match=r"a model file ends in \.safetensors"):
        model_of_checkpoint(checkpoint, Path("model.pt"))
