"""Low-rank weights of the backbone: what learns, plain files, exact resuming, and families that cannot."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import segvit.data.dataset as dataset_module
from segvit.config import OptimConfig, Structure, TrainConfig
from segvit.errors import UserError
from segvit.models.create import create_model
from segvit.models.segvit import SegViT
from segvit.training.backbone.lora import add_lora, has_lora, merge, merged
from segvit.training.optim import parameter_groups
from segvit.training.settings import check_settings
from segvit.training.train import train
from segvit.weights.load import load_model
from tests.helpers.tiny import random_images, run_records, stir, tiny_config, tiny_run

pytest.importorskip("peft", reason="needs the extra lora")

RANK = OptimConfig(lr=1e-2, warmup_steps=0, lora_rank=2)


def tiny(variant: str, structure: Structure = "plain", **changes: Any) -> SegViT:
    torch.manual_seed(0)
    model = create_model(config=replace(tiny_config(variant, structure), **changes), num_classes=3)
    stir(model)
    return model


def stir_lora(model: SegViT) -> None:
    """Let low-rank weights matter, which add nothing at the start."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape) / 4)


@pytest.mark.parametrize(
    "variant, structure, changes",
    [
        ("vit", "plain", {}),
        ("vit", "shrunk", {}),
        ("dinov2, registers", "naive_shrunk", {}),
        ("dinov3", "shrunk", {}),
        ("vit", "shrunk", {"downsampling": "edge", "upscaler": "conv"}),
        ("dinov3", "plain", {"merge_shares": (0.4, 0.5), "head_classes": "presence"}),
    ],
    ids=str,
)
def test_merged_it_is_the_same_model_in_plain_layers(
    variant: str, structure: Structure, changes: dict[str, Any]
) -> None:
    model = tiny(variant, structure, **changes).eval()
    names, images = list(model.state_dict()), random_images(2, (model.image_size, model.image_size))
    before = model(images)
    add_lora(model, RANK)
    for ours, theirs in zip(model(images)[:2], before[:2], strict=True):
        torch.testing.assert_close(ours, theirs)  # B is zero at the start
    stir_lora(model)
    learned = model(images)
    assert (learned.mask_logits - before.mask_logits).abs().max() > 1e-3
    plain = merged(model)
    assert has_lora(model) and not has_lora(plain) and list(plain.state_dict()) == names
    assert merged(plain) is plain
    merge(model)
    for network in (plain, model):
        for ours, theirs in zip(network(images)[:2], learned[:2], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    add_lora(model, RANK)  # nothing is left behind
    assert has_lora(model)


def test_it_learns_at_the_rate_of_the_backbone_and_all_else_stays() -> None:
    model = tiny("vit", "shrunk", downsampling="conv").train()
    add_lora(model, replace(RANK, lora_alpha=6.0))
    layers = [part for part in model.backbone.modules() if hasattr(part, "lora_A")]
    assert len(layers) == 2 * 4 - 1 and layers[0].scaling["default"] == 3.0  # not the qkv of the block that shrinks
    stir_lora(model)
    rates = {id(p): group["lr"] for group in parameter_groups(model, RANK) for p in group["params"]}
    output = model(random_images(2, (64, 64)))
    (output.class_logits.square().sum() + output.mask_logits.square().sum()).backward()
    for name, parameter in model.named_parameters():
        low = "lora_" in name
        learns = low or not name.startswith("backbone.") or name.startswith("backbone.downsampling.")
        assert (parameter.grad is not None) == learns, name
        assert rates.get(id(parameter)) == ((1e-2 if low else 1e-1) if learns else None), name


def test_families_and_parts_without_layers_are_refused() -> None:
    for variant in ("beitv2", "eva02"):
        with pytest.raises(UserError, match=r"optim\.lora_rank 2: \w*Attention of block 0 multiplies by its weights"):
            add_lora(tiny(variant), RANK)
    model = tiny("vit")
    add_lora(model, RANK)
    with pytest.raises(UserError, match="still has the low-rank weights of a run that was interrupted"):
        add_lora(model, RANK)
    model.backbone = torch.nn.Identity()
    with pytest.raises(UserError, match="the backbone Identity is your own"):
        add_lora(model, RANK)


def test_a_backbone_that_fails_is_left_unchanged() -> None:
    model = tiny("vit").train()

    def fail(*_: Any) -> None:
        raise ValueError("a block that fails")

    handle = model.backbone.blocks[-1].register_forward_pre_hook(fail)
    with pytest.raises(ValueError, match="a block that fails"):
        add_lora(model, RANK)
    handle.remove()
    assert model.backbone.training and not any(part._forward_hooks for part in model.backbone.modules())


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    monkeypatch.setattr(dataset_module, "SHAPES_LENGTH", {"train": 4, "val": 1})
    return tiny_run(tmp_path / "run", steps=4, eval_every=4, optim=RANK, ema_decay=0.9)


def test_a_model_of_ones_own_is_plain_when_the_run_ends(
    config: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    model = create_model(config=config.model, num_classes=8)
    model.backbone.patch_embed.requires_grad_(False)  # of the caller, who may want it back so
    before = copy.deepcopy(model.state_dict())
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    train(replace(config, steps=2), model=model)
    assert list(model.state_dict()) == list(before)
    assert learning == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert load_file(config.output / "last.safetensors").keys() == before.keys()
    moved = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert [name for name in moved if name.startswith("backbone.")] == [
        f"backbone.blocks.{index}.attn.{name}.weight" for index in (0, 1) for name in ("qkv", "proj")
    ]
    assert "parameters learn; the others are frozen" in capsys.readouterr().out


@pytest.mark.slow
def test_resumed_it_is_the_same_to_the_bit(config: TrainConfig, tmp_path: Path) -> None:
    train(replace(config, output=tmp_path / "whole"))

    def stop(step: int, _: object) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, on_step=stop)
    train(config, resume=True)
    assert run_records(config.output) == run_records(tmp_path / "whole")
    ours, theirs = (load_file(folder / "last.safetensors") for folder in (config.output, tmp_path / "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not has_lora(load_model(config.output / "best.safetensors"))


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"optim": replace(RANK, lora_rank=-1)}, r"optim\.lora_rank is -1: give a rank of 1 or more"),
        ({"optim": OptimConfig(lora_alpha=8)}, r"optim\.lora_rank is 0: give a rank of 1 or more"),
        ({"optim": replace(RANK, lora_alpha=0)}, r"optim\.lora_alpha is 0: it must be above 0"),
        ({"optim": replace(RANK, freeze=1)}, r"with optim\.freeze 1: .* leave one of the two out"),
        ({"parallel": "fsdp"}, "with parallel fsdp"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(config: TrainConfig, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        check_settings(replace(config, **changes))
