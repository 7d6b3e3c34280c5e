"""Query-based down-sampling (QD): which tokens a block keeps, and what their queries are (docs/method.md section 3).

The block that shrinks takes queries and residual from the kept tokens, keys and values from all. Its weights are its
own. Below are the three ways to run it. Each adapter in backbone.py and families.py knows which of them its blocks
need. Odd grids keep their last row and column.

Letters: B batch, D width, h w token grid, N = h * w patches, n kept ones.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import Attention
from torch import Tensor, nn

from segvit.config import Downsampling
from segvit.models.positions import angles_at, take

STRIDE = 2
"""Every second row and column of the grid is kept."""


class Kept(NamedTuple):
    """The patches that leave the block that shrinks."""

    indices: Tensor
    """(n,) int64 positions in the grid, row by row; or (B, n), each image's own."""
    grid: tuple[int, int]
    """Rows and columns of the map that they make; (1, n) for a set that is no lattice, which an up-sampling reads."""
    queries: Tensor | None = None
    """(B, n, D) queries that are no tokens; None: the kept tokens themselves."""
    edge_logits: Tensor | None = None
    """(B, h, w): logits that an edge crosses each patch; None: nothing predicts it."""


class QueryDownsampling(nn.Module):
    """Keep every second row and column of the patches.

    Args:
        dim: width D.
        method: where the queries come from; see `ModelConfig.downsampling`.

    Attributes:
        keys_from_kept: take keys and values from the kept tokens too, not from all.
        centred: a query stands for the middle of 2 x 2 patches, not for the first of them.
    """

    def __init__(self, *, dim: int, method: Downsampling) -> None:
        super().__init__()
        self.method = method
        self.keys_from_kept = method == "nearest_qkv"
        self.centred = method == "mean_q"
        self.conv = nn.Conv2d(dim, dim, 3, stride=STRIDE, padding=1) if method == "conv" else None

    def extra_repr(self) -> str:
        """Return the method, by which a printed network differs from that of another one."""
        return f"method={self.method}"

    def forward(self, patches: Tensor, grid: tuple[int, int]) -> Kept:
        """Choose among patches (B, N, D) on a grid (h, w)."""
        queries = None
        if self.method in ("conv", "mean_q"):
            maps = patches.transpose(1, 2).unflatten(2, grid)
            queried: Tensor = mean_of_cells(maps) if self.conv is None else self.conv(maps)
            queries = queried.flatten(2).transpose(1, 2)  # (B, n, D)
        return Kept(lattice(grid, patches.device), shrunk_grid(grid), queries)


def mean_of_cells(maps: Tensor) -> Tensor:
    """Average every 2 x 2 cells of maps (B, D, h, w). The last cells of an odd grid are averaged over fewer."""
    # Padded for even grids too: a graph for any size must not depend on the parity of a grid.
    return F.avg_pool2d(F.pad(maps, (0, 1, 0, 1), mode="replicate"), STRIDE)


def shrunk_grid(grid: tuple[int, int]) -> tuple[int, int]:
    """Return the token grid (h, w) behind QD: ceil(h / 2), ceil(w / 2)."""
    return ((grid[0] + STRIDE - 1) // STRIDE, (grid[1] + STRIDE - 1) // STRIDE)  # ONNX divides negatives towards 0


def lattice(grid: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """Return the indices (n,) of every second row and column of a grid (h, w)."""
    rows, columns = (STRIDE * torch.arange(side, device=device) for side in shrunk_grid(grid))
    return (rows[:, None] * grid[1] + columns).flatten()


def keep(tokens: Tensor, indices: Tensor, num_prefix_tokens: int, dim: int = 1) -> Tensor:
    """Keep the prefix and the patches at `indices`, of P + N along a dimension: (B, P + N, D) -> (B, P + n, D)."""
    prefix, patches = tokens.tensor_split([num_prefix_tokens], dim=dim)
    patches = take(patches, indices, dim)
    if not num_prefix_tokens:
        return patches
    return torch.cat([prefix.expand(patches.shape[0], *prefix.shape[1:]), patches], dim=dim)


def attend(attention: Attention, queries: Tensor, tokens: Tensor) -> Tensor:
    """Run timm's standard attention with queries of their own: (B, n, D) over (B, N, D) -> (B, n, D).

    A query is projected once, and of the tokens only keys and values: that is what QD saves.
    """
    width = attention.num_heads * attention.head_dim
    weight, bias = attention.qkv.weight, attention.qkv.bias
    q = F.linear(queries, weight[:width], None if bias is None else bias[:width])
    k, v = F.linear(tokens, weight[width:], None if bias is None else bias[width:]).chunk(2, dim=2)
    q, k, v = (x.unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for x in (q, k, v))
    dropout = attention.attn_drop.p if attention.training else 0.0
    attended = F.scaled_dot_product_attention(attention.q_norm(q), attention.k_norm(k), v, dropout_p=dropout)
    attended = attention.norm(attended.transpose(1, 2).flatten(2))
    out: Tensor = attention.proj_drop(attention.proj(attended))
    return out


def run_gamma_block(
    block: Any, queries: Tensor, tokens: Tensor, kept: Kept, inputs: Mapping[str, Tensor], num_prefix: int
) -> Tensor:
    """Run a pre-norm block of Eva or Beit on tokens (B, P + N, D): attention on all, the MLP on the kept ones alone."""
    attended = keep(block.attn(block.norm1(tokens), **inputs), kept.indices, num_prefix)
    queries = queries + block.drop_path1(attended if block.gamma_1 is None else block.gamma_1 * attended)
    hidden = block.mlp(block.norm2(queries))
    out: Tensor = queries + block.drop_path2(hidden if block.gamma_2 is None else block.gamma_2 * hidden)
    return out


def run_any_block(block: Any, tokens: Tensor, kept: Kept, inputs: Mapping[str, Tensor], num_prefix: int) -> Tensor:
    """Run a block of any kind on tokens (B, P + N, D) and keep some.

    Queries that are no tokens are appended; no token attends to them.
    """
    if kept.queries is None:
        return keep(block(tokens, **inputs), kept.indices, num_prefix)
    indices, num_tokens, num_queries = kept.indices, tokens.shape[1], kept.queries.shape[1]
    mask = tokens.new_zeros(1, 1, num_tokens + num_queries, num_tokens + num_queries)
    mask[..., num_tokens:] = float("-inf")
    inputs = dict(inputs)
    if "shared_rel_pos_bias" in inputs:
        bias = inputs["shared_rel_pos_bias"]
        own = take(bias[:, :, num_prefix:], indices, dim=2)
        bias = torch.cat([bias.expand(len(own), -1, -1, -1), own], dim=2)
        inputs["shared_rel_pos_bias"] = F.pad(bias, (0, num_queries)) + mask
    else:
        inputs["attn_mask"] = mask
    if "rope" in inputs:
        angles = inputs["rope"]
        own = angles_at(angles, indices)
        inputs["rope"] = torch.cat([angles.expand(*own.shape[:-2], -1, -1), own], dim=-2)
    out: Tensor = block(torch.cat([tokens, kept.queries], dim=1), **inputs)
    return torch.cat([out[:, :num_prefix], out[:, num_tokens:]], dim=1)
