"""Learned tokens on another grid than the one that they were learned on.

Letters: D width, h w token grid.
"""

import torch.nn.functional as F
from torch import Tensor


def resize_tokens(tokens: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Learned tokens (1, h * w, D) of grid `old` on grid `new`: bicubic, without antialias."""
    if old == new:
        return tokens
    maps = tokens.transpose(1, 2).unflatten(2, old).float()
    maps = F.interpolate(maps, size=new, mode="bicubic", align_corners=False)
    return maps.flatten(2).transpose(1, 2).to(tokens.dtype)
