"""Attention to mask: the similarity of learned class tokens and a feature map is the mask (docs/method.md section 2).

Letters: B batch, K classes (and queries), D backbone width, d head width, h w token grid, N = h * w, n queries.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(heads[0], heads[1], heads[2], dropout_p=dropout)
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


class ATMStage(nn.Module):
    """Decoder layers over one feature map; the last layer's similarity is the stage's mask."""

    def __init__(self, *, in_dim: int, dim: int, num_layers: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.proj = nn.Linear(in_dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.layers = nn.ModuleList(
            DecoderLayer(dim=dim, num_heads=num_heads, dropout=dropout) for _ in range(num_layers)
        )

    def forward(self, queries: Tensor, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Queries (B, K, d) and a map (B, D, h, w) -> new queries (B, K, d) and mask logits (B, K, h, w)."""
        tokens = self.norm(self.proj(feature.flatten(2).transpose(1, 2)))  # (B, N, d)
        for layer in self.layers:
            queries, q, k = layer(queries, tokens)
        masks = similarity(q, k, num_heads=self.num_heads)
        return queries, masks.unflatten(2, feature.shape[2:])


class ATMHead(nn.Module):
    """The cascade of ATM stages, deepest map first, with summed masks and one shared classifier.

    Args:
        in_dim: width D of the feature maps.
        num_stages: number of feature maps.
        num_classes: K; query k is class k.
        dim: width d of the head.
        num_layers: decoder layers of a stage.
        num_heads: attention heads of a layer; must divide `dim`.
        dropout: on every branch and on the attention weights.
        init_std: deviation of the initial weights of Linear layers.
    """

    def __init__(
        self,
        *,
        in_dim: int,
        num_stages: int,
        num_classes: int,
        dim: int,
        num_layers: int = 3,
        num_heads: int,
        dropout: float = 0.1,
        init_std: float = 0.02,
    ) -> None:
        super().__init__()
        self.class_tokens = nn.Parameter(torch.empty(num_classes, dim))
        self.stages = nn.ModuleList(
            ATMStage(in_dim=in_dim, dim=dim, num_layers=num_layers, num_heads=num_heads, dropout=dropout)
            for _ in range(num_stages)
        )
        self.classifier = nn.Linear(dim, num_classes + 1)
        self.init_weights(init_std)

    def init_weights(self, std: float) -> None:
        """Linear layers trunc_normal(std) with zero bias, class tokens N(0, 1), LayerNorms 1 and 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=std)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.class_tokens)

    def forward(self, features: Sequence[Tensor], deep: bool = True) -> tuple[Tensor, Tensor]:
        """Class logits and mask logits of every supervised output.

        Args:
            features: maps (B, D, h, w), shallow first.
            deep: give the outputs of all S stages; else only the last one's (S = 1).

        Returns:
            Class logits (S, B, K, K + 1) and mask logits (S, B, K, h, w), the running sums M_1 .. M_S.
        """
        queries = self.class_tokens.expand(len(features[0]), -1, -1)
        class_logits: list[Tensor] = []
        mask_logits: list[Tensor] = []
        for stage, feature in zip(self.stages, reversed(features), strict=True):
            queries, masks = stage(queries, feature)
            class_logits.append(self.classifier(queries).float())
            mask_logits.append(mask_logits[-1] + masks if mask_logits else masks)
        start = 0 if deep else -1
        return torch.stack(class_logits[start:]), torch.stack(mask_logits[start:])
