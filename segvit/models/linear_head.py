"""The linear head: the baseline that attention to mask is compared with, and a probe of a backbone.

Every pixel is classified alone, by one linear layer on the normalised maps. Its softmax p over the classes fits the
output of every other model: query k is class k with certainty, and its mask logit is log p_k. The logarithm takes one
number off all logits of a token, and interpolation keeps that. So the scores, sigmoid(log p_k) = p_k / (1 + p_k) at a
token, rank the classes of every pixel as up-sampled logits do. Train it with `segvit.losses.pixel_criterion`.

Letters: B batch, K classes, D width of the maps, h w token grid.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segvit.models.decoder import init_linears

CERTAIN = 20.0
"""Class logit of query k for class k; the others have 0."""


class LinearHead(nn.Module):
    """LayerNorm of each map, all maps side by side at the grid of the last, dropout, one linear layer.

    Args:
        in_dim: width D of the maps.
        num_maps: number of maps.
        num_classes: K.
        dropout: on the input of the linear layer.
        init_std: deviation of its initial weights.
    """

    class_bound = ("classifier.weight", "classifier.bias")
    """Names of the parameters with a row per class."""

    def __init__(
        self, *, in_dim: int, num_maps: int, num_classes: int, dropout: float = 0.1, init_std: float = 0.02
    ) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(in_dim) for _ in range(num_maps))
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(num_maps * in_dim, num_classes)
        init_linears(self, init_std)

    def forward(self, features: Sequence[Tensor], deep: bool = True) -> tuple[Tensor, Tensor]:
        """Return class logits and mask logits of the one output.

        Args:
            features: maps (B, D, h, w), shallow first.
            deep: without effect, since there is one output.

        Returns:
            Class logits (1, B, K, K + 1) and mask logits (1, B, K, h, w), the logarithm of the softmax.
        """
        rows, columns = features[-1].shape[2:]
        parts = []
        for norm, feature in zip(self.norms, features, strict=True):
            part = norm(feature.movedim(1, 3)).movedim(3, 1)  # (B, D, h, w)
            if feature.shape[2:] != (rows, columns):
                part = F.interpolate(part, size=(rows, columns), mode="bilinear", align_corners=False)
            parts.append(part.movedim(1, 3))
        logits = self.classifier(self.dropout(torch.cat(parts, dim=3))).movedim(3, 1).float()  # (B, K, h, w)
        masks = logits.log_softmax(dim=1)
        num_classes = self.classifier.out_features
        certain = CERTAIN * torch.eye(num_classes, num_classes + 1, device=masks.device)
        return certain.expand(1, masks.shape[0], -1, -1), masks[None]

    def output_names(self, taps: Sequence[int]) -> tuple[str, ...]:
        """Name the one output."""
        return ("linear",)

    def sharded_modules(self) -> list[nn.Module]:
        """Return no part: the linear layer is whole for a pass."""
        return []
