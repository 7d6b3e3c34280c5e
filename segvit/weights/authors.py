"""Checkpoints of the paper's authors: their files, the names of their tensors, and the sizes read from these.

Letters: D backbone width, d head width, K classes, p patch, N patches of the training crop.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

Shape = tuple[int, ...]

BACKBONE = (
    (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
    (r"\.blocks\.", ".layers."),
    (r"\.norm(\d)\.", r".ln\1."),
    (r"\.attn\.qkv\.", ".attn.attn.in_proj_"),
    (r"\.attn\.proj\.", ".attn.attn.out_proj."),
    (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
    (r"\.mlp\.fc2\.", ".ffn.layers.1."),
)
"""Patterns in our names of the backbone's tensors, and the authors' names for them."""
DECODER = (
    (r"\.self_attn\.[qkv]\.", ".self_attn.in_proj_"),
    (r"\.self_attn\.proj\.", ".self_attn.out_proj."),
    (r"\.fc(\d)\.", r".linear\1."),
    (r"\.classifier\.", ".class_embed."),
    (r"\.(class_tokens|tokens)$", ".q.weight"),
    (r"\.cross_attn\.", ".multihead_attn."),
)
"""Patterns in our names of the decoder's tensors, and the authors' names for them."""
FUSED = ((r"\.multihead_attn\.[qkv]\.", ".multihead_attn.in_proj_"), (r"(multihead_attn)\.proj\.", r"\1.out_proj."))
"""Further patterns for the up-sampling, where queries, keys and values of the cross-attention are one tensor too."""
STAGE = (("layers.", "decoder_{}.layers."), ("proj.", "input_proj_{}."), ("norm.", "proj_norm_{}."))
"""Parts of a decoder stage. The authors count stages from 1."""
CLASS_TOKEN = "backbone.cls_token"
POSITIONS = "backbone.pos_embed"
"""Position embedding. Its first row belongs to the class token; the method uses neither."""
LOSS_WEIGHT = re.compile(r"decode_head\.(atm\.)?loss_decode\.criterion\.empty_weight")
"""Class weights (K + 1,) of the loss, which inference does not need."""


def authors_name(name: str, *, shrunk: bool) -> str:
    """Return the authors' name of the tensor that holds ours; one of theirs can hold several of ours."""
    if name.startswith("backbone."):
        return _replace(name, BACKBONE)
    part, rest = name.split(".", 1)
    if match := re.match(r"stages\.(\d+)\.(.*)", rest):
        number = int(match[1]) + 1
        rest = match[2]
        for ours, theirs in STAGE:
            if rest.startswith(ours):
                rest = theirs.format(number) + rest.removeprefix(ours)
                break
    prefix = "decode_head.atm" if shrunk and part == "head" else "decode_head"
    return _replace(f"{prefix}.{rest}", (*DECODER, *FUSED) if part == "upsampling" else DECODER)


def _replace(name: str, rules: Iterable[tuple[str, str]]) -> str:
    """Apply every rule to `name` in turn."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def pairs(own: Iterable[str], *, shrunk: bool) -> dict[str, list[str]]:
    """Map each of the authors' names to our names of the tensors that it holds, in order."""
    found: dict[str, list[str]] = {}
    for name in own:
        if name not in ("mean", "std"):
            found.setdefault(authors_name(name, shrunk=shrunk), []).append(name)
    return found


def own_state(state: Mapping[str, Tensor], own: Iterable[str], *, shrunk: bool) -> dict[str, Tensor]:
    """Convert the authors' tensors that a model with the names `own` needs to our names and shapes."""
    converted: dict[str, Tensor] = {}
    for theirs, ours in pairs(own, shrunk=shrunk).items():
        if theirs in state:
            value = state[theirs][:, 1:] if theirs == POSITIONS else state[theirs]
            converted |= dict(zip(ours, value.chunk(len(ours)), strict=True))
    return converted


