"""EoMT (arXiv 2503.19108): queries join the patches in the last blocks of the ViT itself, which needs no decoder.

Masks are products of the queries and the up-sampled patches. In training, the queries of a block may be confined to the
masks that they predict before it, which are supervised too. That is annealed away, block by block, so that inference
needs no masks between the blocks. Without it, only the last masks are predicted and supervised.

Letters: S supervised outputs, B images, Q queries, K classes, D width, h w token grid, P prefix tokens, N = h * w.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from heads.backbone import StagedViT
from timm.layers import LayerNorm2d
from torch import Tensor, nn

ANNEALED = ((1 / 6, 2 / 6), (5 / 12, 7 / 12), (4 / 6, 5 / 6))
"""First and last moment of the annealing of each block, as shares of the training: the published ones for ADE20K."""
POWER = 0.9
"""Power of the polynomial by which the share of masked queries falls."""


class Upscale(nn.Module):
    """Double the resolution: transposed convolution, GELU, depthwise convolution, norm."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(dim, dim, 2, stride=2)
        self.mix = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)
        self.norm = LayerNorm2d(dim)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, D, 2 h, 2 w)"""
        out: Tensor = self.norm(self.mix(F.gelu(self.up(maps))))
        return out


class EoMT(nn.Module):
    """Backbone and decoder in one: the backbone of a SegViT whose head is `TakeMasks`.

    Args:
        stages: the ViT; queries join in its second part.
        num_classes: K.
        num_queries: Q.
        masked: confine queries to their masks in training, and anneal that away.
        steps: optimizer steps of the training, for the annealing.
        final_norm: the ViT's, behind its last block.
    """

    def __init__(
        self,
        stages: StagedViT,
        *,
        num_classes: int,
        num_queries: int = 100,
        masked: bool,
        steps: int,
        final_norm: nn.LayerNorm,
    ) -> None:
        super().__init__()
        dim = stages.embed_dim
        self.stages = stages
        self.patch_size, self.map_cell, self.num_layers = stages.patch_size, stages.map_cell, stages.num_layers
        self.masked, self.steps, self.step = masked, steps, 0
        self.norm = final_norm
        self.queries = nn.Embedding(num_queries, dim)
        self.class_head = nn.Linear(dim, num_classes + 1)
        self.mask_head = nn.Sequential(
            nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim)
        )
        num_upscale = max(1, int(math.log2(self.patch_size)) - 2)
        self.upscale = nn.Sequential(*(Upscale(dim) for _ in range(num_upscale)))  # to cells of 4 to 7 pixels

    def layer_of(self, name: str) -> int | None:
        """Return the layer of a parameter; None for the new parts."""
        own = name.removeprefix("stages.")
        return None if own == name else self.stages.layer_of(own)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return class logits (S, B, Q, K + 1), mask logits (S, B, Q, ., .), and the last map (B, D, h, w).

        S is 1, except in training with masks.
        """
        vit, first, grid = self.stages.vit, self.stages.first, self.stages.grid_of(images)
        tokens, _ = self.stages.begin(images)
        tokens = torch.cat([self.queries.weight.expand(len(tokens), -1, -1), tokens], dim=1)  # (B, Q + P + N, D)
        outputs = []
        for index in range(first, len(vit.blocks)):
            mask = None
            if self.training and self.masked:
                outputs.append(self.predict(tokens, grid))
                mask = self.attention_mask(outputs[-1][1], tokens, grid, share=self.masked_share(index - first))
            tokens = vit.blocks[index](tokens, attn_mask=mask)
        outputs.append(self.predict(tokens, grid))
        self.step += self.training
        class_logits, mask_logits = zip(*outputs, strict=True)
        last = self.stages.map_of(tokens[:, self.queries.num_embeddings :], grid)
        return [torch.stack(class_logits), torch.stack(mask_logits), last]

    def predict(self, tokens: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Predict class logits (B, Q, K + 1) and mask logits (B, Q, ., .) from tokens (B, Q + P + N, D)."""
        tokens = self.norm(tokens)
        queries, rest = tokens.tensor_split([self.queries.num_embeddings], dim=1)
        pixels = self.upscale(self.stages.map_of(rest, grid))
        masks = torch.einsum("bqd,bdhw->bqhw", self.mask_head(queries), pixels)
        return self.class_head(queries).float(), masks.float()

    def masked_share(self, block: int) -> float:
        """Return the share of the queries that are confined in a block, counted from the first with queries."""
        start, end = ANNEALED[block]
        progress = (self.step / self.steps - start) / (end - start)
        return float((1 - min(max(progress, 0.0), 1.0)) ** POWER)

    def attention_mask(self, masks: Tensor, tokens: Tensor, grid: tuple[int, int], *, share: float) -> Tensor:
        """Return (B, 1, T, T) bool: a share of the queries sees only the patches of its mask (B, Q, ., .)."""
        num_queries = self.queries.num_embeddings
        inside = F.interpolate(masks.detach(), size=grid, mode="bilinear", align_corners=False).flatten(2) > 0
        free = torch.rand(inside.shape[:2], device=masks.device) >= share
        allowed = torch.ones(len(tokens), tokens.shape[1], tokens.shape[1], dtype=torch.bool, device=masks.device)
        allowed[:, :num_queries, num_queries + self.stages.num_prefix_tokens :] = inside | free[..., None]
        return allowed[:, None]


class TakeMasks(nn.Module):
    """The head of an EoMT, whose backbone gives class and mask logits already."""

    class_bound = ()

    def forward(self, features: Sequence[Tensor], deep: bool = True) -> tuple[Tensor, Tensor]:
        """Return class logits (S, B, Q, K + 1) and mask logits (S, B, Q, ., .)."""
        start = 0 if deep else -1
        return features[0][start:], features[1][start:]

    def output_names(self, taps: Sequence[int]) -> list[str]:
        """Name the supervised outputs."""
        return [f"before block {tap}" for tap in taps]

    def sharded_modules(self) -> list[nn.Module]:
        """Return no part."""
        return []
