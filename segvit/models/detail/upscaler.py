"""Masks at a quarter of a patch, with boundaries from the pixels (ours; docs/method.md section 2).

    masks[k] = upsample(masks[k]) + coefficients[k] . features

The features are few, and all classes share them, also those of groups that were added to a model. Two convolutions of
stride 2 make them from the pixels, and two transposed ones from a map of tokens. The coefficients start at 0, so the
masks start unchanged.

Letters: S supervised outputs, B batch, N bands, K classes, D width of the map, C features, H W image, h w token grid.
"""

from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SCALE = 4
"""Cells of the new masks along a side of a patch."""


class MaskUpscaler(nn.Module):
    """Divide each cell of the masks into 4 x 4, and correct them by features of the pixels and the tokens.

    Args:
        num_classes: K of the head; query k of the masks is class k.
        bands: N.
        patch_size: side of a cell of the map in pixels.
        in_dim: width D of the map.
        dim: number of features C.
        added_classes: number of classes of each group that was added to the model; its masks follow those of the head.
    """

    class_bound = ("coefficients",)
    """Name of the parameter with a row per class."""
    scale = SCALE
    """Cells of the new masks along a side of an old one."""

    def __init__(
        self,
        *,
        num_classes: int,
        bands: int,
        patch_size: int,
        in_dim: int,
        dim: int = 16,
        added_classes: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        # A kernel of 4 with a padding of 1 has its centre in the middle of 2 x 2 pixels.
        self.stem: Any = nn.Sequential(
            nn.Conv2d(bands, dim, 4, stride=2, padding=1), nn.GELU(), nn.Conv2d(dim, dim, 4, stride=2, padding=1)
        )
        self.norm = nn.LayerNorm(in_dim)
        self.tokens: Any = nn.Sequential(
            nn.ConvTranspose2d(in_dim, 2 * dim, 2, stride=2), nn.GELU(), nn.ConvTranspose2d(2 * dim, dim, 2, stride=2)
        )
        self.mix = nn.Conv2d(dim, dim, 3, padding=1)
        self.coefficients = nn.Parameter(torch.zeros(num_classes, dim))
        self.added = nn.ParameterList(nn.Parameter(torch.zeros(count, dim)) for count in added_classes)

    def forward(self, mask_logits: Tensor, images: Tensor, feature: Tensor) -> Tensor:
        """Return mask logits (S, B, K, 4 h, 4 w).

        Args:
            mask_logits: (S, B, K, h, w).
            images: (B, N, H, W), normalised and padded to whole patches.
            feature: map (B, D, h, w).
        """
        fine = (SCALE * mask_logits.shape[3], SCALE * mask_logits.shape[4])
        if self.patch_size != 4 * SCALE:  # the stem divides a side by 4
            images = F.interpolate(images, size=(4 * fine[0], 4 * fine[1]), mode="bilinear", align_corners=False)
        tokens = self.norm(feature.movedim(1, 3)).movedim(3, 1)
        features = F.gelu(self.mix(F.gelu(self.stem(images) + self.tokens(tokens))))  # (B, C, 4 h, 4 w)
        if not self.added:
            return self._correct(mask_logits, self.coefficients, features)
        groups = [self.coefficients, *self.added]
        masks = mask_logits.split([len(group) for group in groups], dim=2)
        # One by one: the product of all rows would round those of the old classes in another way.
        corrected = [self._correct(own.contiguous(), group, features) for own, group in zip(masks, groups, strict=True)]
        return torch.cat(corrected, dim=2)

    def _correct(self, mask_logits: Tensor, coefficients: Tensor, features: Tensor) -> Tensor:
        """Return the mask logits (S, B, n, 4 h, 4 w) of the classes of a group, corrected by its rows (n, C)."""
        fine = (SCALE * mask_logits.shape[3], SCALE * mask_logits.shape[4])
        with torch.autocast(device_type=features.device.type, enabled=False):  # masks are in float32
            changes = torch.matmul(coefficients.float(), features.flatten(2).float())  # (B, n, 16 h w)
            masks = F.interpolate(mask_logits.float().flatten(0, 1), size=fine, mode="bilinear", align_corners=False)
            result: Tensor = masks.unflatten(0, mask_logits.shape[:2]) + changes.unflatten(2, fine)
        return result

    def regrouped(self, coefficients: Sequence[nn.Parameter]) -> Self:
        """Return an upscaler of the same features, with rows (n, C) for each group of classes. All parts are shared."""
        first, *added = coefficients
        new = type(self)(
            num_classes=len(first),
            bands=self.stem[0].in_channels,
            patch_size=self.patch_size,
            in_dim=self.tokens[0].in_channels,
            dim=first.shape[1],
        )
        new.stem, new.norm, new.tokens, new.mix = self.stem, self.norm, self.tokens, self.mix
        new.coefficients, new.added = first, nn.ParameterList(added)
        return new
