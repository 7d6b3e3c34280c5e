"""Segmenter's mask transformer (arXiv 2105.05633, section 3.2): class tokens join the patches in two more blocks.

Letters: B images, K classes, D width of the maps, N = h * w patches.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn


class MaskTransformer(nn.Module):
    """Masks are the products of normalised patches and class tokens behind the last block."""

    def __init__(
        self, *, dim: int, num_classes: int, final_norm: nn.LayerNorm, num_layers: int = 2, head_dim: int = 64
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.norm_in = final_norm  # that of the encoder, which the maps lack
        self.proj = nn.Linear(dim, dim)
        self.class_tokens = nn.Parameter(torch.empty(1, num_classes, dim))
        self.blocks = nn.ModuleList(
            Block(dim, max(dim // head_dim, 1), mlp_ratio=4.0, qkv_bias=True) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.proj_patches = nn.Linear(dim, dim, bias=False)
        self.proj_classes = nn.Linear(dim, dim, bias=False)
        self.mask_norm = nn.LayerNorm(num_classes)
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=0.02)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        nn.init.trunc_normal_(self.class_tokens, std=0.02)
        for part in (self.proj_patches, self.proj_classes):
            nn.init.normal_(part.weight, std=dim**-0.5)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits (B, K, h, w) of the last of the maps (B, D, h, w)."""
        grid = features[-1].shape[2:]
        patches = self.proj(self.norm_in(features[-1].flatten(2).transpose(1, 2)))  # (B, N, D)
        tokens = torch.cat([patches, self.class_tokens.expand(len(patches), -1, -1)], dim=1)  # (B, N + K, D)
        for block in self.blocks:
            tokens = block(tokens)
        patches, classes = self.norm(tokens).split([patches.shape[1], self.num_classes], dim=1)
        patches = F.normalize(self.proj_patches(patches), dim=2)
        classes = F.normalize(self.proj_classes(classes), dim=2)
        masks = self.mask_norm(patches @ classes.transpose(1, 2))  # (B, N, K)
        return masks.transpose(1, 2).unflatten(2, grid)
