"""The parameter names of the method's reference checkpoints, told in ours."""

import re

from torch import Tensor

BACKBONE = (
    (r"^backbone\.patch_embed\.projection", "backbone.patch_embed.proj"),
    (r"^backbone\.layers\.(\d+)\.ln(\d)", r"backbone.blocks.\1.norm\2"),
    (r"^backbone\.layers\.(\d+)\.attn\.attn\.in_proj_(weight|bias)", r"backbone.blocks.\1.attn.qkv.\2"),
    (r"^backbone\.layers\.(\d+)\.attn\.attn\.out_proj", r"backbone.blocks.\1.attn.proj"),
    (r"^backbone\.layers\.(\d+)\.ffn\.layers\.0\.0", r"backbone.blocks.\1.mlp.fc1"),
    (r"^backbone\.layers\.(\d+)\.ffn\.layers\.1", r"backbone.blocks.\1.mlp.fc2"),
)
DECODER = (
    (r"\.class_embed\.", ".classifier."),
    (r"\.input_proj_(\d)", r".stages.\1.proj"),
    (r"\.proj_norm_(\d)", r".stages.\1.norm"),
    (r"\.decoder_(\d)\.layers", r".stages.\1.layers"),
    (r"\.multihead_attn\.", ".cross_attn."),
    (r"\.out_proj\.", ".proj."),
    (r"\.linear(\d)\.", r".fc\1."),
)
PLAIN = ((r"^decode_head\.q\.weight", "head.class_tokens"), (r"^decode_head\.", "head."))
SHRUNK = (
    (r"^decode_head\.atm\.q\.weight", "head.class_tokens"),
    (r"^decode_head\.atm\.", "head."),
    (r"^decode_head\.q\.weight", "upsampling.tokens"),
    (r"^decode_head\.", "upsampling."),
)
UNUSED = ("backbone.cls_token", "decode_head.loss_decode.", "decode_head.atm.loss_decode.")


def rename(name: str, *, shrunk: bool) -> str:
    """One reference name in ours; stages count from 0 instead of 1."""
    if name.startswith("backbone."):
        for pattern, replacement in BACKBONE:
            name = re.sub(pattern, replacement, name)
        return name
    for pattern, replacement in (*(SHRUNK if shrunk else PLAIN), *DECODER):
        name = re.sub(pattern, replacement, name)
    return re.sub(r"\.stages\.(\d)", lambda match: f".stages.{int(match[1]) - 1}", name)


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A reference state dict in our names and shapes: class token and its position dropped, in_proj split."""
    shrunk = any(name.startswith("decode_head.atm.") for name in state)
    converted = {}
    for name, value in state.items():
        if name.startswith(UNUSED):
            continue
        match = re.match(r"^(decode_head\..*\.)in_proj_(weight|bias)", name)
        if match:
            for part, tensor in zip("qkv", value.chunk(3), strict=True):
                converted[rename(f"{match[1]}{part}.{match[2]}", shrunk=shrunk)] = tensor
        elif name == "backbone.pos_embed":
            converted[name] = value[:, 1:]
        else:
            converted[rename(name, shrunk=shrunk)] = value
    return converted
