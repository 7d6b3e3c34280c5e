"""Runs that add classes to a model: the group alone learns, resumes to the bit, and is validated with all classes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import segvit.data.dataset as dataset_module
from segvit.config import DataConfig, TrainConfig
from segvit.data.dataset import open_dataset
from segvit.data.spec import load_spec
from segvit.errors import UserError
from segvit.models.create import create_model
from segvit.models.segvit import SegViT
from segvit.recipes.choose import choose_for
from segvit.training.checkpoint import checkpoints
from segvit.training.continual.extension import extension_sets
from segvit.training.run_folder.model import model_of_checkpoint
from segvit.training.train import train
from segvit.weights.extend import drop_group, groups, new_group, with_group, without_classes
from segvit.weights.load import load_model
from tests.helpers.tiny import random_images, run_records, stir, tiny_run

SHAPES = load_spec("shapes")
NEW = (2, 5)
"""Classes of the shapes that the old model lacks."""
OLD = without_classes(SHAPES, NEW)
NAMES = tuple(SHAPES.classes[index] for index in NEW)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_module, "SHAPES_LENGTH", {"train": 6, "val": 2})


def start(folder: Path, **changes: Any) -> tuple[SegViT, TrainConfig]:
    """An old model in a file, and a run of four steps that adds two classes."""
    config = tiny_run(folder / "run", steps=4, eval_every=2, extend=str(folder / "old.safetensors"))
    config = replace(config, model=replace(config.model, drop_path=0.0, **changes))
    torch.manual_seed(0)
    old = create_model(config=config.model, num_classes=6, spec=OLD, protocol=config.eval)
    stir(old)
    if old.upscaler is not None:
        torch.nn.init.normal_(old.upscaler.coefficients)
    old.save(folder / "old.safetensors")
    return old.eval(), config


def scores_of(model: SegViT) -> Tensor:
    return model.scores(random_images(1, (40, 56)))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"head_classes": "presence"},
        {"structure": "shrunk", "upsampling": "paper", "depth": 3, "image_size": 64},
        {"structure": "shrunk", "downsampling": "edge", "depth": 3, "image_size": 64},
        {"structure": "naive_shrunk", "downsampling": "conv", "depth": 3, "image_size": 64},
        {"upscaler": "conv"},
    ],
    ids=["plain", "presence", "shrunk", "edge", "conv", "upscaled"],
)
def test_old_classes_keep_their_scores_and_the_new_ones_learn(changes: dict[str, Any], tmp_path: Path) -> None:
    old, config = start(tmp_path, **changes)
    run = train(config)
    whole = load_model(run.path.with_name("last.safetensors"))
    assert groups(whole) == (OLD.classes, NAMES) and run.result.classes == whole.classes
    assert torch.equal(scores_of(whole)[:, :6], scores_of(old))
    if old.upscaler is not None:
        assert whole.upscaler.added[0].any() and torch.equal(whole.upscaler.mix.weight, old.upscaler.mix.weight)
    assert not any("edge" in record for record in run_records(config.output))  # of a frozen edge head: a constant
    assert whole.extra["starts_from"].startswith(f"old.safetensors (its 6 classes frozen; new: {', '.join(NAMES)})")
    started, learned = (each.stages.state_dict() for each in (old.head, whole.added[0]))
    assert any(not torch.equal(started[name], learned[name]) for name in started)
    config = replace(config, extend=str(run.path), output=tmp_path / "again")
    with pytest.raises(UserError, match="the model already has all classes of 'shapes'"):
        train(config)


def test_a_third_group(tmp_path: Path) -> None:
    _, config = start(tmp_path)
    once = load_model(train(config).path)
    smaller = drop_group(once, 0)  # whose classes are then added again
    smaller.save(tmp_path / "smaller.safetensors")
    assert smaller.config is not None
    again = replace(config, extend=str(tmp_path / "smaller.safetensors"), output=tmp_path / "again")
    twice = load_model(train(replace(again, model=smaller.config)).path)
    assert groups(twice) == (NAMES, OLD.classes)
    assert torch.equal(scores_of(twice)[:, :2], scores_of(once)[:, 6:])
    fewer = drop_group(twice, 1)
    torch.manual_seed(0)
    two = with_group(fewer, new_group(fewer, without_classes(SHAPES, range(1, 8))).eval())
    two.save(tmp_path / "two.safetensors")
    third = replace(again, extend=str(tmp_path / "two.safetensors"), output=tmp_path / "third")
    thrice = load_model(train(replace(third, model=smaller.config)).path)
    assert groups(thrice) == (
        NAMES,
        SHAPES.classes[:1],
        tuple(name for name in OLD.classes if name != SHAPES.classes[0]),
    )
    assert torch.equal(scores_of(thrice)[:, :3], scores_of(two))


def test_chosen_settings_extend_an_extended_model(tmp_path: Path) -> None:
    _, config = start(tmp_path)
    once = train(config).path
    data = own_images(tmp_path, (1,))
    given = {"data.images": str(data.images), "data.labels": str(data.labels), "data.classes": ["cone=1"]}
    flags = {"loss.ignore_as_negative": True, "steps": 2, "output": str(tmp_path / "again"), "device": "cpu"}
    chosen = choose_for(given | flags | {"data.ignore": [0, 255], "extend": str(once)}).config
    assert groups(load_model(train(chosen).path)) == (OLD.classes, NAMES, ("cone",))


def test_resumed_to_the_bit(tmp_path: Path) -> None:
    old, config = start(tmp_path)
    whole = replace(config, output=tmp_path / "whole", ema_decay=0.9)
    config = replace(config, ema_decay=0.9)
    train(whole)

    def stop(step: int, _: Any) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, on_step=stop)
    kept = (tmp_path / "old.safetensors").read_bytes()
    with torch.no_grad():
        old.backbone.blocks[0].attn.qkv.weight.add_(1)
    old.save(tmp_path / "old.safetensors")
    with pytest.raises(UserError, match=r"backbone\.blocks\.0\.attn\.qkv\.weight differs from that of the run's"):
        train(config, resume=True)
    (tmp_path / "old.safetensors").write_bytes(kept)
    train(config, resume=True)
    assert run_records(config.output) == run_records(whole.output)
    ours, theirs = (load_model(folder / "last.safetensors").state_dict() for folder in (config.output, whole.output))
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_a_checkpoint_gives_the_whole_model(ema_decay: float | None, tmp_path: Path) -> None:
    old, config = start(tmp_path)
    train(replace(config, ema_decay=ema_decay))
    checkpoint, expected = checkpoints(config.output)[0], load_model(config.output / "last.safetensors")
    model_of_checkpoint(checkpoint, tmp_path / "made.safetensors")
    made = load_model(tmp_path / "made.safetensors")
    assert groups(made) == groups(expected) and made.spec == expected.spec
    state = made.state_dict()
    assert all(torch.equal(state[name], value) for name, value in expected.state_dict().items())
    assert made.extra == {key: value for key, value in expected.extra.items() if key != "metrics"}
    with torch.no_grad():
        old.backbone.blocks[0].attn.qkv.weight.add_(1)
    old.save(tmp_path / "old.safetensors")
    with pytest.raises(UserError, match=r"backbone\.blocks\.0\.attn\.qkv\.weight differs from that of the run's"):
        model_of_checkpoint(checkpoint, tmp_path / "made.safetensors")


def test_labels_of_the_two_sets(tmp_path: Path) -> None:
    old, _ = start(tmp_path)
    splits = {name: open_dataset(DataConfig(spec="shapes"), name, size=48) for name in ("train", "val")}
    sets = extension_sets(old, splits)
    assert sets["train"].spec.classes == NAMES and sets["val"].spec.classes == (*OLD.classes, *NAMES)
    for name, expected in (("train", {2: 0, 5: 1}), ("val", {0: 0, 1: 1, 3: 2, 4: 3, 6: 4, 7: 5, 2: 6, 5: 7})):
        for index in range(len(sets[name])):
            before, after = (each[name].read(index) for each in (splits, sets))
            for value in before.labels.unique().tolist():
                assert (after.labels[before.labels == value] == expected.get(value, 255)).all()
            assert torch.equal(before.image, after.image) and sets[name].describe(index) == splits[name].describe(index)


def own_images(folder: Path, values: tuple[int, ...]) -> DataConfig:
    """Photos and label maps of the values, in folders."""
    noise = torch.Generator().manual_seed(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for number in range(6):
        image = torch.randint(0, 256, (48, 48, 3), generator=noise, dtype=torch.uint8)
        labels = torch.zeros(48, 48, dtype=torch.uint8)
        for place, value in enumerate(values):
            labels[8 * place : 8 * place + 8] = value
        Image.fromarray(image.numpy()).save(folder / "images" / f"{number}.png")
        Image.fromarray(labels.numpy()).save(folder / "labels" / f"{number}.png")
    return DataConfig(images=folder / "images", labels=folder / "labels")


def test_a_single_class_can_be_added(tmp_path: Path) -> None:
    old, config = start(tmp_path)
    data = replace(own_images(tmp_path, (1,)), classes=("cone=1",), ignore=(0, 255))
    config = replace(config, data=data)
    with pytest.raises(UserError, match=r"'cone' is the only new class.*type --loss\.ignore-as-negative"):
        train(config)
    train(replace(config, loss=replace(config.loss, ignore_as_negative=True)))
    trained = load_model(config.output / "best.safetensors")
    assert groups(trained) == (OLD.classes, ("cone",))
    assert torch.equal(scores_of(drop_group(trained, 1)), scores_of(old))


def test_a_background_is_not_added(tmp_path: Path) -> None:
    _, config = start(tmp_path)
    data = replace(own_images(tmp_path, (1,)), classes=("background=0", "cone=1"))
    with pytest.raises(UserError, match=r"'background' would win over the old classes.*ignore its value"):
        train(replace(config, data=data))


def test_unknown_values_are_found_beside_a_single_class(tmp_path: Path) -> None:
    _, config = start(tmp_path)
    data = replace(own_images(tmp_path, (1, 7)), classes=("cone=1",), ignore=(0, 255))
    with pytest.raises(UserError, match="7"):
        train(replace(config, data=data, loss=replace(config.loss, ignore_as_negative=True)))


def test_what_cannot_be(tmp_path: Path) -> None:
    _, config = start(tmp_path)
    for changes, reason in (
        ({"init": "other.safetensors"}, "extend with init other.safetensors: both name a model"),
        ({"parallel": "fsdp"}, "extend with parallel fsdp: only a head learns"),
        ({"optim": replace(config.optim, freeze=1)}, "extend with optim.freeze 1: the whole backbone is frozen"),
        ({"extend": None, "model": replace(config.model, added_classes=(2,))}, "groups of classes are not trained"),
        ({"model": replace(config.model, embed_dim=64)}, "does not have the network of the settings"),
    ):
        with pytest.raises(UserError, match=reason):
            train(replace(config, **changes))
    _, config = start(tmp_path, structure="shrunk", downsampling="edge", depth=3, image_size=64)
    with pytest.raises(UserError, match=r"extend with loss\.edge_coefficient 1\.0: the edge head is frozen"):
        train(replace(config, loss=replace(config.loss, edge_coefficient=1.0)))
