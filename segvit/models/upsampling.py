"""Query-based up-sampling (QU): learned tokens, one per patch, gather the shrunk features (docs/method.md section 3).

Letters: B batch, D backbone width, d head width, h w token grid of the patches, N = h * w.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segvit.models.decoder import DecoderStage, LearnedQueries, init_linears
from segvit.models.tokens import resize_tokens


class QueryUpsampling(nn.Module):
    """Decoder layers of one learned token per patch over the tapped maps, shallow first.

    Args:
        in_dim: width D of the maps.
        num_stages: number of maps.
        native_grid: patches (h, w) of the training crop: as many tokens are learned.
        dim: width d of the tokens.
        num_layers: decoder layers over each map.
        num_heads: attention heads of a layer; must divide `dim`.
        dropout: on every branch and on the attention weights.
        init_std: deviation of the initial weights of Linear layers.
    """

    def __init__(
        self,
        *,
        in_dim: int,
        num_stages: int,
        native_grid: tuple[int, int],
        dim: int,
        num_layers: int = 3,
        num_heads: int,
        dropout: float = 0.1,
        init_std: float = 0.02,
    ) -> None:
        super().__init__()
        self.native_grid = native_grid
        self.tokens = nn.Parameter(torch.empty(native_grid[0] * native_grid[1], dim))
        self.learned = LearnedQueries()
        self.stages = nn.ModuleList(
            DecoderStage(in_dim=in_dim, dim=dim, num_layers=num_layers, num_heads=num_heads, dropout=dropout)
            for _ in range(num_stages)
        )
        init_linears(self, init_std)
        nn.init.normal_(self.tokens)

    def forward(self, features: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        """Maps (B, D, ., .) of any grids, shallow first, to one map (B, d, h, w) at `grid` (h, w)."""
        tokens = resize_tokens(self.tokens[None], self.native_grid, grid)
        queries = self.learned(tokens, self.stages[0], batch=features[0].shape[0], key=grid)
        for stage, feature in zip(self.stages, features, strict=True):
            queries = stage(queries, feature)[-1].queries
        upsampled: Tensor = queries.transpose(1, 2).unflatten(2, grid)
        return upsampled
