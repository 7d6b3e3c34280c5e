"""Layer-wise decay of the learning rate, and layers that keep their weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import segvit.data.dataset as dataset_module
from segvit.config import Freeze, OptimConfig, Structure, TrainConfig, Upsampling
from segvit.errors import UserError
from segvit.models.create import create_model
from segvit.models.segvit import SegViT
from segvit.training.checkpoint import checkpoints
from segvit.training.optim import create_optimizer, freeze, layer_number, parameter_groups
from segvit.training.parallel import load_optimizer
from segvit.training.train import train
from segvit.weights.load import load_model
from tests.helpers.tiny import random_images, run_records, tiny_config, tiny_run

FAMILIES = ("vit", "clip, norm before the blocks", "deit3", "beitv2", "eva02", "dinov3")
DEPTH = 4


def layer_of(name: str) -> int:
    """The slow answer, of models whose bias tables each belong to a block."""
    if name.startswith(("head.", "upsampling.", "backbone.downsampling.")):
        return DEPTH + 1
    for index in range(DEPTH):
        if name.startswith((f"backbone.blocks.{index}.", f"backbone.relative_bias_tables.{index}")):
            return index + 1
    assert name.split(".")[1] in {"patch_embed", "pos_embed", "cls_token", "reg_token", "norm_pre"}, name
    return 0


def tiny(
    variant: str, structure: Structure = "plain", upsampling: Upsampling = "tap", drop_path: float = 0.0
) -> SegViT:
    config = tiny_config(variant, structure, upsampling)
    config = replace(config, downsampling="nearest_q" if structure == "plain" else "conv", drop_path=drop_path)
    torch.manual_seed(0)
    return create_model(config=config, num_classes=3)


@pytest.mark.parametrize(
    "variant, structure, upsampling",
    [(variant, structure, "tap") for variant in FAMILIES for structure in ("plain", "shrunk")]
    + [("vit", "shrunk", "paper")],
)
def test_each_layer_learns_at_its_rate(variant: str, structure: Structure, upsampling: Upsampling) -> None:
    model = tiny(variant, structure, upsampling)
    config = OptimConfig(lr=1e-3, head_lr_factor=5.0, layer_decay=0.5, weight_decay=0.1)
    optimizer = create_optimizer(model, config)
    found = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    names = {id(p): name for name, p in model.named_parameters()}
    assert found.keys() == names.keys()
    plain = {id(p): group for group in create_optimizer(model, OptimConfig()).param_groups for p in group["params"]}
    for key, name in names.items():
        layer = layer_of(name)
        assert layer_number(name, model.backbone) == layer, name
        expected = 5e-3 if layer == DEPTH + 1 else 1e-3 * 0.5 ** (DEPTH + 1 - layer)
        assert found[key]["lr"] == found[key]["base_lr"] == pytest.approx(expected), name
        assert (found[key]["weight_decay"] == 0) == (plain[key]["weight_decay"] == 0), name


def test_a_bias_table_of_all_blocks_is_an_embedding() -> None:
    model = tiny("beitv2")
    model.backbone.relative_bias_tables = nn.ParameterList([model.backbone.relative_bias_tables[0]])
    assert layer_number("backbone.relative_bias_tables.0", model.backbone) == 0


def test_an_older_optimizer_state_resumes_as_it_was() -> None:
    model = tiny("vit")
    optimizer = create_optimizer(model, OptimConfig())
    assert all(group["fused"] for group in optimizer.param_groups), "on a CPU"
    state = optimizer.state_dict()
    older = state | {"param_groups": [group | {"fused": None} for group in state["param_groups"]]}
    load_optimizer(optimizer, older)
    model(random_images(1, (48, 48))).mask_logits.square().sum().backward()
    optimizer.step()
    assert not any(group["fused"] for group in optimizer.param_groups)


@pytest.mark.parametrize("structure", ["plain", "shrunk"])
@pytest.mark.parametrize("frozen, layers", [("none", -1), (0, 0), (2, 2), (4, 4), ("backbone", 4)])
@pytest.mark.parametrize("variant", ["vit", "beitv2"])
def test_frozen_layers_get_nothing(variant: str, structure: Structure, frozen: Freeze | int, layers: int) -> None:
    model = tiny(variant, structure)
    freeze(model, frozen)
    config = OptimConfig(lr=1e-2, weight_decay=0.5, layer_decay=0.9)
    optimizer = create_optimizer(model, config)
    before = {name: value.clone() for name, value in model.named_parameters()}
    model.train()
    for _ in range(2):
        optimizer.zero_grad()
        output = model(random_images(2, (48, 48)))
        (output.class_logits.square().sum() + output.mask_logits.square().sum()).backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        held = layer_of(name) <= layers
        assert (parameter.grad is None) == held, name
        assert (parameter not in optimizer.state) == held, name
        assert torch.equal(parameter, before[name]) == held, name
    assert all(group["params"] for group in parameter_groups(model, config))


@pytest.mark.parametrize("frozen, blocks", [("backbone", 4), (3, 3), (0, 0)])
def test_no_activations_are_kept_below_what_learns(frozen: Freeze | int, blocks: int) -> None:
    model = tiny("vit", drop_path=0.5)
    freeze(model, frozen)
    learning: list[bool] = []
    for block in model.backbone.blocks:
        block.register_forward_hook(lambda _, __, out: learning.append(out.requires_grad))
    features = model.train().backbone(torch.rand(2, 3, 64, 64))
    assert learning == [False] * blocks + [True] * (DEPTH - blocks)
    assert features[-1].requires_grad == (blocks < DEPTH)
    with torch.no_grad():  # nor is any block left out at random
        model.eval()
        expected = model.backbone(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
        model.train()
        ours = model.backbone(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
    if blocks == DEPTH:
        assert all(torch.equal(one, other) for one, other in zip(ours, expected, strict=True))


@pytest.mark.parametrize("frozen", [-1, 5])
def test_blocks_that_are_not_there_cannot_be_frozen(frozen: int) -> None:
    with pytest.raises(UserError, match=rf"optim\.freeze {frozen}: give none, backbone, or a number of blocks from 0"):
        freeze(tiny("vit"), frozen)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    monkeypatch.setattr(dataset_module, "SHAPES_LENGTH", {"train": 10, "val": 1})
    return tiny_run(tmp_path / "run", optim=OptimConfig(lr=1e-3, warmup_steps=0, freeze="backbone", layer_decay=0.8))


def test_a_frozen_backbone_ends_as_it_began(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = train(replace(config, steps=1, optim=OptimConfig(), output=tmp_path / "start")).path
    network: Any = load_model(start).config
    capsys.readouterr()
    train(replace(config, init=str(start), model=network))
    ours, theirs = load_file(config.output / "last.safetensors"), load_file(start)
    for name in theirs:
        same = torch.equal(ours[name], theirs[name])
        assert same == name.startswith(("backbone.", "mean", "std")), name
    head = sum(value.numel() for name, value in theirs.items() if name.startswith("head."))
    assert f"{head:,} of " in capsys.readouterr().out


def test_resumed_it_is_the_same_to_the_bit(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, optim=replace(config.optim, freeze=1))
    train(replace(config, output=tmp_path / "whole"))

    def stop(step: int, _: object) -> None:
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, on_step=stop)
    train(config, resume=True)
    assert run_records(config.output) == run_records(tmp_path / "whole")
    state = torch.load(checkpoints(config.output)[0])["optimizer"]
    assert len(state["state"]) == sum(len(group["params"]) for group in state["param_groups"]) > 0


@pytest.mark.parametrize("decay", [0.0, 1.1])
def test_a_decay_that_cannot_be_meant_is_refused(config: TrainConfig, decay: float) -> None:
    with pytest.raises(UserError, match=r"optim\.layer_decay is"):
        train(replace(config, optim=OptimConfig(layer_decay=decay)))
