"""Positions of tokens on another grid than the one that they were learned on, and of some of the tokens alone.

Learned tokens (absolute positions, the tokens of QU) are resized; rotary angles (Eva) are computed for the grid; a
relative bias (Beit) is looked up in a resized table. All take the indices of kept tokens, any set of them.

Letters: B batch, D width, h w token grid, N = h * w, n kept tokens.
"""

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.pos_embed_sincos import RotaryEmbeddingDinoV3
from torch import Tensor

CUBIC = -0.75
"""PyTorch's parameter of the cubic convolution."""


def resize_tokens(tokens: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Resize learned tokens (1, h * w, D) from grid `old` to grid `new`: bicubic, without antialias."""
    if torch.compiler.is_exporting():
        return _resize_by_matrices(tokens, old, new)
    # Compiled, the native grid is one of many: asking whether it is this one would make a graph for it alone.
    if not torch.compiler.is_compiling() and old == new:
        return tokens
    maps = tokens.transpose(1, 2).unflatten(2, old).float()
    maps = F.interpolate(maps, size=new, mode="bicubic", align_corners=False)
    return maps.flatten(2).transpose(1, 2).to(tokens.dtype)


def _resize_by_matrices(tokens: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Resize learned tokens (1, h * w, D) with operations that every runtime has; TensorRT has no bicubic resizing.

    It makes no assumption about `new`, which an exported graph does not know.
    """
    # Two products of two matrices each: OpenVINO 2026.4 fails at more ranks if the height is fixed and the width free.
    maps: Tensor = tokens[0].unflatten(0, old).float()  # (h, w, D)
    maps = torch.matmul(bicubic_matrix(old[0], new[0], tokens.device), maps.flatten(1))  # (h', w * D)
    maps = maps.unflatten(1, (old[1], -1)).transpose(0, 1)  # (w, h', D)
    maps = torch.matmul(bicubic_matrix(old[1], new[1], tokens.device), maps.flatten(1))  # (w', h' * D)
    maps = maps.unflatten(1, (new[0], -1)).transpose(0, 1)  # (h', w', D)
    return maps.flatten(0, 1)[None].to(tokens.dtype)


def bicubic_matrix(old: int, new: int, device: torch.device) -> Tensor:
    """Return the (new, old) float32 matrix that resizes a line of `old` values: bicubic, align_corners False."""
    places = torch.arange(new, device=device).float()
    places = (places + 0.5) * (old / new) - 0.5
    low = places.floor()
    columns = torch.arange(old, device=device).float()
    taps = [(low + offset).clamp(0, old - 1) for offset in (-1, 0, 1, 2)]  # beyond the border is the border's value
    behind = places - low
    # Not abs() of differences: OpenVINO 2026.4 folds abs(constant - constant) to the difference, in graphs of one size.
    weights = [_cubic(distance) for distance in (behind + 1, behind, 1 - behind, 2 - behind)]
    parts = [weight[:, None] * (tap[:, None] == columns).float() for tap, weight in zip(taps, weights, strict=True)]
    return torch.stack(parts).sum(dim=0)


def _cubic(distance: Tensor) -> Tensor:
    """Return Keys' cubic kernel at a distance of 0 to 2 values."""
    near = ((CUBIC + 2) * distance - (CUBIC + 3)) * distance * distance + 1
    far = ((CUBIC * distance - 5 * CUBIC) * distance + 8 * CUBIC) * distance - 4 * CUBIC
    return torch.where(distance <= 1, near, far)


def take(values: Tensor, indices: Tensor, dim: int) -> Tensor:
    """Return values at `indices` along a dimension: (n,), the same for all images; or (B, n), each image's own.

    For the latter, dimension 0 has size B or 1.
    """
    if indices.ndim == 1:
        return values.index_select(dim, indices)
    before, behind = values.shape[1:dim], values.shape[dim + 1 :]
    batch = indices.shape[0]  # not len(), which would fix the batch of an exported graph
    places = indices.reshape(batch, *(1 for _ in before), -1, *(1 for _ in behind))
    values = values.expand(batch, *values.shape[1:])
    return values.gather(dim, places.expand(-1, *before, -1, *behind))


def rotary_angles(rope: Any, grid: tuple[int, int]) -> Tensor:
    """Return the angles (N, .) of a rotary embedding of timm at a grid (h, w); (depth, heads, N, .) of a mixed one."""
    if not (torch.compiler.is_exporting() and _is_dinov3(rope)):
        angles: Tensor = rope.get_embed(shape=list(grid))
        return angles
    # timm turns the sides into Python numbers, which would fix an exported graph to the grid of its trace.
    device = rope.periods.device
    y, x = (2 * ((torch.arange(side, device=device).float() + 0.5) / side) - 1 for side in grid)
    places = torch.stack([y[:, None].expand(-1, x.shape[0]), x.expand(y.shape[0], -1)], dim=-1)  # (h, w, 2)
    return torch.cat(rope._get_pos_embed_from_coords(places.flatten(0, 1)), dim=-1)


def _is_dinov3(rope: Any) -> bool:
    """True if its coordinates are those of the released DINOv3 models: from -1 to 1 along each side."""
    if not isinstance(rope, RotaryEmbeddingDinoV3):
        return False
    return (rope.normalize_coords, rope.grid_offset, rope.grid_indexing) == ("separate", 0, "ij")


def angles_at(angles: Tensor, indices: Tensor | None) -> Tensor:
    """Return rotary angles (N, .) or (heads, N, .) at kept tokens.

    Returns:
        (n, .) or (heads, n, .) for indices (n,); (B, heads or 1, n, .) for indices (B, n).
    """
    if indices is None:
        return angles
    if indices.ndim == 2:
        angles = angles[(None,) * (4 - angles.ndim)]  # (1, heads or 1, N, .)
    return take(angles, indices, dim=angles.ndim - 2)


def relative_bias(table: Tensor, old: tuple[int, int], new: tuple[int, int], indices: Tensor | None = None) -> Tensor:
    """Return BEiT's relative position bias (1, heads, 1 + N, 1 + N) at grid `new` from a table learned at grid `old`.

    The table holds one row per offset (dy, dx), ((2h - 1) * (2w - 1), heads), then three rows for the class token:
    class to patch, patch to class, class to class. Offsets are resized bicubic without antialias.

    Args:
        table: as above.
        old: grid (h, w) that it was learned at.
        new: grid (h, w) of the tokens.
        indices: kept tokens (n,) or (B, n), for a bias (1 or B, heads, 1 + n, 1 + n) of theirs.
    """
    offsets, special = table[:-3], table[-3:]
    height, width = new
    offsets = resize_tokens(offsets[None], (2 * old[0] - 1, 2 * old[1] - 1), (2 * height - 1, 2 * width - 1))[0]
    y = torch.arange(height, device=table.device)[:, None].expand(-1, width).flatten()  # (N,)
    x = torch.arange(width, device=table.device).expand(height, -1).flatten()
    if indices is not None:
        y, x = y[indices], x[indices]
    y, x = (place if place.ndim == 2 else place[None] for place in (y, x))  # (1 or B, n)
    rows = y[:, :, None] - y[:, None] + height - 1
    columns = x[:, :, None] - x[:, None] + width - 1
    patches = offsets[rows * (2 * width - 1) + columns]  # (1 or B, n, n, heads)
    batch, count = y.shape
    top = torch.cat([special[2].expand(batch, 1, 1, -1), special[0].expand(batch, 1, count, -1)], dim=2)
    left = special[1].expand(batch, count, 1, -1)
    bias = torch.cat([top, torch.cat([left, patches], dim=2)], dim=1)
    return bias.permute(0, 3, 1, 2)
