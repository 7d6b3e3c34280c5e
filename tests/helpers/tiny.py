"""Tiny models of every family, random weights and images for them, and a tiny run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from segvit.config import (
    AugmentConfig,
    DataConfig,
    Downsampling,
    EvalConfig,
    ModelConfig,
    OptimConfig,
    Structure,
    TrainConfig,
    Upsampling,
)
from segvit.data.spec import load_spec
from segvit.models.create import create_model
from segvit.models.segvit import SegViT

TINY = {"depth": 4, "embed_dim": 64, "num_heads": 2}
"""Overrides that shrink any family."""
VARIANTS: dict[str, dict[str, Any]] = {
    "vit": {"backbone": "vit_tiny_patch16_224", "image_size": 64},
    "vit without class token": {"backbone": "vit_tiny_patch16_224", "image_size": 64, "class_token": False},
    "dinov2, registers": {"backbone": "vit_small_patch14_reg4_dinov2", "image_size": 56},
    "clip, norm before the blocks": {"backbone": "vit_base_patch16_clip_224", "image_size": 64},
    "deit, distilled": {"backbone": "deit_tiny_distilled_patch16_224", "image_size": 64},
    "deit3": {"backbone": "deit3_small_patch16_224", "image_size": 64},
    "siglip": {"backbone": "vit_base_patch16_siglip_224", "image_size": 64},
    "beitv2": {"backbone": "beitv2_base_patch16_224", "image_size": 64},
    "eva02": {"backbone": "eva02_tiny_patch14_224", "image_size": 56},
    "dinov3": {"backbone": "vit_small_patch16_dinov3", "image_size": 64},
    "dinov3 without class token": {
        "backbone": "vit_small_patch16_dinov3",
        "image_size": 64,
        "class_token": False,
    },
}

PRESENCE = "vit, presence head"
"""Variant with another head, for the contracts of whole models."""


def tiny_config(
    variant: str,
    structure: Structure = "plain",
    upsampling: Upsampling = "tap",
    downsampling: Downsampling = "nearest_q",
) -> ModelConfig:
    own = VARIANTS["vit"] | {"head_classes": "presence"} if variant == PRESENCE else VARIANTS[variant]
    parts: dict[str, Any] = {"structure": structure, "upsampling": upsampling, "downsampling": downsampling}
    config = ModelConfig(**TINY, head_num_layers=2, **parts, **own)
    if upsampling == "paper":
        return replace(config, upsampling_num_layers=2)
    return replace(config, shrink_at=1) if structure == "shrunk" else config  # so tap reads three maps


def relative_difference(ours: Tensor, reference: Tensor) -> float:
    assert ours.shape == reference.shape
    return float((ours - reference).abs().max() / reference.abs().max())


def random_images(batch: int, size: tuple[int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(size[0] * 1000 + size[1])
    return torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8, generator=generator)


def stir(module: nn.Module) -> None:
    """Move what starts at 0, 1 or next to nothing (biases, norms, layer scales, bias tables), so that it matters.

    Weights of Linear layers grow, so that attention tells tokens apart.
    """
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "gamma" in name:
                parameter.fill_(0.5)
            elif parameter.ndim == 1 or "relative_position_bias_table" in name or "relative_bias_tables" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        for part in module.modules():
            if isinstance(part, nn.Linear):
                part.weight.mul_(4)


def timm_file(tmp_path: Path, variant: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random weights of the variant at timm's own image size as a file, which `pretrained=True` then reads."""
    config = tiny_config(variant)
    torch.manual_seed(5)
    donor = timm.create_model(config.backbone, num_classes=0, **TINY)
    stir(donor)
    path = tmp_path / "weights.pth"
    torch.save(donor.state_dict(), path)
    create = timm.create_model

    def create_from_file(name: str, *, pretrained: bool = False, **arguments: Any) -> nn.Module:
        if pretrained:
            arguments["pretrained_cfg_overlay"] = {"file": str(path), "custom_load": False, "num_classes": 0}
        made: nn.Module = create(name, pretrained=pretrained, **{**TINY, **arguments})
        return made

    monkeypatch.setattr(timm, "create_model", create_from_file)
    return path


def tell_apart(model: Any) -> None:
    """Let every class of a random SegViT win somewhere: else one is the best everywhere, and labels test nothing.

    Keys lose their mean, which shifts the masks of a class everywhere and changes no attention; masks get a deviation
    of 1, and query k means class k, or that it is present.
    """
    cross = [stage.layers[-1].cross_attn for stage in model.head.stages]
    images = random_images(2, (model.config.image_size, model.config.image_size))
    seen: dict[Any, Tensor] = {}
    hooks = [
        part.k.register_forward_hook(lambda layer, _, out: seen.update({layer: out.mean(dim=(0, 1))})) for part in cross
    ]
    hooks.append(model.head.classifier.register_forward_pre_hook(lambda _, inputs: seen.update(queries=inputs[0][0])))
    with torch.no_grad():
        model(images, deep=False)
        for part in cross:
            part.k.bias.sub_(seen[part.k])
        deviation = model(images, deep=False).mask_logits.std()
        for part in cross:
            part.q.weight.div_(deviation)
            part.q.bias.div_(deviation)
        model(images, deep=False)
        classifier = model.head.classifier
        classifier.bias.zero_()
        classifier.weight.zero_()
        if model.head.presence:
            classifier.bias.fill_(6)
        else:
            classifier.weight[:-1] = 6 * torch.linalg.pinv(seen["queries"]).T
    for hook in hooks:
        hook.remove()


def labelling_model(*, image_size: int, patch_size: int) -> SegViT:
    """Two blocks, eight classes, each of which wins somewhere; always the same weights."""
    config = ModelConfig(
        backbone="vit_tiny_patch16_224",
        image_size=image_size,
        patch_size=patch_size,
        embed_dim=32,
        depth=2,
        num_heads=2,
        head_num_layers=1,
        taps=(1,),
    )
    torch.manual_seed(0)
    made = create_model(
        config=config, num_classes=8, spec=load_spec("shapes"), protocol=EvalConfig(mode="whole")
    ).eval()
    stir(made)
    tell_apart(made)
    return made


def tiny_run(output: Path, **changes: Any) -> TrainConfig:
    """Six steps of a tiny model on made-up scenes, with everything on that draws random numbers."""
    model = ModelConfig(
        backbone="vit_tiny_patch16_224",
        image_size=32,
        patch_size=8,
        embed_dim=32,
        depth=2,
        num_heads=2,
        head_num_layers=1,
        drop_path=0.1,
    )
    config = TrainConfig(
        model=model,
        data=DataConfig(spec="shapes", workers=0),
        augment=AugmentConfig(resize_long=None, scale=(0.8, 1.3)),
        optim=OptimConfig(lr=1e-3, warmup_steps=2),
        eval=EvalConfig(mode="whole"),
        steps=6,
        batch_size=2,
        eval_every=6,
        save_every=1,
        device="cpu",
        loggers=(),
        output=output,
    )
    return replace(config, **changes)


def run_records(folder: Path) -> list[dict[str, Any]]:
    """What a run has logged."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
