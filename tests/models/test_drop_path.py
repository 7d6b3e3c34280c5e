"""Drop path: which branches of a block it drops, and how many in a pass."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from timm.layers import DropPath

from segvit.config import ModelConfig
from segvit.errors import UserError
from segvit.models.backbone import PlainViT
from segvit.models.create import create_backbone
from tests.helpers.tiny import TINY, tiny_config

LARGE = ModelConfig(
    backbone="vit_tiny_patch16_224", image_size=32, embed_dim=32, num_heads=1, depth=24, drop_path=0.3, taps=(23,)
)
"""A model as deep as Large, with its drop path, and narrow."""


def dropped_in_a_pass(backbone: PlainViT, images: int = 200) -> float:
    """Branches of one image that a pass drops, counted: the output of a branch that drops is 0."""
    count = 0

    def add(module: DropPath, _: Any, output: torch.Tensor) -> None:
        nonlocal count
        count += int((output == 0).flatten(1).all(dim=1).sum())

    for module in backbone.modules():
        if isinstance(module, DropPath):
            module.register_forward_hook(add)
    torch.manual_seed(0)
    with torch.no_grad():
        backbone.train()(torch.randn(images, 3, 32, 32))
    return count / images


@pytest.mark.parametrize("branches, expected", [("both", 7.2), ("mlp", 3.6)])
def test_dropped_branches_of_large(branches: Any, expected: float) -> None:
    """The rate of block i is rate * i / (depth - 1), so a branch is dropped depth * rate / 2 times a pass."""
    backbone, _ = create_backbone(replace(LARGE, drop_path_branches=branches))
    rates = [module.drop_prob for module in backbone.modules() if isinstance(module, DropPath)]
    assert sum(rates) == pytest.approx(expected) and max(rates) == pytest.approx(0.3)
    assert dropped_in_a_pass(backbone) == pytest.approx(expected, abs=0.6)  # 3 to 4 standard deviations


@pytest.mark.parametrize("variant", ["vit", "beitv2", "eva02", "dinov3"])
@pytest.mark.parametrize("structure", ["plain", "shrunk"])
def test_attention_is_never_dropped(variant: str, structure: Any) -> None:
    config = replace(tiny_config(variant, structure), drop_path=0.2, drop_path_branches="mlp")
    for index, block in enumerate(create_backbone(config)[0].blocks):
        assert not isinstance(block.drop_path1, DropPath)
        assert isinstance(block.drop_path2, DropPath) == (index > 0)


def test_blocks_with_one_branch_are_refused() -> None:
    config = ModelConfig(**TINY, backbone="vit_pwee_patch16_reg1_gap_256", image_size=32, drop_path=0.1)
    create_backbone(config)
    with pytest.raises(UserError, match=r"drop_path_branches mlp.*'vit_pwee.*no drop path of the MLP.*both"):
        create_backbone(replace(config, drop_path_branches="mlp"))
