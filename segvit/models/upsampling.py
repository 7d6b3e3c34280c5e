"""Up-sampling: from the maps before and behind QD back to the grid of the patches (docs/method.md section 3).

`TapUpsampling` (ours, the default) interpolates the shrunk maps and adds up all taps, deepest first. `QueryUpsampling`
(QU, the paper's) gathers both maps by learned tokens, one per patch.

Letters: B batch, D backbone width, d head width, h w token grid of the patches, N = h * w.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segvit.errors import UserError
from segvit.models.decoder import (
    DecoderLayer,
    DecoderStage,
    LayerOutput,
    head_similarities,
    init_linears,
    similarity,
)
from segvit.models.downsampling import shrunk_grid
from segvit.models.positions import resize_tokens
from segvit.models.query_cache import QueryCache


class TapUpsampling(nn.Module):
    """Project every tapped map, interpolate what QD has shrunk, and add them up, deepest first.

    Map i is the sum of taps i to S - 1. The last map is the deepest tap alone. The ATM cascade reads them all: the
    masks of the deepest tap are supervised by themselves, and the shallow taps sharpen them.

    Args:
        in_dim: width D of the maps.
        num_stages: number of maps S.
        dim: width d of the results.
        init_std: deviation of the initial weights of Linear layers.
        centred: shrunk maps show the middles of 2 x 2 patches, not every second row and column.
    """

    def __init__(
        self, *, in_dim: int, num_stages: int, dim: int, init_std: float = 0.02, centred: bool = False
    ) -> None:
        super().__init__()
        self.dim = dim
        self.centred = centred
        self.projections = nn.ModuleList(nn.Linear(in_dim, dim) for _ in range(num_stages))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(num_stages))
        init_linears(self, init_std)

    def forward(self, features: Sequence[Tensor], grid: tuple[int, int]) -> list[Tensor]:
        """Turn maps (B, D, ., .), shallow first, into as many maps (B, d, h, w) at `grid` (h, w).

        Raises:
            UserError: a map that is neither at `grid` nor at every second row and column of it.
        """
        maps: list[Tensor] = []
        for project, norm, feature in zip(self.projections, self.norms, features, strict=True):
            tokens = norm(project(feature.flatten(2).transpose(1, 2)))  # (B, ., d)
            maps.append(interpolate(tokens.transpose(1, 2).unflatten(2, feature.shape[2:]), grid, centred=self.centred))
        for index in reversed(range(len(maps) - 1)):
            maps[index] = maps[index] + maps[index + 1]
        return maps

    def resized(self, grid: tuple[int, int]) -> dict[str, Tensor]:
        """Return the parameters learned per patch: none."""
        return {}

    def shown_layers(self) -> list[DecoderLayer]:
        """Return the layers whose attention can be shown: none."""
        return []

    def sharded_modules(self) -> list[nn.Module]:
        """Return no part: the layers are small, and whole for a pass."""
        return []


def interpolate(maps: Tensor, grid: tuple[int, int], *, centred: bool = False) -> Tensor:
    """Interpolate shrunk maps back to `grid` (h, w), bilinearly; a map at `grid` is returned.

    A kept token has the place of its own patch, so it keeps its value there, and a dropped patch gets the mean of its
    kept neighbours. The last row or column of an even grid repeats the one before it. With `centred`, a token has its
    place in the middle of 2 x 2 patches instead.

    Args:
        maps: (B, d, ceil(h / 2), ceil(w / 2)), or (B, d, h, w).
        grid: rows and columns of the patches.
        centred: see above.

    Raises:
        UserError: the maps have another grid.
    """
    rows, columns = maps.shape[2], maps.shape[3]
    if (rows, columns) == grid:
        return maps
    if (rows, columns) != shrunk_grid(grid):
        raise UserError(
            f"the up-sampling tap needs maps at {grid[0]} x {grid[1]} or at every second row and column of it, and got "
            f"{rows} x {columns}: with a down-sampling of your own, set model.upsampling to paper"
        )
    if centred:
        fine = F.interpolate(maps, size=(2 * rows, 2 * columns), mode="bilinear", align_corners=False)
    else:
        fine = F.interpolate(maps, size=(2 * rows - 1, 2 * columns - 1), mode="bilinear", align_corners=True)
        fine = F.pad(fine, (0, 1, 0, 1), mode="replicate")
    # Cut and copied for even grids too: in a graph for any size, neither sizes nor strides may depend on the parity.
    return fine[:, :, : grid[0], : grid[1]].clone(memory_format=torch.contiguous_format)


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
        self.dim, self.num_heads = dim, num_heads
        self.native_grid = native_grid
        self.tokens = nn.Parameter(torch.empty(native_grid[0] * native_grid[1], dim))
        self.query_cache = QueryCache()
        self.stages = nn.ModuleList(
            DecoderStage(in_dim=in_dim, dim=dim, num_layers=num_layers, num_heads=num_heads, dropout=dropout)
            for _ in range(num_stages)
        )
        init_linears(self, init_std)
        nn.init.normal_(self.tokens)

    def forward(self, features: Sequence[Tensor], grid: tuple[int, int]) -> list[Tensor]:
        """Turn maps (B, D, ., .) of any grids, shallow first, into one map (B, d, h, w) at `grid` (h, w)."""
        queries = resize_tokens(self.tokens[None], self.native_grid, grid)
        if self.training:  # each image has its own dropout
            queries = queries.expand(features[0].shape[0], -1, -1)
        compared = self.query_cache(self.stages[0], queries, grid)
        for stage, feature in zip(self.stages, features, strict=True):
            queries, compared = stage(queries, feature, compared)[-1].queries, None
        return [queries.transpose(1, 2).unflatten(2, grid)]

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
