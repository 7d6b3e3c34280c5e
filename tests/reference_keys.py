"""The parameter names of the method's reference checkpoints, told in ours."""

import re

from torch import Tensor

RENAMES = (
    (r"^backbone\.patch_embed\.projection", "backbone.patch_embed.proj"),
    (r"^backbone\.layers\.(\d+)\.ln(\d)", r"backbone.blocks.\1.norm\2"),
    (r"^backbone\.layers\.(\d+)\.attn\.attn\.in_proj_(weight|bias)", r"backbone.blocks.\1.attn.qkv.\2"),
    (r"^backbone\.layers\.(\d+)\.attn\.attn\.out_proj", r"backbone.blocks.\1.attn.proj"),
    (r"^backbone\.layers\.(\d+)\.ffn\.layers\.0\.0", r"backbone.blocks.\1.mlp.fc1"),
    (r"^backbone\.layers\.(\d+)\.ffn\.layers\.1", r"backbone.blocks.\1.mlp.fc2"),
    (r"^decode_head\.q\.weight", "head.class_tokens"),
    (r"^decode_head\.class_embed", "head.classifier"),
    (r"^decode_head\.input_proj_(\d)", r"head.stages.\1.proj"),
    (r"^decode_head\.proj_norm_(\d)", r"head.stages.\1.norm"),
    (r"^decode_head\.decoder_(\d)\.layers\.(\d)\.multihead_attn", r"head.stages.\1.layers.\2.cross_attn"),
    (r"^decode_head\.decoder_(\d)\.layers\.(\d)\.self_attn\.out_proj", r"head.stages.\1.layers.\2.self_attn.proj"),
    (r"^decode_head\.decoder_(\d)\.layers\.(\d)\.linear(\d)", r"head.stages.\1.layers.\2.fc\3"),
    (r"^decode_head\.decoder_(\d)\.layers\.(\d)", r"head.stages.\1.layers.\2"),
)
UNUSED = ("backbone.cls_token", "decode_head.loss_decode.")


def rename(name: str) -> str:
    """One reference name in ours; stages count from 0 instead of 1."""
    for pattern, replacement in RENAMES:
        name, found = re.subn(pattern, replacement, name)
        if found:
            break
    return re.sub(r"^head\.stages\.(\d)", lambda match: f"head.stages.{int(match[1]) - 1}", name)


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A reference state dict in our names and shapes: class token and its position dropped, in_proj split."""
    converted = {}
    for name, value in state.items():
        if name.startswith(UNUSED):
            continue
        match = re.match(r"^(decode_head\..*\.self_attn)\.in_proj_(weight|bias)", name)
        if match:
            for part, tensor in zip("qkv", value.chunk(3), strict=True):
                converted[f"{rename(match[1] + '.x').removesuffix('.x')}.{part}.{match[2]}"] = tensor
        elif name == "backbone.pos_embed":
            converted[name] = value[:, 1:]
        else:
            converted[rename(name)] = value
    return converted
