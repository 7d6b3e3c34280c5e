"""Token merging behind two blocks of a backbone, by a threshold or by fixed shares (docs/merging.md).

Letters: B batch, N = h * w patches, P prefix tokens, n other tokens, D width.
"""

from typing import Any

import torch
from torch import Tensor, nn

from segvit.models.merging.merge import (
    SIDE,
    Merged,
    combine,
    pair_similarities,
    pair_targets,
    unmerged,
    window_similarities,
    window_targets,
)

PARTS = 1000
"""Shares are rounded to this many parts, so that a graph for any size can count by whole numbers."""


class TokenMerging(nn.Module):
    """Merge 2 x 2 windows behind an early block, and pairs of tokens anywhere behind a middle one. No parameters.

    Args:
        at: the two blocks, from 0.
        threshold: cosine similarity above which tokens merge; the number depends on the image.
        shares: of the windows, and of the pairs, that merge; the most similar first. The number depends on the size of
            the image alone. It is used if `threshold` is None.
    """

    def __init__(
        self, *, at: tuple[int, int], threshold: float | None = None, shares: tuple[float, float] = (0.0, 0.0)
    ) -> None:
        super().__init__()
        self.at = at
        self.threshold = threshold
        self.shares = shares

    def extra_repr(self) -> str:
        """Return the settings, by which a printed network differs from that of another one."""
        return f"at={self.at}, " + (
            f"shares={self.shares}" if self.threshold is None else f"threshold={self.threshold}"
        )

    def forward(
        self,
        tokens: Tensor,
        merged: Merged | None,
        grid: tuple[int, int],
        *,
        block: int,
        num_prefix_tokens: int,
    ) -> tuple[Tensor, Merged]:
        """Merge the tokens that leave a block; the prefix stays.

        Args:
            tokens: (B, P + N, D), or (B, P + n, D) behind the first merge.
            merged: state of the first merge.
            grid: (h, w) of all patches.
            block: one of the two blocks.
            num_prefix_tokens: P.

        Returns:
            The tokens that are left, (B, P + n, D), and their state.
        """
        prefix, patches = tokens.tensor_split([num_prefix_tokens], dim=1)
        merged = unmerged(patches) if merged is None else merged
        count = patches.shape[1]
        if block == self.at[0]:
            similarities = window_similarities(patches, grid)
            merges, fewer = self.choose(similarities.flatten(1), self.shares[0])
            targets = window_targets(merges.unflatten(1, similarities.shape[1:]), grid)
            fewer *= SIDE * SIDE - 1
        elif count > 1:
            similarities, places = pair_similarities(patches, merged.sizes)
            merges, fewer = self.choose(similarities, self.shares[1])
            targets = pair_targets(merges, places, count)
        else:  # nothing to merge with
            return tokens, merged
        patches, merged = combine(patches, merged, targets, count - fewer if self.threshold is None else None)
        return torch.cat([prefix, patches], dim=1), merged

    def choose(self, similarities: Tensor, share: float) -> tuple[Tensor, int]:
        """Return which of m candidates merge, bool (B, m), and how many with fixed shares.

        Args:
            similarities: (B, m).
            share: of the candidates, with fixed shares.
        """
        if self.threshold is not None:
            return similarities > self.threshold, 0
        count = similarities.shape[1] * round(PARTS * share) // PARTS
        best = similarities.topk(count, dim=1).indices
        return torch.zeros_like(similarities, dtype=torch.bool).scatter(1, best, True), count


def merges_by_threshold(backbone: Any) -> bool:
    """True if the number of tokens that a backbone merges depends on the image."""
    merging = getattr(backbone, "merging", None)
    return merging is not None and merging.threshold is not None
