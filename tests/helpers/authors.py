"""Checkpoints as the paper's authors write them: names and shapes spelled out, for any size and on any device."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

Shapes = Iterator[tuple[str, tuple[int, ...]]]
SMALL = {"embed_dim": 48, "depth": 6, "head_dim": 24, "num_classes": 7, "grid": 4, "num_heads": 4, "head_num_heads": 4}
"""Sizes of the golden checkpoints."""


def linear(name: str, out: int, width: int) -> Shapes:
    yield f"{name}.weight", (out, width)
    yield f"{name}.bias", (out,)


def norm(name: str, width: int) -> Shapes:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def fused(name: str, width: int) -> Shapes:
    yield f"{name}.in_proj_weight", (3 * width, width)
    yield f"{name}.in_proj_bias", (3 * width,)
    yield from linear(f"{name}.out_proj", width, width)


def backbone_shapes(width: int, depth: int, grid: int, patch: int) -> Shapes:
    yield "backbone.cls_token", (1, 1, width)
    yield "backbone.pos_embed", (1, 1 + grid * grid, width)
    yield "backbone.patch_embed.projection.weight", (width, 3, patch, patch)
    yield "backbone.patch_embed.projection.bias", (width,)
    for index in range(depth):
        layer = f"backbone.layers.{index}"
        yield from norm(f"{layer}.ln1", width)
        yield from fused(f"{layer}.attn.attn", width)
        yield from norm(f"{layer}.ln2", width)
        yield from linear(f"{layer}.ffn.layers.0.0", 4 * width, width)
        yield from linear(f"{layer}.ffn.layers.1", width, 4 * width)


def decoder_shapes(prefix: str, width: int, layers: int, *, attention_to_mask: bool) -> Shapes:
    for index in range(layers):
        layer = f"{prefix}.layers.{index}"
        yield from fused(f"{layer}.self_attn", width)
        if attention_to_mask:
            for part in ("q", "k", "v", "proj"):
                yield from linear(f"{layer}.multihead_attn.{part}", width, width)
        else:
            yield from fused(f"{layer}.multihead_attn", width)
        yield from linear(f"{layer}.linear1", 4 * width, width)
        yield from linear(f"{layer}.linear2", width, 4 * width)
        for number in (1, 2, 3):
            yield from norm(f"{layer}.norm{number}", width)


def shapes_of(
    *,
    embed_dim: int,
    depth: int,
    head_dim: int,
    num_classes: int,
    grid: int,
    stages: int = 3,
    layers: int = 3,
    shrunk: bool = False,
    patch: int = 16,
    **_: Any,
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a whole checkpoint."""
    found = dict(backbone_shapes(embed_dim, depth, grid, patch))
    head = "decode_head.atm" if shrunk else "decode_head"
    for stage in range(1, (2 if shrunk else stages) + 1):
        found |= linear(f"decode_head.input_proj_{stage}", head_dim, embed_dim)
        found |= norm(f"decode_head.proj_norm_{stage}", head_dim)
        decoder = f"decode_head.decoder_{stage}"
        found |= decoder_shapes(decoder, head_dim, layers, attention_to_mask=not shrunk)
    if shrunk:
        found |= decoder_shapes(f"{head}.decoder_1", head_dim, layers, attention_to_mask=True)
        found["decode_head.q.weight"] = (grid * grid, head_dim)
    for place in {head, "decode_head"}:
        found[f"{place}.loss_decode.criterion.empty_weight"] = (num_classes + 1,)
    found[f"{head}.q.weight"] = (num_classes, head_dim)
    found |= linear(f"{head}.class_embed", num_classes + 1, head_dim)
    return found


def state_of(*, device: str = "cpu", **sizes: Any) -> dict[str, Tensor]:
    """A checkpoint's `state_dict` of random numbers, of which each tensor repeats one: small on disk at any size."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in shapes_of(**sizes).items():
        number = torch.empty((), device="meta") if device == "meta" else torch.randn((), generator=generator) / 8
        state[name] = number.expand(shape)
    return state
