"""The decoder that attention to mask and query up-sampling share (docs/method.md sections 2 and 3).

Letters: B batch, D backbone width, d head width, h w token grid, N = h * w, n queries.
"""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

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
        """The attended values (B, n, d) of projected queries (B or 1, n, d), and the projected keys (B, N, d)."""
        k, v = self.k(tokens), self.v(tokens)
        q = q.expand(tokens.shape[0], -1, -1)
        heads = [x.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for x in (q, k, v)]  # (B, heads, ., head_dim)
        attended = attention(heads[0], heads[1], heads[2], dropout=self.dropout if self.training else 0.0)
        out: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return out, k


def similarity(q: Tensor, k: Tensor, *, num_heads: int) -> Tensor:
    """Mean over heads of Q_i K_i^T / sqrt(head_dim), before the softmax: (B or 1, n, d), (B, N, d) -> (B, n, N).

    The mean of the heads' products is the product over the whole width divided by the number of heads.
    In float32 also under autocast: these are the mask logits.
    """
    head_dim = q.shape[2] // num_heads
    with torch.autocast(device_type=q.device.type, enabled=False):
        return torch.matmul(q.float() / (num_heads * head_dim**0.5), k.float().transpose(1, 2))


class Prepared(NamedTuple):
    """Queries when a layer has compared them with each other, and not yet with the tokens; B or 1 of each."""

    queries: Tensor
    """(B, n, d)"""
    q: Tensor
    """(B, n, d) projected for the cross-attention."""


class LayerOutput(NamedTuple):
    """What a decoder layer gives: the new queries, and what its cross-attention compared."""

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

    def prepare(self, queries: Tensor) -> Prepared:
        """The part of the layer that no image has a say in: queries (B, n, d) among themselves."""
        attended, _ = self.self_attn(self.self_attn.q(queries), queries)
        queries = self.norm1(queries + self.dropout(attended))
        return Prepared(queries, self.cross_attn.q(queries))

    def forward(self, prepared: Prepared, tokens: Tensor) -> LayerOutput:
        """Update prepared queries (B or 1, n, d) from tokens (B, N, d)."""
        attended, k = self.cross_attn(prepared.q, tokens)
        queries = self.norm2(prepared.queries + self.dropout(attended))
        hidden = self.dropout(F.relu(self.fc1(queries)))
        queries = self.norm3(queries + self.dropout(self.fc2(hidden)))
        return LayerOutput(queries, prepared.q, k)


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

    def forward(self, queries: Tensor | Prepared, feature: Tensor) -> list[LayerOutput]:
        """Queries (B, n, d), or prepared for the first layer, and a map (B, D, h, w) -> what each layer gives."""
        tokens = self.norm(self.proj(feature.flatten(2).transpose(1, 2)))  # (B, N, d)
        outputs: list[LayerOutput] = []
        for layer in self.layers:
            assert isinstance(layer, DecoderLayer)
            prepared = queries if isinstance(queries, Prepared) else layer.prepare(queries)
            outputs.append(layer(prepared, tokens))
            queries = outputs[-1].queries
        return outputs

    def prepare(self, queries: Tensor) -> Prepared:
        """Queries (B, n, d) prepared for the first layer."""
        first = self.layers[0]
        assert isinstance(first, DecoderLayer)
        return first.prepare(queries)


class LearnedQueries(nn.Module):
    """What the first stage makes of learned queries, which are the same for every image, before it looks at one.

    In evaluation it is worked out once for a batch, and inside `folding` once for all images.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[Hashable, Prepared] | None = None

    def forward(self, queries: Tensor, stage: nn.Module, *, batch: int, key: Hashable = None) -> Prepared:
        """Queries (1, n, d) prepared for `stage`; as (B, n, d) in training, where each image has its own dropout.

        Args:
            key: what the queries depend on besides the weights.
        """
        assert isinstance(stage, DecoderStage)
        if self.training:
            return stage.prepare(queries.expand(batch, -1, -1))
        if torch.compiler.is_compiling() or self.held is None:  # a graph that looks at it is made anew when it changes
            return stage.prepare(queries)
        kind = queries.device.type
        key = (key, torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind))
        if key not in self.held:
            self.held[key] = stage.prepare(queries)
        return self.held[key]


@contextmanager
def folding(model: nn.Module) -> Iterator[None]:
    """Work out once, inside the block, what the decoders of a model make of their learned queries before any image.

    The weights must not change inside; what was worked out is dropped at its end. Blocks may lie in one another.
    """
    parts = [part for part in model.modules() if isinstance(part, LearnedQueries) and part.held is None]
    for part in parts:
        part.held = {}
    try:
        yield
    finally:
        for part in parts:
            part.held = None


def init_linears(module: nn.Module, std: float) -> None:
    """Linear layers below `module` start as trunc_normal(std) with zero bias (docs/method.md section 2)."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=std)
            nn.init.zeros_(part.bias)
