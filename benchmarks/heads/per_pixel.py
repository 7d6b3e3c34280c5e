"""Heads that give every pixel its class logits, with a plain cross entropy: linear, and SETR-naive (arXiv 2012.15840).

The package asks a head for queries and masks. Here query k is class k, its class probability is 1, and its mask logit
is the logarithm of the pixel's class probability. So the scores rank the classes as the head's own logits do: the
logarithm subtracts one number from all classes of a token, and interpolation keeps that.

The row "linear" is not `model.head: linear`: it has the batch norm of DINOv2's probe on one map. The loss is a mean
over the pixels of the batch, as in these papers, and not over images.

Letters: S supervised outputs, B images, K classes, D width of the maps, h w grid of the masks.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segvit.config import LossConfig
from segvit.data.spec import IGNORE_INDEX
from segvit.losses import Losses, Normalizers
from segvit.models.output import SegOutput

CERTAIN = 40.0
"""Class logit of a query's own class; the others have 0."""


def as_queries(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Turn the class logits of tokens (S, B, K, h, w) into class logits (S, B, K, K + 1) and mask logits."""
    num_outputs, num_images, num_classes = logits.shape[:3]
    certain = CERTAIN * torch.eye(num_classes, num_classes + 1, device=logits.device)
    return certain.expand(num_outputs, num_images, -1, -1), logits.float().log_softmax(dim=2)


def cross_entropy(
    output: SegOutput,
    labels: Tensor,
    *,
    config: LossConfig,
    divisors: Normalizers,
    class_weights: Tensor | None,
    auxiliary_weight: float = 1.0,
) -> Losses:
    """Return the cross entropy of every labelled pixel, a mean for each supervised output: `entropy` (S,).

    `auxiliary_weight` is the weight of every output but the last.
    """
    height, width = output.image_size
    terms = []
    for masks in output.mask_logits:
        logits = F.interpolate(masks, size=output.padded_size, mode="bilinear", align_corners=False)
        total = F.cross_entropy(
            logits[..., :height, :width], labels, class_weights, ignore_index=IGNORE_INDEX, reduction="sum"
        )
        terms.append(total / (labels != IGNORE_INDEX).sum().clamp(min=1))
    weights = labels.new_tensor([auxiliary_weight] * (len(terms) - 1) + [1.0], dtype=torch.float32)
    return Losses({"entropy": torch.stack(terms) * weights})


class PerPixelHead(nn.Module):
    """A head of SegViT from modules that turn maps into class logits; one module for each supervised output.

    Args:
        outputs: modules, each from a list of maps (B, D, h, w), shallow first, to logits (B, K, h, w). The last is the
            prediction; the others only supervise the training.
        trunk: turns the maps of the backbone into those that all outputs read. None: they read the backbone's.
    """

    class_bound = ()

    def __init__(self, *outputs: nn.Module, trunk: nn.Module | None = None) -> None:
        super().__init__()
        self.outputs = nn.ModuleList(outputs)
        self.trunk = trunk

    def forward(self, features: Sequence[Tensor], deep: bool = True) -> tuple[Tensor, Tensor]:
        """Return class logits (S, B, K, K + 1) and mask logits (S, B, K, h, w)."""
        return as_queries(self.logits(features, deep=deep))

    def logits(self, features: Sequence[Tensor], deep: bool = True) -> Tensor:
        """Return the logits (S, B, K, h, w) of the outputs, all at the grid of the last."""
        maps = features if self.trunk is None else self.trunk(features)
        found = [output(maps) for output in (self.outputs if deep else self.outputs[-1:])]
        grid = found[-1].shape[2:]
        return torch.stack([_at_grid(logits, grid) for logits in found])

    def output_names(self, taps: Sequence[int]) -> list[str]:
        """Name the supervised outputs."""
        return [f"output {number}" for number in range(1, len(self.outputs) + 1)]

    def sharded_modules(self) -> list[nn.Module]:
        """Return no part: FSDP makes the head whole at once."""
        return []


def _at_grid(logits: Tensor, grid: torch.Size) -> Tensor:
    """Resize logits (B, K, ., .) to a grid (h, w); at this grid they are returned."""
    if logits.shape[2:] == grid:
        return logits
    return F.interpolate(logits, size=grid, mode="bilinear", align_corners=False)


class Linear(nn.Module):
    """The ViT's final norm, a batch norm and one linear layer: the linear probe of DINOv2 (arXiv 2304.07193)."""

    def __init__(self, *, dim: int, num_classes: int, final_norm: nn.LayerNorm, source: int = -1) -> None:
        super().__init__()
        self.source = source
        self.final_norm = final_norm
        self.norm = nn.BatchNorm2d(dim)
        self.classifier = nn.Conv2d(dim, num_classes, 1)
        nn.init.normal_(self.classifier.weight, std=0.01)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits (B, K, h, w)."""
        normed = self.final_norm(features[self.source].movedim(1, 3)).movedim(3, 1)
        logits: Tensor = self.classifier(self.norm(normed))
        return logits


class SETRNaive(nn.Module):
    """Norm, then a layer of 256 channels and the classifier, both 1 x 1, on one map: SETR's naive up-sampling."""

    def __init__(self, *, dim: int, num_classes: int, source: int = -1, channels: int = 256) -> None:
        super().__init__()
        self.source = source
        self.norm = nn.LayerNorm(dim)
        self.layers = nn.Sequential(
            nn.Conv2d(dim, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, num_classes, 1),
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits (B, K, h, w)."""
        normed = self.norm(features[self.source].movedim(1, 3)).movedim(3, 1)
        logits: Tensor = self.layers(normed)
        return logits
