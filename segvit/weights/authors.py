"""The paper's authors' checkpoints: which there are, their tensors' names in ours, and the sizes that these tell.

Letters: D backbone width, d head width, K classes, p patch, N patches of the training crop.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

Shape = tuple[int, ...]

RELEASED = {
    "segvit-base-ade20k": "ade_51.3.pth",
    "segvit-large-ade20k": "ade_54.6.pth",
    "segvit-large-shrunk-ade20k": "ade_shrunk_53.9.pth",
    "segvit-large-coco-stuff-10k": "COCOstuff_49.9.pth",
    "segvit-large-shrunk-coco-stuff-10k": "COCOstuff10k_shrunk_49.1.pth",
    "segvit-large-pascal-context-59": "PC59cls_64.1.pth",
    "segvit-large-shrunk-pascal-context-59": "PC59cls_62.3.pth",
}
"""The files that they have released, by our names; the number is the mIoU that they report (single scale)."""
LICENCE = "academic use only, says the paper's authors' licence"
"""Of these files."""

BACKBONE = (
    (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
    (r"\.blocks\.", ".layers."),
    (r"\.norm(\d)\.", r".ln\1."),
    (r"\.attn\.qkv\.", ".attn.attn.in_proj_"),
    (r"\.attn\.proj\.", ".attn.attn.out_proj."),
    (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
    (r"\.mlp\.fc2\.", ".ffn.layers.1."),
)
"""Parts of our names, and what the authors call them."""
DECODER = (
    (r"\.self_attn\.[qkv]\.", ".self_attn.in_proj_"),
    (r"\.self_attn\.proj\.", ".self_attn.out_proj."),
    (r"\.fc(\d)\.", r".linear\1."),
    (r"\.classifier\.", ".class_embed."),
    (r"\.(class_tokens|tokens)$", ".q.weight"),
    (r"\.cross_attn\.", ".multihead_attn."),
)
FUSED = ((r"\.multihead_attn\.[qkv]\.", ".multihead_attn.in_proj_"), (r"(multihead_attn)\.proj\.", r"\1.out_proj."))
"""In the up-sampling, queries, keys and values of the cross-attention are one tensor too."""
STAGE = (("layers.", "decoder_{}.layers."), ("proj.", "input_proj_{}."), ("norm.", "proj_norm_{}."))
"""Parts of a stage, whose number the authors count from 1."""
CLASS_TOKEN = "backbone.cls_token"
POSITIONS = "backbone.pos_embed"
"""Its first row is the class token's; the method uses neither."""
LOSS_WEIGHT = re.compile(r"decode_head\.(atm\.)?loss_decode\.criterion\.empty_weight")
"""(K + 1,) of the loss; not needed."""


def authors_name(name: str, *, shrunk: bool) -> str:
    """What the authors call the tensor that holds ours of that name; several of ours can lie in one of theirs."""
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
    """`name` with every rule applied in turn."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def pairs(own: Iterable[str], *, shrunk: bool) -> dict[str, list[str]]:
    """The authors' names of a model's tensors, each with ours that lie in it one after the other."""
    found: dict[str, list[str]] = {}
    for name in own:
        if name not in ("mean", "std"):
            found.setdefault(authors_name(name, shrunk=shrunk), []).append(name)
    return found


def own_state(state: Mapping[str, Tensor], own: Iterable[str], *, shrunk: bool) -> dict[str, Tensor]:
    """Those tensors of the authors' that a model with the names `own` takes, under our names and in our shapes."""
    converted: dict[str, Tensor] = {}
    for theirs, ours in pairs(own, shrunk=shrunk).items():
        if theirs in state:
            value = state[theirs][:, 1:] if theirs == POSITIONS else state[theirs]
            converted |= dict(zip(ours, value.chunk(len(ours)), strict=True))
    return converted


def expected_shapes(own: Mapping[str, Tensor], *, shrunk: bool) -> dict[str, Shape]:
    """Names and shapes of a whole checkpoint of the authors' for a model with the tensors `own`."""
    shapes: dict[str, Shape] = {CLASS_TOKEN: (1, 1, own[POSITIONS].shape[2])}
    for theirs, ours in pairs(own, shrunk=shrunk).items():
        first = tuple(own[ours[0]].shape)
        shapes[theirs] = (len(ours) * first[0], *first[1:])
    _, patches, width = shapes[POSITIONS]
    shapes[POSITIONS] = (1, 1 + patches, width)
    return shapes


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What can be read from a checkpoint's tensors."""

    shrunk: bool
    """Whether it has an up-sampling."""
    embed_dim: int
    """D."""
    depth: int
    patch_size: int
    """p."""
    grid: int | None
    """Patches along a side of the training crop; None: the position embedding is lost or torn."""
    num_classes: int
    """K."""
    head_dim: int
    """d."""
    num_stages: int
    """Of the decoder that reads the backbone: one for each tap."""
    head_num_layers: int
    upsampling_num_layers: int | None
    """None: there is no up-sampling."""


def read_sizes(state: Mapping[str, Tensor]) -> Sizes | None:
    """Sizes by what most tensors say, so that a lost or torn one shows against the rest; None: nothing of SegViT's."""
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
    """First sizes of the tensors whose names fit."""
    return [shape[0] for name, shape in shapes.items() if shape and re.fullmatch(pattern, name)]


def _most(values: Iterable[int]) -> int:
    """The value that comes most often."""
    return Counter(values).most_common(1)[0][0]


def _count(shapes: Iterable[str], pattern: str, *, first: int = 0) -> int:
    """How many numbered parts there are: up to the last number that has its share of tensors."""
    found = Counter(int(match[1]) for name in shapes if (match := re.match(pattern, name)))
    if not found:
        return 0
    return 1 - first + max(number for number, tensors in found.items() if 2 * tensors >= max(found.values()))
