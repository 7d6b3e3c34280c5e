"""Attention to mask: the similarity of learned class tokens and a feature map is the mask (docs/method.md section 2).

Letters: B batch, K classes, as many queries (Q = K), D width of the maps, d head width, h w token grid, S supervised
outputs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segvit.models.decoder import (
    DecoderLayer,
    DecoderStage,
    LayerOutput,
    Similarity,
    head_similarities,
    init_linears,
    similarity,
)
from segvit.models.query_cache import QueryCache


class ATMHead(nn.Module):
    """Stages of attention to mask, deepest map first, with one shared classifier.

    A stage gives the mask of its last layer, and the masks of the stages are summed; with `every_layer`, each layer of
    a stage gives a mask of its own (docs/method.md section 3).

    Args:
        in_dim: width D of the feature maps. None: they already have width `dim` and are not projected.
        num_stages: number of feature maps.
        num_classes: K; query k is class k.
        dim: width d of the head.
        num_layers: decoder layers of a stage.
        num_heads: attention heads of a layer; must divide `dim`.
        every_layer: supervise every layer of a stage, not its last one alone.
        presence: decide for each query whether its own class is present, instead of which of all classes it is.
        dropout: on every branch and on the attention weights.
        init_std: deviation of the initial weights of Linear layers.
        similarity: compares queries with keys; it is the mask. The mean over heads must be that of all.
    """

    def __init__(
        self,
        *,
        in_dim: int | None,
        num_stages: int,
        num_classes: int,
        dim: int,
        num_layers: int = 3,
        num_heads: int,
        every_layer: bool = False,
        presence: bool = False,
        dropout: float = 0.1,
        init_std: float = 0.02,
        similarity: Similarity = similarity,
    ) -> None:
        super().__init__()
        self.dim, self.num_heads = dim, num_heads
        self.every_layer = every_layer
        self.presence = presence
        self.similarity = similarity
        self.class_tokens = nn.Parameter(torch.empty(num_classes, dim))
        self.query_cache = QueryCache()
        self.stages = nn.ModuleList(
            DecoderStage(in_dim=in_dim, dim=dim, num_layers=num_layers, num_heads=num_heads, dropout=dropout)
            for _ in range(num_stages)
        )
        self.classifier = nn.Linear(dim, 1 if presence else num_classes + 1)
        init_linears(self, init_std)
        nn.init.normal_(self.class_tokens)

    def forward(self, features: Sequence[Tensor], deep: bool = True) -> tuple[Tensor, Tensor]:
        """Return class logits and mask logits of every supervised output.

        Args:
            features: maps (B, D, h, w), shallow first.
            deep: return all S supervised outputs; else only the last one (S = 1).

        Returns:
            Class logits (S, B, K, K + 1), or (S, B, K, 1) of a presence head; and mask logits (S, B, K, h, w): the
            running sums over the stages.
        """
        queries = self.class_tokens[None]  # the same for all images; in training each has its own dropout
        if self.training:
            queries = queries.expand(features[0].shape[0], -1, -1)
        compared = self.query_cache(self.stages[0], queries)
        supervised: list[Tensor] = []
        mask_logits: list[Tensor] = []
        for stage, feature in zip(self.stages, reversed(features), strict=True):
            layers = stage(queries, feature, compared)
            queries, compared = layers[-1].queries, None
            before = mask_logits[-1] if mask_logits else None
            for layer in layers if self.every_layer and deep else layers[-1:]:
                masks = self.similarity(layer.q, layer.k, num_heads=self.num_heads).unflatten(2, feature.shape[2:])
                mask_logits.append(masks if before is None else before + masks)
                supervised.append(layer.queries)
        start = 0 if deep else -1
        class_logits = [self.classifier(queries).float() for queries in supervised[start:]]
        return torch.stack(class_logits), torch.stack(mask_logits[start:])

    @property
    def class_bound(self) -> tuple[str, ...]:
        """Names of the parameters with a row per class; a further row is "no object"."""
        return ("class_tokens",) if self.presence else ("class_tokens", "classifier.weight", "classifier.bias")

    def output_names(self, taps: Sequence[int]) -> tuple[str, ...]:
        """Name the S supervised outputs, of maps of the blocks `taps`, shallow first."""
        if self.every_layer:
            return tuple(f"layer {index + 1}" for index in range(len(self.shown_layers())))
        return tuple(f"stage {index + 1}, block {tap}" for index, tap in enumerate(reversed(taps)))

    def shown_layers(self) -> list[DecoderLayer]:
        """Return the layers that give a mask, one per supervised output."""
        return [layer for stage in self.stages for layer in _layers(stage)[0 if self.every_layer else -1 :]]

    def head_similarities(self, layer: LayerOutput, rows: Tensor) -> Tensor:
        """Return the similarity in each attention head of a layer for the classes `rows`: (B, heads, n, N)."""
        return head_similarities(layer, rows, num_heads=self.num_heads, similarity=self.similarity)

    def sharded_modules(self) -> list[nn.Module]:
        """Return the parts that FSDP makes whole one at a time."""
        return list(self.stages)


def _layers(stage: nn.Module) -> list[DecoderLayer]:
    """Return the layers of a stage."""
    assert isinstance(stage, DecoderStage)
    return [layer for layer in stage.layers if isinstance(layer, DecoderLayer)]
