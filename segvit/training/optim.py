"""The optimizer: parameter groups, learning rates and frozen layers (docs/method.md section 5)."""

from collections.abc import Iterator
from typing import Any

import torch
from timm.layers import DropPath
from torch import nn

from segvit.config import Freeze, OptimConfig
from segvit.errors import UserError

NEW = ".downsampling."
"""Part of the names of those backbone parameters that no pretrained weights contain."""


def learning_rate_factor(step: int, *, steps: int, config: OptimConfig) -> float:
    """Return the factor on every base learning rate at a step (from 0): linear warm-up over polynomial decay to 0.

    (1 - t/T)^power * (1 - (1 - t/W)(1 - warmup_factor) while t < W), with T steps and W warm-up steps.
    """
    decay: float = (1 - step / steps) ** config.power
    if step >= config.warmup_steps:
        return decay
    return decay * (1 - (1 - step / config.warmup_steps) * (1 - config.warmup_factor))


def layer_number(name: str, backbone: Any) -> int:
    """Return the layer of a parameter of the whole model, numbered as in BEiT and timm.

    - 0: embeddings (patches, positions, prefix tokens, a bias table that all blocks share)
    - i + 1: block i, with its own bias table
    - number of blocks + 1: new parts (the head, the up-sampling, a convolution that samples queries)
    """
    num_blocks = len(backbone.blocks)
    if not name.startswith("backbone.") or NEW in name:
        return num_blocks + 1
    part, number = [*name.split("."), ""][1:3]
    tables = backbone.relative_bias_tables
    if part == "blocks" or (part == "relative_bias_tables" and len(tables) == num_blocks > 1):
        return int(number) + 1
    return 0


def freeze(model: nn.Module, frozen: Freeze | int) -> None:
    """Freeze layers, as `OptimConfig.freeze` says.

    They get no gradients, and no activations are stored below the first layer that learns. Their drop path is turned
    off, since it regularises learning.

    Raises:
        UserError: more blocks than the model has.
    """
    backbone: Any = model.get_submodule("backbone")
    num_blocks = len(backbone.blocks)
    if frozen == "none":
        return
    layers = num_blocks if frozen == "backbone" else int(frozen)
    if not 0 <= layers <= num_blocks:
        raise UserError(
            f"optim.freeze {frozen}: give none, backbone, or a number of blocks from 0 (only the embeddings) to "
            f"{num_blocks} (of {num_blocks} that run)"
        )
    for name, parameter in model.named_parameters():
        if layer_number(name, backbone) <= layers:
            parameter.requires_grad_(False)
    for block in backbone.blocks[:layers]:
        for part in block.modules():
            if isinstance(part, DropPath):
                part.drop_prob = 0.0


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Return AdamW's groups of the parameters that learn: the backbone, its norms without weight decay, and new parts.

    New parts are those that no pretrained backbone has: the head, the up-sampling, and a convolution that samples
    queries. They learn at the head's rate. With `layer_decay`, each layer of the backbone has two groups with its rate.
    """
    backbone: Any = model.get_submodule("backbone")
    norms = set(_norm_parameters(backbone))
    last = len(backbone.blocks) + 1
    layers = {p: layer_number(name, backbone) for name, p in model.named_parameters() if p.requires_grad}
    scales = {p: config.layer_decay ** (last - layer) for p, layer in layers.items()}
    groups: list[dict[str, Any]] = []
    for scale in sorted({scales[p] for p, layer in layers.items() if layer < last}):
        rate = {"lr": config.lr * scale, "base_lr": config.lr * scale}
        rest = [p for p, layer in layers.items() if layer < last and scales[p] == scale and p not in norms]
        own_norms = [p for p in _norm_parameters(backbone) if scales.get(p) == scale]
        groups += [{"params": rest, **rate}, {"params": own_norms, **rate, "weight_decay": 0.0}]
    head_lr = config.lr * config.head_lr_factor
    head = [p for p, layer in layers.items() if layer == last]
    groups.append({"params": head, "lr": head_lr, "base_lr": head_lr})
    return [group for group in groups if group["params"]]


def _norm_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """Yield weights and biases of every LayerNorm (or RMSNorm) in `module`."""
    for part in module.modules():
        if isinstance(part, (nn.LayerNorm, nn.RMSNorm)):
            yield from part.parameters(recurse=False)


def create_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW with the paper's parameter groups."""
    return torch.optim.AdamW(
        parameter_groups(model, config), lr=config.lr, betas=config.betas, weight_decay=config.weight_decay
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to its base times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
