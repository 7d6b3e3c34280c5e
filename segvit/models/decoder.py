"""The decoder that attention to mask and query up-sampling share (docs/method.md sections 2 and 3).

Letters: B batch, D backbone width, d head width, h w token grid, N = h * w, n queries.
"""

from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segvit.models.dropout_attention import attention


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

    def forward(self, q: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the attended values (B, n, d) of projected queries (B or 1, n, d), and projected keys (B, N, d)."""
        k, v = self.k(tokens), self.v(tokens)
        q = q.expand(tokens.shape[0], -1, -1)
        heads = [x.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for x in (q, k, v)]  # (B, heads, ., head_dim)
        attended = attention(heads[0], heads[1], heads[2], dropout=self.dropout if self.training else 0.0)
        out: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return out, k


class Similarity(Protocol):
    """Compare queries with keys: a similarity for the masks."""

    def __call__(self, q: Tensor, k: Tensor, *, num_heads: int) -> Tensor:
        """Return mask logits (B, n, N) of projected queries (B or 1, n, d) and keys (B, N, d) of that many heads."""


def similarity(q: Tensor, k: Tensor, *, num_heads: int) -> Tensor:
    """Return the mean over heads of Q_i K_i^T / sqrt(head_dim), before the softmax.

    The mean of the heads' products is the product over the whole width divided by the number of heads.
    It is in float32 also under autocast, since these are the mask logits.

    Args:
        q: projected queries (B or 1, n, d).
        k: projected keys (B, N, d).
        num_heads: heads that share the width d.

    Returns:
        (B, n, N)
    """
    head_dim = q.shape[2] // num_heads
    with torch.autocast(device_type=q.device.type, enabled=False):
        return torch.matmul(q.float() / (num_heads * head_dim**0.5), k.float().transpose(1, 2))


def head_similarities(layer: "LayerOutput", rows: Tensor, *, num_heads: int, similarity: Similarity) -> Tensor:
    """Return the similarity in every head of n queries of a layer: (B, heads, n, N).

    Args:
        layer: output of the layer.
        rows: indices of the queries.
        num_heads: heads that share the width d.
        similarity: that of one head, by `num_heads` 1; its mean over heads is that of all.
    """
    q, k = layer.q.index_select(1, rows).chunk(num_heads, dim=2), layer.k.chunk(num_heads, dim=2)
    return torch.stack([similarity(one_q, one_k, num_heads=1) for one_q, one_k in zip(q, k, strict=True)], dim=1)


class Compared(NamedTuple):
    """Queries of a layer after its self-attention, before its cross-attention: no image has changed them yet."""

    queries: Tensor
    """(B or 1, n, d)"""
    q: Tensor
    """(B or 1, n, d) projected for the cross-attention."""


class LayerOutput(NamedTuple):
    """Result of a decoder layer: the new queries, and what its cross-attention compared."""

    queries: Tensor
    """(B, n, d)"""
    q: Tensor
    """(B or 1, n, d) projected queries of the cross-attention."""
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

    def forward(self, queries: Tensor, tokens: Tensor, compared: Compared | None = None) -> LayerOutput:
        """Update queries from tokens.

        Args:
            queries: (B, n, d); or (1, n, d), the same for all images.
            tokens: (B, N, d).
            compared: `compare(queries)`, if it is at hand already (segvit/models/query_cache.py).
        """
        queries, q = compared or self.compare(queries)
        attended, k = self.cross_attn(q, tokens)
        queries = self.norm2(queries + self.dropout(attended))
        hidden = self.dropout(F.relu(self.fc1(queries)))
        queries = self.norm3(queries + self.dropout(self.fc2(hidden)))
        return LayerOutput(queries, q, k)

    def compare(self, queries: Tensor) -> Compared:
        """Compare queries (B, n, d) or (1, n, d) with each other: the part of the layer that sees no image."""
        attended, _ = self.self_attn(self.self_attn.q(queries), queries)
        queries = self.norm1(queries + self.dropout(attended))
        return Compared(queries, self.cross_attn.q(queries))


class DecoderStage(nn.Module):
    """Decoder layers of queries over one feature map.

    Args:
        in_dim: width D of the map, which is projected to `dim` and normalised. None: the map has width `dim` already
            and is used unchanged.
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

    def forward(self, queries: Tensor, feature: Tensor, compared: Compared | None = None) -> list[LayerOutput]:
        """Update queries from a map, layer by layer.

        Args:
            queries: (B or 1, n, d).
            feature: map (B, D, h, w).
            compared: of the first layer, if it is at hand already.
        """
        tokens = self.norm(self.proj(feature.flatten(2).transpose(1, 2)))  # (B, N, d)
        outputs: list[LayerOutput] = []
        for layer in self.layers:
            outputs.append(layer(queries, tokens, compared))
            queries, compared = outputs[-1].queries, None
        return outputs

    def compare(self, queries: Tensor) -> Compared:
        """Compare queries (B, n, d) or (1, n, d) with each other in the first layer."""
        first = self.layers[0]
        assert isinstance(first, DecoderLayer)
        return first.compare(queries)


def init_linears(module: nn.Module, std: float) -> None:
    """Initialise Linear layers below `module` with trunc_normal(std) and zero bias (docs/method.md section 2)."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=std)
            nn.init.zeros_(part.bias)
