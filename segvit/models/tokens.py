"""Learned tokens on another grid than the one that they were learned on.

Letters: D width, h w token grid.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

CUBIC = -0.75
"""PyTorch's parameter of the cubic convolution."""


def resize_tokens(tokens: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Learned tokens (1, h * w, D) of grid `old` on grid `new`: bicubic, without antialias."""
    if torch.compiler.is_exporting():
        return _resize_by_matrices(tokens, old, new)
    # Compiled, the native grid is one of many: asking whether it is this one would make a graph for it alone.
    if not torch.compiler.is_compiling() and old == new:
        return tokens
    maps = tokens.transpose(1, 2).unflatten(2, old).float()
    maps = F.interpolate(maps, size=new, mode="bicubic", align_corners=False)
    return maps.flatten(2).transpose(1, 2).to(tokens.dtype)


def _resize_by_matrices(tokens: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """The same in operations that every runtime has: TensorRT resizes nearest and linear only.

    It asks nothing of `new`, which an exported graph does not know.
    """
    maps = tokens[0].unflatten(0, old).float()  # (h, w, D)
    maps = torch.matmul(bicubic_matrix(old[0], new[0], tokens.device), maps.flatten(1))  # (h', w * D)
    maps = torch.matmul(bicubic_matrix(old[1], new[1], tokens.device), maps.unflatten(1, (old[1], -1)))  # (h', w', D)
    return maps.flatten(0, 1)[None].to(tokens.dtype)


def bicubic_matrix(old: int, new: int, device: torch.device) -> Tensor:
    """The (new, old) float32 matrix that resizes a line of `old` values to `new`: bicubic, align_corners False."""
    places = torch.arange(new, device=device).float()
    places = (places + 0.5) * (old / new) - 0.5
    low = places.floor()
    columns = torch.arange(old, device=device).float()
    taps = [(low + offset).clamp(0, old - 1) for offset in (-1, 0, 1, 2)]  # what lies outside is the border
    weights = [_cubic((places - low - offset).abs()) for offset in (-1, 0, 1, 2)]
    parts = [weight[:, None] * (tap[:, None] == columns).float() for tap, weight in zip(taps, weights, strict=True)]
    return torch.stack(parts).sum(dim=0)


def _cubic(distance: Tensor) -> Tensor:
    """Keys' kernel at a distance of 0 to 2 values."""
    near = ((CUBIC + 2) * distance - (CUBIC + 3)) * distance * distance + 1
    far = ((CUBIC * distance - 5 * CUBIC) * distance + 8 * CUBIC) * distance - 4 * CUBIC
    return torch.where(distance <= 1, near, far)
