"""LoRA (Hu et al., 2022): attention learns by low-rank weights beside its own weights, which are frozen.

    add_lora(model, config.optim)               # before the optimizer is made
    merged(model).save("best.safetensors")      # a plain file, without a trace of them

peft does the arithmetic: W x + alpha / rank * B A x, with A random and B zero at the start. Queries, keys, values and
the projection behind attention get such a pair. Every other weight of the backbone is frozen; a convolution that
samples queries, the up-sampling and the head learn as without LoRA.
"""

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from segvit.config import OptimConfig
from segvit.data.bands.names import COLORS
from segvit.errors import UserError
from segvit.models.backbone import PlainViT
from segvit.models.segvit import SegViT
from segvit.utils.optional import need

QUERIES = ("qkv", "q_proj")
"""timm's names of the Linear layer that makes queries."""
LAYERS = (*QUERIES, "k_proj", "v_proj", "proj")
"""timm's names of the Linear layers of attention."""
LEARNED = "learned_before_lora"
"""Attribute of a backbone with low-rank weights: the names of the parameters that learn again without them."""
PROBED_PATCHES = 4
"""Side in patches of the image that shows which layers run."""


def add_lora(model: SegViT, config: OptimConfig) -> None:
    """Add low-rank weights to the attention of a model's backbone, in place, and freeze the rest of the backbone.

    Raises:
        UserError: peft is not installed, the backbone is not one of ours, its attention uses weights without their
            layers, or it has such weights already.
    """
    backbone = model.backbone
    if not isinstance(backbone, PlainViT):
        raise UserError(
            f"optim.lora_rank {config.lora_rank}: the backbone {type(backbone).__name__} is your own, and segvit does "
            "not know its attention; leave optim.lora_rank out, or call peft yourself before you train"
        )
    if has_lora(model):
        raise UserError(
            f"optim.lora_rank {config.lora_rank}: the model still has the low-rank weights of a run that was "
            "interrupted; create it again"
        )
    peft = need("peft", "low-rank weights (optim.lora_rank)", extra="lora")
    settings = peft.LoraConfig(
        r=config.lora_rank,
        lora_alpha=2 * config.lora_rank if config.lora_alpha is None else config.lora_alpha,
        target_modules=_targets(backbone, config.lora_rank),
        lora_dropout=0.0,
        bias="none",
    )
    learned = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    peft.inject_adapter_in_model(settings, backbone)
    vars(backbone)[LEARNED] = learned
    for name, parameter in backbone.named_parameters():
        if backbone.layer_of(name) is None:  # new, as the head is
            parameter.requires_grad_(name in learned)


def _targets(backbone: PlainViT, rank: int) -> list[str]:
    """Return the names of the Linear layers of attention that run as layers.

    In the block that shrinks, queries of the kept tokens and keys of all use parts of one weight. That block may do
    without; every other block must have a layer that makes queries.

    Raises:
        UserError: a block has none.
    """
    found = set(_called(backbone))
    for index, block in enumerate(backbone.blocks):
        if index != backbone.shrink_at and not any(f"blocks.{index}.attn.{name}" in found for name in QUERIES):
            attention: Any = block.attn
            raise UserError(
                f"optim.lora_rank {rank}: {type(attention).__name__} of block {index} multiplies by its weights "
                "without their layers, so low-rank weights would have no effect there. Take a backbone of another "
                "family, such as vit_small_patch14_dinov2, or type --optim.freeze"
            )
    return sorted(found)


def _called(backbone: PlainViT) -> Iterator[str]:
    """Yield the names of the Linear layers of attention that a forward pass calls."""
    called: list[str] = []
    hooks = []
    for name, layer in backbone.named_modules():
        if isinstance(layer, nn.Linear) and ".attn." in name and name.rpartition(".")[2] in LAYERS:
            hooks.append(layer.register_forward_hook(partial(_note, called, name)))
    weight = next(backbone.parameters())
    side, bands = PROBED_PATCHES * backbone.patch_size, getattr(backbone, "bands", COLORS)
    training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            backbone(torch.zeros(1, bands, side, side, dtype=weight.dtype, device=weight.device))
    finally:
        backbone.train(training)
        for hook in hooks:
            hook.remove()
    yield from called


def _note(called: list[str], name: str, *_: Any) -> None:
    called.append(name)


def _lora_layers(model: nn.Module) -> list[tuple[str, Any]]:
    """List the layers with low-rank weights, by name."""
    return [(name, part) for name, part in model.named_modules() if hasattr(part, "lora_A")]


def has_lora(model: nn.Module) -> bool:
    """True if a model has low-rank weights."""
    return bool(_lora_layers(model))


def merge(model: SegViT) -> None:
    """Add low-rank weights to the weights beside them, in place.

    The model has plain layers again, and the weights learn that learned before `add_lora`.
    """
    for name, layer in _lora_layers(model):
        layer.merge()
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, layer.get_base_layer())
    vars(model.backbone).pop("peft_config", None)
    learned = vars(model.backbone).pop(LEARNED, set())
    for name, parameter in model.backbone.named_parameters():
        if name in learned:
            parameter.requires_grad_(True)


def merged(model: SegViT) -> SegViT:
    """Return a copy of a model with its low-rank weights merged, or the model itself if it has none."""
    if not has_lora(model):
        return model
    plain = copy.deepcopy(model)
    merge(plain)
    return plain
