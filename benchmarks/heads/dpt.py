"""A DPT head (arXiv 2103.13413): four maps become a pyramid, which convolutions fuse from coarse to fine.

The last fusion is classified, and in training the one before it too, by an auxiliary classifier of the same form.
Widths are those that Depth Anything (arXiv 2401.10891) gives a ViT-S: 48 to 384 channels of the pyramid, 64 of the
fusion. DPT's own 256 are for a ViT-B or larger. The classifiers are those of DPT's segmentation model.

Letters: B images, K classes, D width of the maps, h w token grid, C channels of the fusion.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class ResidualUnit(nn.Module):
    """Two convolutions of 3 x 3, each behind a ReLU and before a batch norm, on a residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers = []
        for _ in range(2):
            layers += [nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)]
        self.layers = nn.Sequential(*layers)

    def forward(self, maps: Tensor) -> Tensor:
        """Keep the shape (B, C, ., .)."""
        out: Tensor = maps + self.layers(maps)
        return out


class Fusion(nn.Module):
    """Add a finer level to what comes from the coarser one, and double the resolution."""

    def __init__(self, channels: int, *, coarsest: bool) -> None:
        super().__init__()
        self.skip = None if coarsest else ResidualUnit(channels)
        self.refine = ResidualUnit(channels)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, level: Tensor, coarser: Tensor | None) -> Tensor:
        """Fuse a level (B, C, h, w) with the fused coarser one, of about that size: (B, C, 2 h, 2 w)."""
        if coarser is not None and self.skip is not None:
            coarser = F.interpolate(coarser, size=level.shape[2:], mode="bilinear", align_corners=False)
            level = coarser + self.skip(level)
        refined = F.interpolate(self.refine(level), scale_factor=2, mode="bilinear", align_corners=True)
        out: Tensor = self.proj(refined)
        return out


class Pyramid(nn.Module):
    """Levels at 4, 2, 1 and 1/2 times the token grid, from four maps, shallow first."""

    def __init__(self, *, dim: int, widths: Sequence[int] = (48, 96, 192, 384), channels: int = 64) -> None:
        super().__init__()
        first, second, _, last = widths
        self.reassemble = nn.ModuleList(nn.Conv2d(dim, width, 1) for width in widths)
        self.resize = nn.ModuleList(
            [
                nn.ConvTranspose2d(first, first, 4, stride=4),
                nn.ConvTranspose2d(second, second, 2, stride=2),
                nn.Identity(),
                nn.Conv2d(last, last, 3, stride=2, padding=1),
            ]
        )
        self.level = nn.ModuleList(nn.Conv2d(width, channels, 3, padding=1, bias=False) for width in widths)
        self.fusion = nn.ModuleList(Fusion(channels, coarsest=index == 3) for index in range(4))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return the last two fusions (B, C, 4 h, 4 w) and (B, C, 8 h, 8 w) of four maps (B, D, h, w)."""
        stages = zip(features, self.reassemble, self.resize, self.level, strict=True)
        levels = [level(resize(project(maps))) for maps, project, resize, level in stages]
        fused: list[Tensor] = []
        for level, fusion in reversed(list(zip(levels, self.fusion, strict=True))):
            fused.append(fusion(level, fused[-1] if fused else None))
        return fused[-2:]


class FusionClassifier(nn.Module):
    """Convolution of 3 x 3, dropout and a classifier of 1 x 1 on one fusion."""

    def __init__(self, *, num_classes: int, source: int, channels: int = 64) -> None:
        super().__init__()
        self.source = source
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv2d(channels, num_classes, 1),
        )

    def forward(self, fusions: Sequence[Tensor]) -> Tensor:
        """Return logits (B, K, ., .) at the grid of the fusion."""
        logits: Tensor = self.layers(fusions[self.source])
        return logits
