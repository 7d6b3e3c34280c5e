"""The decoder that attention to mask and query up-sampling share (docs/method.md sections 2 and 3).

Letters: B batch, D backbone width, d head width, h w token grid, N = h * w, n queries.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segvit.models.attention import attention


class Attention(nn.Module):
    """Multi-head attention from queries (B, n, d) over tokens (B, N, d)."""

    def __init__(self, *, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The attended values (B, n, d), and the projected queries (B, n, d) and keys (B, N, d) behind them."""
        q, k, v = self.q(queries), self.k(tokens), self.v(tokens)
        heads = [x.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for x in (q, k, v)]  # (B, heads, ., head_dim)
        attended = attention(heads[0], heads[1], heads[2], dropout=self.dropout if self.training else 0.0)
        out: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return out, q, k


def similarity(q: Tensor, k: Tensor, *, num_heads: int) -> Tensor:
    """Mean over heads of Q_i K_i^T / sqrt(head_dim), before the softmax: (B, n, d), (B, N, d) -> (B, n, N).

    The mean of the heads' products is the product over the whole width divided by the number of heads.
    In float32 also under autocast: these are the mask logits.
    """
    head_dim = q.shape[2] // num_heads
    with torch.autocast(device_type=q.device.type, enabled=False):
        return torch.matmul(q.float() / (num_heads * head_dim**0.5), k.float().transpose(1, 2))


class LayerOutput(NamedTuple):
    """What a decoder layer gives: the new queries, and what its cross-attention compared."""

    queries: Tensor
    """(B, n, d)"""
    q: Tensor
    """(B, n, d) projected queries of the cross-attention."""
    k: Tensor
    """(B, N, d) projected keys of the cross-attention."""


class DecoderLayer(nn.Module):
    """Post-norm transformer decoder layer without position encoding: self-attention, cross-attention, FFN."""

    def __init__(self, *, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = Attention(dim=dim, num_heads=num_heads, dropout=dropout)
        self.cross_attn = Attention(dim=dim, num_heads=num_heads, dropout=dropout)
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: Tensor, tokens: Tensor) -> LayerOutput:
        """Update queries (B, n, d) from tokens (B, N, d)."""
        attended, _, _ = self.self_attn(queries, queries)
        queries = self.norm1(queries + self.dropout(attended))
        attended, q, k = self.cross_attn(queries, tokens)
        queries = self.norm2(queries + self.dropout(attended))
        hidden = self.dropout(F.relu(self.fc1(queries)))
        queries = self.norm3(queries + self.dropout(self.fc2(hidden)))
        return LayerOutput(queries, q, k)


class DecoderStage(nn.Module):
    """Decoder layers of queries over one feature map.

    Args:
        in_dim: width D of the map, which is projected to `dim` and normalised; None: the map has width `dim` already
            and is taken as it comes.
        dim: width d of the queries.
        num_layers: decoder layers.
        num_heads: attention heads of a layer.
        dropout: on every branch and on the attention weights.
    """

    def __init__(self, *, in_dim: int | None, dim: int, num_layers: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.proj = nn.Identity() if in_dim is None else nn.Linear(in_dim, dim)
        self.norm = nn.Identity() if in_dim is None else nn.LayerNorm(dim)
        self.layers = nn.ModuleList(
            DecoderLayer(dim=dim, num_heads=num_heads, dropout=dropout) for _ in range(num_layers)
        )

    def forward(self, queries: Tensor, feature: Tensor) -> list[LayerOutput]:
        """Queries (B, n, d) and a map (B, D, h, w) -> what each layer gives, in order."""
        tokens = self.norm(self.proj(feature.flatten(2).transpose(1, 2)))  # (B, N, d)
        outputs: list[LayerOutput] = []
        for layer in self.layers:
            outputs.append(layer(queries, tokens))
            queries = outputs[-1].queries
        return outputs


def init_linears(module: nn.Module, std: float) -> None:
    """Linear layers below `module` start as trunc_normal(std) with zero bias (docs/method.md section 2)."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=std)
            nn.init.zeros_(part.bias)
