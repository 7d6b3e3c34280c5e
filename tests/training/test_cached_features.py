"""Outputs of frozen blocks on disk: the same losses, never of other settings, and bounded."""

import os
import shutil
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import segvit.data.dataset as dataset_module
from segvit.config import AugmentConfig, DataConfig, Freeze, ModelConfig, OptimConfig, Structure, TrainConfig
from segvit.data.augment.transform import TrainTransform
from segvit.data.dataset import open_dataset
from segvit.data.sampling.class_counts import take_census
from segvit.data.sampling.crops import CropKey, TrainingSamples
from segvit.data.shapes.scenes import ShapesDataset, write_shapes
from segvit.errors import UserError
from segvit.models.create import create_model
from segvit.training.backbone.cache import FeatureCache, facts_of, open_cache
from segvit.training.backbone.features import FrozenStart
from segvit.training.backbone.store import FeatureStore
from segvit.training.optim import freeze
from segvit.training.settings import check_settings
from segvit.training.start import RunData
from segvit.training.train import train
from tests.helpers.tiny import random_images, run_records, stir, tiny_config, tiny_run


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """Eight steps over four images, each in two views."""
    monkeypatch.setattr(dataset_module, "SHAPES_LENGTH", {"train": 4, "val": 1})
    plain = tiny_run(tmp_path / "plain", steps=8, eval_every=8)
    return replace(
        plain,
        augment=replace(plain.augment, views=2),
        optim=OptimConfig(lr=1e-3, warmup_steps=0, freeze="backbone"),
    )


def cached(config: TrainConfig, folder: Path, **changes: Any) -> TrainConfig:
    data = replace(config.data, cache_features=folder / "features", **changes)
    return replace(config, data=data, output=folder / "cached")


def losses(config: TrainConfig) -> list[float]:
    return [record["loss"] for record in run_records(config.output) if "loss" in record]


def files(folder: Path) -> list[Path]:
    return sorted((folder / "features").glob("*/*.features"))


