"""Pretrained weights at another crop or patch than theirs: equal to what timm itself loads there."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from segvit.config import ModelConfig
from segvit.models.create import create_backbone
from tests.helpers.tiny import TINY, relative_difference, stir

OTHER = ("flexivit_small", "vit_base_patch16_radio_v3", "vit_large_patch16_radio_v3")
"""Families whose positions timm does not resize bicubic with antialias."""


def tiny_timm(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let timm make tiny models, and read their weights from a file at timm's own size and patch."""
    torch.manual_seed(5)
    create = timm.create_model
    donor = create(name, num_classes=0, **TINY)
    stir(donor)
    if donor.pos_embed is not None:
        nn.init.normal_(donor.pos_embed)
    torch.save(donor.state_dict(), tmp_path / "weights.pth")

    def create_from_file(name: str, *, pretrained: bool = False, **arguments: Any) -> nn.Module:
        if pretrained:
            file = str(tmp_path / "weights.pth")
            arguments["pretrained_cfg_overlay"] = {"file": file, "custom_load": False, "num_classes": 0}
        made: nn.Module = create(name, pretrained=pretrained, **{**TINY, **arguments})
        return made

    monkeypatch.setattr(timm, "create_model", create_from_file)


@torch.no_grad()
def check_taps(config: ModelConfig, **settings: Any) -> None:
    """Check the blocks of the pretrained backbone of `config` against those of timm's model with `settings`."""
    ours, _ = create_backbone(config)
    theirs = timm.create_model(config.backbone, pretrained=True, num_classes=0, **settings)
    assert torch.equal(ours.patch_embed.proj.weight, theirs.patch_embed.proj.weight)
    images = torch.randn(1, 3, config.image_size, config.image_size)
    expected = theirs.eval().forward_intermediates(images, indices=[3], norm=False, intermediates_only=True)
    assert relative_difference(ours.eval()(images)[-1], expected[-1]) < 1e-5


@pytest.mark.parametrize("size", [96, 320])
@pytest.mark.parametrize("name", OTHER)
def test_positions_of_flexivit_and_radio_are_resized_as_timm_does(
    name: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_timm(name, tmp_path, monkeypatch)
    check_taps(ModelConfig(backbone=name, image_size=size, pretrained=True, **TINY), img_size=size)


@pytest.mark.filterwarnings("ignore::UserWarning:timm")  # its resizing of BEiT's tables
@pytest.mark.parametrize(
    "name, size, patch",
    [
        ("vit_tiny_patch16_224", 64, 8),
        ("vit_small_patch14_dinov2", 64, 16),
        ("flexivit_small", 96, 24),
        ("beitv2_base_patch16_224", 56, 8),
        ("eva02_tiny_patch14_224", 64, 16),
        ("vit_small_patch16_dinov3", 64, 8),
    ],
)
def test_another_patch_has_the_weights_that_timm_resamples(
    name: str, size: int, patch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_timm(name, tmp_path, monkeypatch)
    config = ModelConfig(backbone=name, image_size=size, patch_size=patch, pretrained=True, **TINY)
    check_taps(config, img_size=size, patch_size=patch)
    file = create_backbone(replace(config, pretrained=False, pretrained_file=tmp_path / "weights.pth"))[0].state_dict()
    assert all(torch.equal(value, file[key]) for key, value in create_backbone(config)[0].state_dict().items())
