"""Query-based up-sampling (QU): learned tokens, one per patch, gather the shrunk features (docs/method.md section 3).

Letters: B batch, D backbone width, d head width, h w token grid of the patches, N = h * w.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segvit.models.decoder import (
    DecoderLayer,
    DecoderStage,
    LayerOutput,
    head_similarities,
    init_linears,
    similarity,
)
from segvit.models.positions import resize_tokens
from segvit.models.query_cache import QueryCache


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
        self.num_heads = num_heads
        self.native_grid = native_grid
        self.tokens = nn.Parameter(torch.empty(native_grid[0] * native_grid[1], dim))
        self.query_cache = QueryCache()
        self.stages = nn.ModuleList(
            DecoderStage(in_dim=in_dim, dim=dim, num_layers=num_layers, num_heads=num_heads, dropout=dropout)
            for _ in range(num_stages)
        )
        init_linears(self, init_std)
        nn.init.normal_(self.tokens)

    def forward(self, features: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        """Turn maps (B, D, ., .) of any grids, shallow first, into one map (B, d, h, w) at `grid` (h, w)."""
        queries = resize_tokens(self.tokens[None], self.native_grid, grid)
        if self.training:  # each image has its own dropout
            queries = queries.expand(features[0].shape[0], -1, -1)
        compared = self.query_cache(self.stages[0], queries, grid)
        for stage, feature in zip(self.stages, features, strict=True):
            queries, compared = stage(queries, feature, compared)[-1].queries, None
        upsampled: Tensor = queries.transpose(1, 2).unflatten(2, grid)
        return upsampled

    def resized(self, grid: tuple[int, int]) -> dict[str, Tensor]:
        """Return the parameters learned per patch, by name, on another native grid (h, w)."""
        return {"tokens": resize_tokens(self.tokens[None], self.native_grid, grid)[0].detach()}

    def shown_layers(self) -> list[DecoderLayer]:
        """Return the last layer over each map, shallow first."""
        stages = [stage for stage in self.stages if isinstance(stage, DecoderStage)]
        return [layer for stage in stages for layer in stage.layers[-1:] if isinstance(layer, DecoderLayer)]

    def head_similarities(self, layer: LayerOutput, rows: Tensor) -> Tensor:
        """Return the similarity in each attention head of a layer for the tokens `rows`: (B, heads, n, N)."""
        return head_similarities(layer, rows, num_heads=self.num_heads, similarity=similarity)

    def sharded_modules(self) -> list[nn.Module]:
        """Return the parts that FSDP makes whole one at a time."""
        return list(self.stages)