def test_the_losses_are_those_without_the_cache(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = cached(config, tmp_path)
    train(config)
    train(ours)
    assert losses(ours) == pytest.approx(losses(config), abs=1e-4)
    assert "outputs of the 2 frozen blocks are kept in" in capsys.readouterr().out
    assert len(files(tmp_path)) == 8  # 4 images x 2 views


@pytest.mark.slow
def test_a_second_run_reads_what_the_first_has_written(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = cached(config, tmp_path)
    train(ours)
    cut, turned, *others = files(tmp_path)
    content, times = turned.read_bytes(), [file.stat().st_mtime_ns for file in others]
    cut.write_bytes(cut.read_bytes()[:-1])
    turned.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    again = replace(ours, output=tmp_path / "again")
    train(again)
    assert losses(again) == losses(ours)  # to the bit: what is computed is rounded as what is read
    assert [file.stat().st_mtime_ns for file in others] == times
    assert "8 are there" in capsys.readouterr().out
    assert turned.read_bytes() == content


@pytest.mark.parametrize("frozen, downsampling", [(2, "nearest_q"), (3, "nearest_q"), ("backbone", "conv")])
@pytest.mark.parametrize("variant, structure", [("vit", "shrunk"), ("beitv2", "shrunk"), ("dinov3", "naive_shrunk")])
def test_a_step_begins_behind_any_frozen_block(
    variant: str, structure: Structure, frozen: Any, downsampling: Any
) -> None:
    torch.manual_seed(0)
    settings = replace(tiny_config(variant, structure), shrink_at=2, downsampling=downsampling)
    model = create_model(config=settings, num_classes=3)
    stir(model.backbone)
    freeze(model, frozen)
    network = FrozenStart(model.eval())
    assert network.num_blocks == (2 if frozen == "backbone" else frozen)  # the convolution of block 2 learns
    images = random_images(2, (model.image_size, model.image_size))
    features = network.features(images)
    assert features.shape == (2, network.num_values)
    with torch.no_grad():
        ours, theirs = network(features), model(images)
    assert ours.image_size == theirs.image_size and ours.padded_size == theirs.padded_size
    for one, other in ((ours.mask_logits, theirs.mask_logits), (ours.class_logits, theirs.class_logits)):
        assert (one - other).abs().max() < 0.01 * other.abs().max()


@pytest.mark.slow
def test_it_holds_for_the_first_blocks_and_for_workers(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, optim=replace(config.optim, freeze=1), data=replace(config.data, workers=1))
    ours = cached(config, tmp_path)
    train(config)
    train(ours)
    assert losses(ours) == pytest.approx(losses(config), abs=1e-4)


@pytest.mark.slow
def test_stopped_and_resumed_is_uninterrupted_to_the_bit(config: TrainConfig, tmp_path: Path) -> None:
    whole = cached(config, tmp_path / "whole")
    train(whole)
    ours = cached(config, tmp_path)

    def stop(step: int, _: object) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(ours, on_step=stop)
    train(ours, resume=True)
    assert losses(ours) == losses(whole)


def test_views_are_as_many_crops_as_asked(config: TrainConfig) -> None:
    samples = open_dataset(config.data, "train", size=64)
    for views in (2, None):
        crops = TrainingSamples(samples, TrainTransform(32, config.augment, [0, 0, 0]), seed=0, views=views)
        images = [crops[1, 4 * epoch + 3][0] for epoch in range(6)]  # type: ignore[index]
        same = [[torch.equal(one, other) for other in images] for one in images]
        period = views or 6
        assert same == [[(one - other) % period == 0 for other in range(6)] for one in range(6)]
        assert torch.equal(crops[1, 5][0], images[1]) == (views == 2)  # type: ignore[index]


def test_a_store_gives_back_what_it_took(tmp_path: Path) -> None:
    store, crop_key = FeatureStore(tmp_path, num_values=5, crop=2), CropKey(7, 1, 3)
    assert store.read(crop_key) is None
    features, labels = torch.randn(5).half(), torch.tensor([[0, 1], [255, 2]])
    store.write(crop_key, features, labels)
    found = store.read(crop_key)
    assert found is not None and torch.equal(found[0], features) and torch.equal(found[1], labels)
    assert store.read(CropKey(7, 1, None)) is None
    assert store.path(crop_key).stat().st_size == store.file_bytes and store.num_stored() == 1


@cache
def network_of(seed: int, settings: ModelConfig, frozen: Freeze | int) -> FrozenStart:
    torch.manual_seed(seed)
    model = create_model(config=settings, num_classes=8)
    freeze(model, frozen)
    return FrozenStart(model)


def open_tiny(config: TrainConfig, *, weights: int = 0, **changes: Any) -> FeatureCache:
    """The cache of a run on whatever the config describes, with initial weights of a seed of their own."""
    config = replace(config, **changes)
    network = network_of(weights, config.model, config.optim.freeze)
    splits = {name: open_dataset(config.data, name, size=32) for name in ("train", "val")}  # type: ignore[arg-type]
    accelerator: Any = SimpleNamespace(device=torch.device("cpu"), autocast=nullcontext)
    return open_cache(config, network, RunData(**splits, digest=""), accelerator)


def test_other_settings_are_another_folder(config: TrainConfig, tmp_path: Path) -> None:
    config = cached(config, tmp_path)
    shrunk = replace(config.model, structure="shrunk", depth=3)
    changes: list[dict[str, Any]] = [
        {},
        {"seed": 1},
        {"weights": 1},
        {"model": shrunk},
        {"model": replace(shrunk, downsampling="nearest_qkv")},
        {"model": replace(config.model, image_size=24)},
        {"model": replace(config.model, num_heads=4)},
        {"augment": replace(config.augment, flip=0.0)},
        {"optim": replace(config.optim, freeze=1)},
        {"precision": "bf16"},
    ]
    assert len({open_tiny(config, **change).store.folder for change in changes}) == len(changes)
    same: list[dict[str, Any]] = [
        {"augment": replace(config.augment, views=3)},
        {"steps": 3},
        {"model": replace(config.model, head_dim=64)},
    ]
    assert len({open_tiny(config, **change).store.folder for change in [{}, *same]}) == 1


def test_only_the_crops_of_a_run_take_room(config: TrainConfig, tmp_path: Path) -> None:
    config = cached(config, tmp_path)
    assert (open_tiny(config).max_crops, open_tiny(config, steps=3).max_crops) == (8, 6)
    rare = replace(config.augment, rare_class_probability=0.5)
    shown = int(take_census(open_dataset(config.data, "train", size=32)).shown.sum())
    assert open_tiny(config, augment=rare, steps=1000).max_crops == 2 * (4 + shown)


def test_an_image_that_changes_is_noticed(config: TrainConfig, tmp_path: Path) -> None:
    write_shapes(tmp_path / "data", train=2, val=1, size=32)
    data = DataConfig(spec="shapes", root=tmp_path / "data", workers=0)
    ours = cached(replace(config, data=data), tmp_path)
    before = open_tiny(ours).store.folder
    assert open_tiny(ours).store.folder == before
    image = next((tmp_path / "data").rglob("*train*/*.png"))
    os.utime(image, ns=(0, 0))
    assert open_tiny(ours).store.folder != before


def test_another_meaning_of_the_labels_is_noticed(config: TrainConfig, tmp_path: Path) -> None:
    write_shapes(tmp_path / "data", train=2, val=1, size=32)
    train_set = next((tmp_path / "data").rglob("*train*/*.png")).parent
    names = ("sky", "road")
    folders = []
    for classes in (names, names, names[::-1], tuple(f"{name}={1 - value}" for value, name in enumerate(names))):
        data = DataConfig(images=train_set, labels=train_set, classes=classes, workers=0)
        folders.append(open_tiny(cached(replace(config, data=data), tmp_path)).store.folder)
    assert folders[0] == folders[1] and len(set(folders)) == 3


def test_a_dataset_that_may_read_its_files_otherwise_is_refused(config: TrainConfig) -> None:
    class Brighter(ShapesDataset):
        pass

    network = network_of(0, config.model, config.optim.freeze)
    with pytest.raises(UserError, match="your own dataset Brighter does not say when its images change"):
        facts_of(config, network, Brighter(length=4))


def test_a_cache_beyond_its_limit_or_the_disk_is_refused(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_tiny(cached(config, tmp_path, cache_features_gb=1e-3)).store
    store.write(CropKey(0, 0, None), torch.zeros(store.num_values).half(), torch.zeros(store.crop, store.crop))
    told = r"(?s)8 crops of 0\.00 MB take 0\.00 GB.*may hold 1e-05 GB\. Change one .*gb 1\n  fewer"
    with pytest.raises(UserError, match=told) as refused:
        open_tiny(cached(config, tmp_path, cache_features_gb=1e-5), seed=1)
    assert f"rm -r {store.folder}" in str(refused.value)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(UserError, match=r"7 crops take .* GB more\. The disk of .* has 0\.00 GB left\. Change"):
        open_tiny(cached(config, tmp_path))


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"optim": OptimConfig()}, r"with optim\.freeze none: .* type --optim\.freeze backbone"),
        ({"augment": AugmentConfig()}, r"with augment\.views None: .* type --augment\.views 4"),
        ({"parallel": "fsdp"}, "with parallel fsdp"),
        ({"compile": True}, "with compile True"),
        ({"gigabytes": 0}, r"with data\.cache_features_gb 0"),
    ],
)
def test_settings_that_need_images_are_refused(
    config: TrainConfig, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    limit = changes.get("gigabytes", 20.0)
    changes = {name: value for name, value in changes.items() if name != "gigabytes"}
    with pytest.raises(UserError, match=told):
        check_settings(replace(cached(config, tmp_path, cache_features_gb=limit), **changes))


def test_parts_that_cannot_start_behind_frozen_blocks_are_refused(config: TrainConfig) -> None:
    model = create_model(config=config.model, num_classes=8)
    freeze(model, 0)
    with pytest.raises(UserError, match=r"no block of the backbone is frozen.* type --optim\.freeze"):
        FrozenStart(model)
    model.backbone = nn.Identity()
    with pytest.raises(UserError, match="the backbone Identity cannot start behind its frozen layers"):
        FrozenStart(model)
    shrunk = create_model(config=tiny_config("vit", "shrunk"), num_classes=8)
    freeze(shrunk, "backbone")
    shrunk.backbone.downsampling = nn.Identity()
    with pytest.raises(UserError, match="the tokens that the down-sampling Identity keeps are not stored"):
        FrozenStart(shrunk)
    with pytest.raises(UserError, match=r"augment\.views is 0; it must be 1 or more"):
        TrainTransform(32, replace(config.augment, views=0), [0, 0, 0])


def test_values_beyond_float16_are_refused(config: TrainConfig) -> None:
    model = create_model(config=config.model, num_classes=8)
    freeze(model, "backbone")
    with torch.no_grad():
        model.backbone.blocks[-1].mlp.fc2.bias.fill_(1e5)
    with pytest.raises(UserError, match="larger than 65,504"):
        FrozenStart(model).features(random_images(1, (32, 32)))
