"""Query-based down-sampling (QD): one block reads all tokens and keeps every second row and column of them.

The queries and the residual of that block come from the kept tokens, keys and values from all; the weights are the
block's own (docs/method.md section 3). Odd grids keep their last row and column; prefix tokens are always kept.

Letters: B batch, D width, h w token grid, N = h * w, P prefix tokens, n = P + ceil(h / 2) * ceil(w / 2) kept tokens.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Attention
from timm.models.beit import Block as BeitBlock
from timm.models.eva import EvaBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from segvit.config import Downsampling

STRIDE = 2
"""Every second row and column of the grid is kept."""


def shrunk_grid(grid: tuple[int, int]) -> tuple[int, int]:
    """The token grid (h, w) behind QD: ceil(h / 2), ceil(w / 2)."""
    return ((grid[0] + STRIDE - 1) // STRIDE, (grid[1] + STRIDE - 1) // STRIDE)  # ONNX divides negatives towards 0


def keep(tokens: Tensor, grid: tuple[int, int], num_prefix_tokens: int) -> Tensor:
    """The prefix and the patches at [::2, ::2] of the grid: (..., P + N, D) -> (..., n, D)."""
    prefix, patches = tokens[..., :num_prefix_tokens, :], tokens[..., num_prefix_tokens:, :]
    patches = patches.unflatten(-2, grid)[..., ::STRIDE, ::STRIDE, :].flatten(-3, -2)
    return torch.cat([prefix, patches], dim=-2) if num_prefix_tokens else patches


class QueryDownsampling(nn.Module):
    """Runs one block of a ViT so that a quarter of the patches leaves it.

    Args:
        dim: width D.
        num_prefix_tokens: P.
        method: where the queries come from; see `ModelConfig.downsampling`.
    """

    def __init__(self, *, dim: int, num_prefix_tokens: int, method: Downsampling) -> None:
        super().__init__()
        self.num_prefix_tokens = num_prefix_tokens
        self.method = method
        self.conv = nn.Conv2d(dim, dim, 3, stride=STRIDE, padding=1) if method == "conv" else None

    def forward(self, block: Any, tokens: Tensor, grid: tuple[int, int], inputs: Mapping[str, Tensor]) -> Tensor:
        """Tokens (B, P + N, D) on `grid` through `block` with its positional `inputs` -> (B, n, D).

        With the method "nearest_qkv", `inputs` are those of the shrunk grid.
        """
        queries = self.queries(tokens, grid)
        if self.method == "nearest_qkv":
            shrunk: Tensor = block(queries, **inputs)
            return shrunk
        if _is_standard(block):
            attended = block.ls1(attend(block.attn, block.norm1(queries), block.norm1(tokens)))
            return _mlp_branch(block, queries + block.drop_path1(attended))
        if self.method == "conv":
            return self._attend_appended(block, tokens, queries, grid, inputs)
        if isinstance(block, (BeitBlock, EvaBlock)):
            attended = block.attn(block.norm1(tokens), **inputs)
            attended = keep(attended, grid, self.num_prefix_tokens)
            attended = attended if block.gamma_1 is None else block.gamma_1 * attended
            return _mlp_branch(block, queries + block.drop_path1(attended))
        return keep(block(tokens, **inputs), grid, self.num_prefix_tokens)

    def queries(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """The tokens that go on (B, n, D): sampled from (B, P + N, D), or convolved."""
        if self.conv is None:
            return keep(tokens, grid, self.num_prefix_tokens)
        prefix, patches = tokens[:, : self.num_prefix_tokens], tokens[:, self.num_prefix_tokens :]
        maps: Tensor = self.conv(patches.transpose(1, 2).unflatten(2, grid))
        return torch.cat([prefix, maps.flatten(2).transpose(1, 2)], dim=1)

    def _attend_appended(
        self, block: Any, tokens: Tensor, queries: Tensor, grid: tuple[int, int], inputs: Mapping[str, Tensor]
    ) -> Tensor:
        """Queries that are no tokens, in a block of any family: appended as tokens that no token looks at."""
        num_prefix, num_tokens = self.num_prefix_tokens, tokens.shape[1]
        patches = queries[:, num_prefix:]
        mask = tokens.new_zeros(1, 1, num_tokens + patches.shape[1], num_tokens + patches.shape[1])
        mask[..., num_tokens:] = float("-inf")
        inputs = dict(inputs)
        if "shared_rel_pos_bias" in inputs:
            bias = inputs["shared_rel_pos_bias"]
            bias = torch.cat([bias, keep(bias, grid, num_prefix)[:, :, num_prefix:]], dim=2)
            inputs["shared_rel_pos_bias"] = F.pad(bias, (0, patches.shape[1])) + mask
        else:
            inputs["attn_mask"] = mask
        if "rope" in inputs:
            inputs["rope"] = torch.cat([inputs["rope"], keep(inputs["rope"], grid, 0)], dim=-2)
        out: Tensor = block(torch.cat([tokens, patches], dim=1), **inputs)
        return torch.cat([out[:, :num_prefix], out[:, num_tokens:]], dim=1)


def attend(attention: Attention, queries: Tensor, tokens: Tensor) -> Tensor:
    """timm's standard attention with queries of their own: (B, n, D) over (B, N, D) -> (B, n, D).

    A query is projected once, and keys and values of its tokens only: what the method saves.
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


def _is_standard(block: Any) -> bool:
    """Whether a block is `x + ls1(attn(norm1(x)))` with the attention that `attend` knows."""
    return type(block) is Block and type(block.attn) is Attention and getattr(block.attn, "gate", None) is None


def _mlp_branch(block: Any, tokens: Tensor) -> Tensor:
    """The second half of a pre-norm block: tokens (B, n, D) plus their MLP."""
    hidden = block.mlp(block.norm2(tokens))
    if type(block) is Block:
        hidden = block.ls2(hidden)
    elif block.gamma_2 is not None:
        hidden = block.gamma_2 * hidden
    out: Tensor = tokens + block.drop_path2(hidden)
    return out
