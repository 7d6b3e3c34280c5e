"""Runs on packed datasets: the numbers of two folders, for any workers, resumed, checked, chosen for, in two ranks."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from segvit.app.examples import _placed
from segvit.cli import main as cli
from segvit.config import AugmentConfig, DataConfig, TrainConfig
from segvit.data.augment.transform import TrainTransform
from segvit.data.check.check import check_dataset
from segvit.data.dataset import open_dataset
from segvit.data.packed.shard import look_at
from segvit.data.sampling.class_counts import take_census
from segvit.data.sampling.crops import TrainingSamples, collate
from segvit.data.sampling.manifest import differences, take_manifest
from segvit.data.sampling.order import EndlessBatches
from segvit.errors import UserError
from segvit.evaluation.evaluate import evaluate
from segvit.recipes.facts import look_at_images
from segvit.training.run_folder.names import name_of
from segvit.training.train import train
from segvit.weights.load import load_model
from tests.helpers.packed import as_dataset, made_files, write_folders, write_shard, write_shards
from tests.helpers.tiny import tiny_run

datasets = pytest.importorskip("datasets")
FORMS = ("shards", "hub")
COUNT = 9


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, DataConfig]:
    """Pairs in each form, the last three to validate on."""
    monkeypatch.setenv("SEGVIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    files = made_files(COUNT)
    train_files, val_files = files[:6], files[6:]
    places = write_folders(tmp_path / "train", train_files)
    val = write_folders(tmp_path / "val", val_files)
    write_shards(tmp_path / "shards", train_files, prefix="train-")
    write_shards(tmp_path / "shards", val_files, prefix="val-")
    datasets.disable_progress_bars()
    datasets.DatasetDict({"train": as_dataset(train_files), "validation": as_dataset(val_files)}).save_to_disk(
        tmp_path / "saved"
    )
    common: dict[str, Any] = {"classes": ("a", "b", "c"), "workers": 0}
    return {
        "folders": DataConfig(**places, val_images=val["images"], val_labels=val["labels"], **common),
        "shards": DataConfig(shards=str(tmp_path / "shards"), **common),
        "hub": DataConfig(hub=str(tmp_path / "saved"), **common),
    }


def run_of(data: DataConfig, output: Path, **changes: Any) -> TrainConfig:
    settings = {"steps": 4, "eval_every": 2, "save_every": 1, **changes}
    return replace(tiny_run(output, **settings), data=data)


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def stop_at(step: int) -> Callable[[int, Any], None]:
    def stop(done: int, _: Any) -> None:
        if done == step:
            raise KeyboardInterrupt

    return stop


@pytest.mark.slow
def test_runs_on_every_form_are_the_same_to_the_bit(data: dict[str, DataConfig], tmp_path: Path) -> None:
    augment = AugmentConfig(rare_class_probability=0.5)
    for form, config in data.items():
        train(replace(run_of(config, tmp_path / form), augment=augment))
    expected = records(tmp_path / "folders")
    assert len(expected) > 4
    for form in FORMS:
        assert records(tmp_path / form) == expected, form
        assert (tmp_path / form / "train_batches.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_stopped_and_resumed_is_uninterrupted_to_the_bit(
    data: dict[str, DataConfig], tmp_path: Path, form: str
) -> None:
    config = run_of(data[form], tmp_path / "stopped")
    train(replace(config, output=tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        train(config, on_step=stop_at(3))
    train(replace(config, data=replace(config.data, workers=2)), resume=True)
    assert records(tmp_path / "stopped") == records(tmp_path / "whole")
    scores = evaluate(load_model(tmp_path / "whole" / "best.safetensors"), data[form])
    assert scores.images == COUNT - 6


@pytest.mark.slow
def test_a_run_whose_shards_have_changed_is_not_resumed(data: dict[str, DataConfig], tmp_path: Path) -> None:
    config = run_of(data["shards"], tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(config, on_step=stop_at(2))
    photo, mask = made_files(COUNT)[4]
    write_shard(tmp_path / "shards" / "train-000001.tar", {"04.jpg": photo, "04.png": mask + b"0"})
    with pytest.raises(UserError, match=r"the dataset has changed.*\n.*removed: train image train-000001/05\.jpg"):
        train(config, resume=True)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_two_ranks_of_two_workers_take_the_crops_of_files(data: dict[str, DataConfig], form: str, method: str) -> None:
    def crops(config: DataConfig) -> TrainingSamples:
        return TrainingSamples(open_dataset(config, "train"), TrainTransform(16, AugmentConfig(), [0, 0, 0]), seed=1)

    def order(rank: int, ranks: int) -> EndlessBatches:
        return EndlessBatches(6, 2, seed=1, steps=3, rank=rank, world_size=ranks)

    reference = {key: crops(data["folders"])[key] for batch in order(0, 1) for key in batch}
    seen: list[int] = []
    for rank in range(2):
        loader = DataLoader(
            crops(data[form]),
            batch_sampler=order(rank, 2),
            num_workers=2,
            collate_fn=collate,
            multiprocessing_context=method,
        )
        for keys, (images, labels, indices) in zip(order(rank, 2), loader, strict=True):
            for key, image, label, index in zip(keys, images, labels, indices.tolist(), strict=True):
                expected = reference[key]
                assert isinstance(expected, tuple)
                assert torch.equal(image, expected[0])
                assert torch.equal(label, expected[1])
                assert index == key[0]
                seen.append(index)
    assert sorted(seen) == list(range(6)), "one epoch: the ranks share no sample and leave none out"


@pytest.mark.parametrize("form", FORMS)
def test_counts_checks_sizes_and_manifests_are_those_of_files(
    data: dict[str, DataConfig], tmp_path: Path, form: str
) -> None:
    ours, theirs = open_dataset(data[form], "train"), open_dataset(data["folders"], "train")
    counted, expected = (take_census(samples, folder=tmp_path / "counts") for samples in (ours, theirs))
    assert np.array_equal(counted.pixels, expected.pixels)
    assert np.array_equal(counted.shown, expected.shown)
    assert len(list((tmp_path / "counts").iterdir())) == 2, "counts of packed samples are kept too"
    reports = [check_dataset(samples, decode=True).to_dict() for samples in (ours, theirs)]
    for report in reports:
        report.pop("uniform"), report.pop("findings"), report.pop("verdict")
    assert reports[0] == reports[1]
    images, other = look_at_images(data[form]), look_at_images(data["folders"])
    assert images == other
    assert (images.count, images.validation) == (6, 3)
    manifests = [take_manifest({"train": samples}) for samples in (ours, theirs)]
    assert list(manifests[0]["files"].values()) == list(manifests[1]["files"].values())
    assert not differences(manifests[0], take_manifest({"train": open_dataset(data[form], "train")}))


def test_a_manifest_names_what_has_changed_in_shards(data: dict[str, DataConfig], tmp_path: Path) -> None:
    before = take_manifest({"train": open_dataset(data["shards"], "train")})
    photo, mask = made_files(COUNT)[4]
    write_shard(tmp_path / "shards" / "train-000001.tar", {"04.jpg": photo, "04.png": mask + b"0"})
    assert differences(before, take_manifest({"train": open_dataset(data["shards"], "train")})) == [
        "removed: train image train-000001/05.jpg",
        "removed: train labels train-000001/05.png",
        f"changed: train labels train-000001/04.png: {len(mask)} bytes in the run, {len(mask) + 1} now",
    ]


@pytest.mark.parametrize("form", FORMS)
def test_commands(
    data: dict[str, DataConfig],
    form: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = getattr(data[form], form)
    words = ["segvit", "check-data", f"--data.{form}", place, "--sheet", str(tmp_path / "sheet.png")]
    monkeypatch.setattr("sys.argv", words)
    cli.main()
    seen = capsys.readouterr().out
    keys = "images in 'jpg', labels in 'png'" if form == "shards" else "images in 'image', labels in 'label'"
    assert f"{place}: {keys}" in seen
    assert "warning: the classes have no names" in seen
    assert f"segvit train --data.{form} {place}" in seen
    assert (tmp_path / "sheet.png").stat().st_size > 10_000


def test_the_examples_of_the_app_find_relative_places(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    assert _placed(DataConfig(hub="saved"), tmp_path).hub == str(tmp_path / "saved")
    assert _placed(DataConfig(hub="user/saved"), tmp_path).hub == "user/saved"
    placed = _placed(DataConfig(shards="a-{0..3}.tar", val_shards="https://host/b.tar"), tmp_path)
    assert (placed.shards, placed.val_shards) == (str(tmp_path / "a-{0..3}.tar"), "https://host/b.tar")


def test_names_of_runs() -> None:
    names = {
        "shards/train-{000000..000009}.tar": "train",
        "https://host/streets-{0..9}.tar": "streets",
        "shards": "shards",
        "shards/*.tar": "run",
        "photos.tar": "photos",
    }
    for shards, name in names.items():
        assert name_of(DataConfig(shards=shards)) == name
    assert name_of(DataConfig(hub="user/streets@v2")) == "streets"
    assert look_at(__file__).stem == "test_runs"
