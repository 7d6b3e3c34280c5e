"""Two processes train what one does: with a copy of the model each, and with a share of it each (FSDP2)."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import segvit.data.dataset as dataset_module
from segvit.cli.errors import say_once
from segvit.config import TrainConfig
from segvit.errors import UserError
from segvit.training.checkpoint import checkpoints
from segvit.training.parallel import LAUNCHED
from segvit.training.train import train
from segvit.weights.load import load_model
from tests.helpers.tiny import tiny_run
from tests.helpers.two_processes import SCENES

STEPS = 20
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}


def config_of(output: Path, **changes: Any) -> TrainConfig:
    """Twenty steps of a tiny shrunk model without anything that draws random numbers of its own."""
    config = tiny_run(output, steps=STEPS, batch_size=4, eval_every=STEPS, save_every=STEPS // 2)
    model = replace(
        config.model,
        structure="shrunk",
        image_size=64,
        depth=3,
        head_dropout=0.0,
        drop_path=0.0,
    )
    return replace(config, model=model, **changes)


def losses(folder: Path) -> list[float]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


def score(folder: Path) -> float:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return float([record["miou"] for record in records if "miou" in record][-1])


def in_two_processes(folder: Path, name: str) -> "subprocess.CompletedProcess[str]":
    """The run of that name under `folder`, started by torchrun."""
    words = [*TORCHRUN, "-m", "tests.helpers.two_processes", str(folder), name]
    return subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of the same run by one process ("one"), by two ("data"), or shared out over two ("fsdp").

    Runs whose name ends in "ours" are of a model with the parts beyond the paper.
    """
    root = tmp_path_factory.mktemp("runs")
    fsdp = {"parallel": "fsdp", "accumulate": 2}
    ours = {"model": replace(config_of(root).model, downsampling="edge", upscaler="conv", head_classes="presence")}
    ways: dict[str, dict[str, Any]] = {
        "one": {},
        "data": {},
        "fsdp": fsdp,
        "one, ours": ours,
        "fsdp, ours": fsdp | ours,
    }

    @cache
    def folder(name: str) -> Path:
        config = config_of(root / name, **ways[name])
        if name.startswith("one"):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(dataset_module, "SHAPES_LENGTH", SCENES)
                train(config)
        else:
            config.save(root / f"{name}.yaml")
            done = in_two_processes(root, name)
            assert done.returncode == 0, done.stderr
        return root / name

    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name, alone", [("data", "one"), ("fsdp", "one"), ("fsdp, ours", "one, ours")])
def test_two_processes_are_one(runs: Callable[[str], Path], name: str, alone: str) -> None:
    """The loss of every step, the score, and the weights; that all parameters are shares is asserted in the run."""
    assert len(losses(runs(name))) == STEPS
    assert losses(runs(name)) == pytest.approx(losses(runs(alone)), rel=1e-4)
    assert score(runs(name)) == pytest.approx(score(runs(alone)), abs=1e-3)
    ours, theirs = (load_model(runs(which) / "last.safetensors").state_dict() for which in (name, alone))
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", ["data", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_what_two_processes_began_one_ends(
    runs: Callable[[str], Path],
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(dataset_module, "SHAPES_LENGTH", SCENES)
    _newest, half = checkpoints(runs(name))
    (tmp_path / half.name).write_bytes(half.read_bytes())
    (tmp_path / "metrics.jsonl").write_bytes((runs(name) / "metrics.jsonl").read_bytes())
    train(config_of(tmp_path), resume=True)
    assert "1 processes x 1 parts instead of 2 processes" in capsys.readouterr().out
    assert losses(tmp_path) == pytest.approx(losses(runs("one")), rel=1e-4)


@pytest.mark.parametrize(
    "fault, told",
    [
        pytest.param("dies", r"rank\s*: 1 .*\n\s*exitcode\s*: -9", marks=pytest.mark.slow),
        pytest.param("raises", "the image is gone", marks=pytest.mark.slow),
    ],
)
def test_a_process_that_fails_ends_all(fault: str, told: str, tmp_path: Path) -> None:
    config_of(tmp_path / "run", steps=1000).save(tmp_path / f"{fault}.yaml")
    done = in_two_processes(tmp_path, fault)
    assert time.time() - float((tmp_path / "incident").read_text()) < 60
    assert done.returncode != 0 and re.search(told, done.stderr), done.stderr


def test_sharing_with_nobody_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"parallel fsdp shards a model.*torchrun --nproc-per-node N"):
        train(config_of(tmp_path / "run", parallel="fsdp"))


def test_processes_that_do_not_find_each_other_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        UserError, match=r"2 processes were started \(WORLD_SIZE\).*without RANK, LOCAL_RANK, MASTER_ADDR"
    ):
        train(config_of(tmp_path / "run"))


def test_an_uneven_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"batch_size 4 does not divide into 1 processes of 3 parts.*3$"):
        train(config_of(tmp_path / "run", accumulate=3))


def commands_in_two_processes(words: str) -> "subprocess.CompletedProcess[str]":
    """`segvit` with the same words in two processes, each of which finds its number in $RANK."""
    line = [*TORCHRUN, "--no-python", "bash", "-c", f"exec {sys.executable} -m segvit {words}"]
    return subprocess.run(line, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    "words, told",
    [
        ("train --config no-such-recipe", "error: no config file 'no-such-recipe'"),
        pytest.param("train --stepps 3", "error: segvit train does not take this:", marks=pytest.mark.slow),
    ],
    ids=["a file", "a flag"],
)
def test_what_both_processes_refuse_is_said_once(words: str, told: str) -> None:
    done = commands_in_two_processes(words)
    assert done.returncode != 0
    assert len(re.findall(told, done.stderr)) == 1, done.stderr


@pytest.mark.parametrize("wrong", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_what_one_process_refuses_is_said_by_it(wrong: int, tmp_path: Path) -> None:
    (tmp_path / f"{wrong}.yaml").write_text("stepps: 3")
    config_of(tmp_path / "run").save(tmp_path / f"{1 - wrong}.yaml")
    done = commands_in_two_processes(f"train --config {tmp_path}/$RANK.yaml")
    assert done.returncode != 0
    (error,) = re.findall("error: (.*)", done.stderr)
    assert error.endswith(f"{wrong}.yaml: unknown setting `stepps` (did you mean 'steps'?)"), done.stderr


def test_an_error_is_never_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said again by a later command in the same place, and where the first process left before it could."""
    monkeypatch.setattr("segvit.cli.errors.PATIENCE", 0.1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")

    def said(number: int, folder: Path = tmp_path) -> bool:
        monkeypatch.setenv("LOCAL_RANK", str(number))
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(folder / str(number) / "error.json"))
        say_once("error: too bad")
        return capsys.readouterr().err == "error: too bad\n"

    assert [said(0), said(1), said(0)] == [True, False, True]
    (note,) = tmp_path.iterdir()
    note.write_text("")
    assert said(1)
    assert said(0, tmp_path / "gone")
