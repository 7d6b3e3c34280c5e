"""Where tokens are, for families that tell it to every block: rotary angles (Eva), a relative bias (Beit).

Letters: h w token grid, N = h * w.
"""

from typing import Any

import torch
from timm.layers.pos_embed_sincos import RotaryEmbeddingDinoV3
from torch import Tensor, nn

from segvit.models.tokens import resize_tokens


def rotary_angles(rope: Any, grid: tuple[int, int]) -> Tensor:
    """What a rotary embedding of timm gives at a grid (h, w)."""
    if not (torch.compiler.is_exporting() and _is_dinov3(rope)):
        angles: Tensor = rope.get_embed(shape=list(grid))
        return angles
    # timm makes plain numbers of the sides, which would tie an exported graph to the grid that it was traced at.
    device = rope.periods.device
    y, x = (2 * ((torch.arange(side, device=device).float() + 0.5) / side) - 1 for side in grid)
    places = torch.stack([y[:, None].expand(-1, x.shape[0]), x.expand(y.shape[0], -1)], dim=-1)  # (h, w, 2)
    return torch.cat(rope._get_pos_embed_from_coords(places.flatten(0, 1)), dim=-1)


def _is_dinov3(rope: Any) -> bool:
    """Whether it counts places as the released DINOv3 models do: from -1 to 1 along each side."""
    if not isinstance(rope, RotaryEmbeddingDinoV3):
        return False
    return (rope.normalize_coords, rope.grid_offset, rope.grid_indexing) == ("separate", 0, "ij")


def relative_bias(table: Tensor, old: tuple[int, int], new: tuple[int, int], stride: int = 1) -> Tensor:
    """BEiT's relative position bias (1, heads, 1 + N, 1 + N) at grid `new` from a table learned at grid `old`.

    With a stride, it is that of the N tokens in every `stride`-th row and column of the grid.

    The table holds one row per offset (dy, dx), ((2h - 1) * (2w - 1), heads), then three rows for the class token:
    class to patch, patch to class, class to class. Offsets are resized bicubic without antialias.
    """
    offsets, special = table[:-3], table[-3:]
    old_span, (height, width) = (2 * old[0] - 1, 2 * old[1] - 1), new
    offsets = resize_tokens(offsets[None], old_span, (2 * height - 1, 2 * width - 1))[0]
    rows = torch.arange(0, height, stride, device=table.device)
    columns = torch.arange(0, width, stride, device=table.device)
    y = rows[:, None].expand(-1, columns.shape[0]).flatten()  # (N,)
    x = columns.expand(rows.shape[0], -1).flatten()
    index = (y[:, None] - y + height - 1) * (2 * width - 1) + (x[:, None] - x + width - 1)
    patches = offsets[index]  # (N, N, heads)
    num_patches = y.shape[0]
    top = torch.cat([special[2].expand(1, 1, -1), special[0].expand(1, num_patches, -1)], dim=1)
    left = special[1].expand(num_patches, 1, -1)
    bias = torch.cat([top, torch.cat([left, patches], dim=1)], dim=0)
    return bias.permute(2, 0, 1)[None]


def take_relative_bias(vit: Any, blocks: Any) -> nn.ParameterList | None:
    """Move BEiT's bias tables out of its attention, which knows one grid only; its blocks then take a bias as input."""
    if vit.rel_pos_bias is not None:
        return nn.ParameterList([vit.rel_pos_bias.relative_position_bias_table])
    tables = [block.attn.relative_position_bias_table for block in blocks]
    for block in blocks:
        block.attn.relative_position_bias_table = None
    return nn.ParameterList(tables) if tables[0] is not None else None
