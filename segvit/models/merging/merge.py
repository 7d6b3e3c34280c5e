"""Choose tokens that merge, merge them, and give every patch its token back (docs/merging.md).

Both merges name for each token the one that it merges into, its target; a token that stays is its own. `combine` does
the rest. No step loops over tokens or images.

Letters: B batch, N = h * w patches, n tokens without prefix, P prefix tokens, D width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from segvit.models.downsampling import keep

SIDE = 2
"""Rows and columns of a window."""


class Merged(NamedTuple):
    """Tokens that patches have merged into."""

    token_of: Tensor
    """(B, N) int64 index of the token of each patch."""
    indices: Tensor
    """(B, n) int64 patch whose position a token has, ascending."""
    sizes: Tensor
    """(B, n) float32 number of patches in a token; 0 for padding, behind the tokens of an image that has fewer."""
    weighs: bool
    """False if every token is one patch."""


def unmerged(patches: Tensor) -> Merged:
    """Return the state of patches (B, N, D) before any merge: each is its own token."""
    batch, count = patches.shape[:2]
    own = torch.arange(count, device=patches.device).expand(batch, -1)
    return Merged(token_of=own, indices=own, sizes=torch.ones_like(own, dtype=torch.float32), weighs=False)


def window_similarities(patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the mean cosine similarity of the six pairs in each 2 x 2 window: (B, N, D) -> (B, h // 2, w // 2).

    The sum s of four unit vectors has |s|^2 = 4 + twice the sum of their pairs. The last row or column of an odd grid
    is in no window.
    """
    rows, columns = grid[0] // SIDE, grid[1] // SIDE
    units = F.normalize(patches.float(), dim=2).unflatten(1, grid)
    windows = units[:, : SIDE * rows, : SIDE * columns].unflatten(2, (columns, SIDE)).unflatten(1, (rows, SIDE))
    sums: Tensor = windows.sum(dim=(2, 4))  # (B, h // 2, w // 2, D)
    return (sums.square().sum(dim=3) - 4) / 12


def window_targets(merges: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the target of every patch if the windows `merges` (B, h // 2, w // 2) merge: (B, N), the first of four."""
    height, width = grid
    y = torch.arange(height, device=merges.device)[:, None]
    x = torch.arange(width, device=merges.device)
    own, first = y * width + x, y // SIDE * SIDE * width + x // SIDE * SIDE
    inside = merges.long().repeat_interleave(SIDE, dim=1).repeat_interleave(SIDE, dim=2)
    inside = F.pad(inside, (0, width - width // SIDE * SIDE, 0, height - height // SIDE * SIDE))
    return torch.where(inside > 0, first, own).flatten(1)


def pair_similarities(tokens: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Return each even token's highest cosine similarity with an odd one, and that one's place among all tokens.

    Args:
        tokens: (B, n, D), n >= 2.
        sizes: (B, n); tokens of size 0 have similarity -inf.

    Returns:
        (B, ceil(n / 2)) and int64 (B, ceil(n / 2)).
    """
    units = F.normalize(tokens.float(), dim=2)
    products = units[:, ::2] @ units[:, 1::2].transpose(1, 2)  # (B, ceil(n / 2), n // 2)
    products = products.masked_fill((sizes[:, 1::2] == 0)[:, None], float("-inf"))
    best, place = products.max(dim=2)
    return best.masked_fill(sizes[:, ::2] == 0, float("-inf")), 2 * place + 1


def pair_targets(merges: Tensor, places: Tensor, count: int) -> Tensor:
    """Return the target of each of `count` tokens if the even tokens `merges` merge into the odd ones at `places`.

    Args:
        merges: bool (B, ceil(n / 2)).
        places: int64 (B, ceil(n / 2)).
        count: n.
    """
    own = torch.arange(count, device=merges.device)
    even = torch.where(merges, places, own[::2])
    odd = own[1::2].expand(merges.shape[0], -1)
    even, rest = even.split([count // 2, count - 2 * (count // 2)], dim=1)
    return torch.cat([torch.stack([even, odd], dim=2).flatten(1), rest], dim=1)


def combine(patches: Tensor, merged: Merged, targets: Tensor, count: int | None) -> tuple[Tensor, Merged]:
    """Merge tokens into their targets: the mean over their patches.

    Args:
        patches: tokens without prefix (B, n, D).
        merged: their state.
        targets: (B, n) target of each token; that of a target is itself.
        count: number of tokens left, the same for all images. None: it is read from `targets`, and images with fewer
            tokens than others are padded.

    Returns:
        Tokens (B, count, D) and their state.
    """
    own = torch.arange(targets.shape[1], device=targets.device)
    stays = (targets == own) & (merged.sizes > 0)
    if count is None:
        least, count = (int(number) for number in stays.sum(dim=1).aminmax())
        if least == targets.shape[1]:  # none merges in any image
            return patches, merged
    token = (stays.long().cumsum(dim=1) - 1).gather(1, targets)  # (B, n) new token of each old one
    empty = merged.sizes.new_zeros(targets.shape[0], count)
    sizes = empty.scatter_add(1, token, merged.sizes)
    places = token[:, :, None].expand_as(patches)
    sums = patches.new_zeros(*empty.shape, patches.shape[2], dtype=torch.float32)
    sums = sums.scatter_add(1, places, patches.float() * merged.sizes[:, :, None])
    means = sums / sizes.clamp(min=1)[:, :, None]
    indices = torch.zeros_like(token[:, :count]).scatter_reduce(1, token, merged.indices * stays, "amax")
    return means.to(patches.dtype), Merged(token.gather(1, merged.token_of), indices, sizes, weighs=True)


def spread(tokens: Tensor, merged: Merged, num_prefix_tokens: int) -> Tensor:
    """Give every patch the value of its token: (B, P + n, D) -> (B, P + N, D)."""
    return keep(tokens, merged.token_of, num_prefix_tokens)


def size_mask(merged: Merged, num_prefix_tokens: int, dtype: torch.dtype) -> Tensor | None:
    """Return log(size) of each token, to add to the logits of the attention: (B, 1, 1, P + n). None: all are 0.

    A token of s patches then gets the weight of s equal keys, and padding gets none.
    """
    if not merged.weighs:
        return None
    return F.pad(merged.sizes.log().to(dtype), (num_prefix_tokens, 0))[:, None, None]