def expected_shapes(own: Mapping[str, Tensor], *, shrunk: bool) -> dict[str, Shape]:
    """Return names and shapes of the authors' complete checkpoint for a model with the tensors `own`."""
    shapes: dict[str, Shape] = {CLASS_TOKEN: (1, 1, own[POSITIONS].shape[2])}
    for theirs, ours in pairs(own, shrunk=shrunk).items():
        first = tuple(own[ours[0]].shape)
        shapes[theirs] = (len(ours) * first[0], *first[1:])
    _, patches, width = shapes[POSITIONS]
    shapes[POSITIONS] = (1, 1 + patches, width)
    return shapes


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes read from the tensors of a checkpoint."""

    shrunk: bool
    """True if there is an up-sampling."""
    embed_dim: int
    """Width D of the backbone."""
    depth: int
    """Number of backbone blocks."""
    patch_size: int
    """Side p of a patch in pixels."""
    grid: int | None
    """Patches along a side of the training crop, or None if the position embedding is missing or damaged."""
    num_classes: int
    """Number of classes K."""
    head_dim: int
    """Width d of the head."""
    num_stages: int
    """Stages of the decoder that reads the backbone, one for each tap."""
    head_num_layers: int
    """Layers of each stage of the head."""
    upsampling_num_layers: int | None
    """Layers of the up-sampling, or None if there is none."""


def read_sizes(state: Mapping[str, Tensor]) -> Sizes | None:
    """Read each size from the majority of the tensors, so that a missing or damaged one differs from the rest.

    Returns:
        None if these are not the tensors of a SegViT.
    """
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    shrunk = sum(name.startswith("decode_head.atm.") for name in shapes) > 5
    atm = r"decode_head\.atm\." if shrunk else r"decode_head\."
    widths = _sizes(shapes, r"backbone\.layers\.\d+\.ln\d\.\w+")
    head_widths = _sizes(shapes, r"decode_head\.(atm\.)?decoder_\d\.layers\.\d+\.norm\d\.\w+")
    queries = _sizes(shapes, atm + r"class_embed\.\w+") + [k + 1 for k in _sizes(shapes, atm + r"q\.weight")]
    queries += _sizes(shapes, LOSS_WEIGHT.pattern)
    if not (widths and head_widths and queries):
        return None
    positions = [shape[1] - 1 for name, shape in shapes.items() if name == POSITIONS and len(shape) == 3]
    positions += _sizes(shapes, r"decode_head\.q\.weight") if shrunk else []
    patch = shapes.get("backbone.patch_embed.projection.weight", ())
    return Sizes(
        shrunk=shrunk,
        embed_dim=_most(widths),
        depth=_count(shapes, r"backbone\.layers\.(\d+)\."),
        patch_size=patch[2] if len(patch) == 4 and patch[2] == patch[3] else 16,
        grid=next((math.isqrt(count) for count in positions if count > 0 and math.isqrt(count) ** 2 == count), None),
        num_classes=_most(queries) - 1,
        head_dim=_most(head_widths),
        num_stages=_count(shapes, r"decode_head\.decoder_(\d+)\.", first=1),
        head_num_layers=_count(shapes, atm + r"decoder_\d\.layers\.(\d+)\."),
        upsampling_num_layers=_count(shapes, r"decode_head\.decoder_\d\.layers\.(\d+)\.") if shrunk else None,
    )


def _sizes(shapes: Mapping[str, Shape], pattern: str) -> list[int]:
    """Return the first size of each tensor whose name matches."""
    return [shape[0] for name, shape in shapes.items() if shape and re.fullmatch(pattern, name)]


def _most(values: Iterable[int]) -> int:
    """Return the most frequent value."""
    return Counter(values).most_common(1)[0][0]


def _count(shapes: Iterable[str], pattern: str, *, first: int = 0) -> int:
    """Count numbered parts, up to the last number with at least half as many tensors as the largest part."""
    found = Counter(int(match[1]) for name in shapes if (match := re.match(pattern, name)))
    if not found:
        return 0
    return 1 - first + max(number for number, tensors in found.items() if 2 * tensors >= max(found.values()))
