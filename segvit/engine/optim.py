"""What the optimizer does with which parameter, and how fast, at each step (docs/method.md section 5)."""

from collections.abc import Iterator

import torch
from torch import nn

from segvit.config import OptimConfig

NEW = ".downsampling."
"""Part of the names of the backbone's parameters that no pretrained weights have."""


def learning_rate_factor(step: int, *, steps: int, config: OptimConfig) -> float:
    """The factor on every base learning rate at a step (from 0): linear warm-up over polynomial decay to 0.

    (1 - t/T)^power * (1 - (1 - t/W)(1 - warmup_factor) while t < W), with T steps and W warm-up steps.
    """
    decay: float = (1 - step / steps) ** config.power
    if step >= config.warmup_steps:
        return decay
    return decay * (1 - (1 - step / config.warmup_steps) * (1 - config.warmup_factor))


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, object]]:
    """Three groups for AdamW: the backbone, its norms without weight decay, and what is new at the head's rate.

    New is what no pretrained backbone has: the head, the up-sampling, and a convolution that samples queries.
    """
    norms = set(_norm_parameters(model.get_submodule("backbone")))
    new = {name: p for name, p in model.named_parameters() if not name.startswith("backbone.") or NEW in name}
    head = list(new.values())
    backbone = [p for name, p in model.named_parameters() if name not in new and p not in norms]
    head_lr = config.lr * config.head_lr_factor
    return [
        {"params": backbone, "lr": config.lr, "base_lr": config.lr},
        {
            "params": list(_norm_parameters(model.get_submodule("backbone"))),
            "lr": config.lr,
            "base_lr": config.lr,
            "weight_decay": 0.0,
        },
        {"params": head, "lr": head_lr, "base_lr": head_lr},
    ]


def _norm_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """Weights and biases of every LayerNorm (or RMSNorm) below `module`."""
    for part in module.modules():
        if isinstance(part, (nn.LayerNorm, nn.RMSNorm)):
            yield from part.parameters(recurse=False)


def create_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW with the paper's parameter groups."""
    return torch.optim.AdamW(
        parameter_groups(model, config), lr=config.lr, betas=config.betas, weight_decay=config.weight_decay
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to its base times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
