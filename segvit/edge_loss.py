"""The term `edge` of the loss, by which edge-aware QD learns where edges are (docs/method.md section 3; ours).

Letters: B batch, H W image, h w token grid, p patch.
"""

import torch.nn.functional as F
from torch import Tensor

from segvit.data.spec import IGNORE_INDEX


def edge_labels(labels: Tensor, grid: tuple[int, int], padded_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Find the patches that hold more than one class: two (B, h, w) bool, on an edge, and not all ignored.

    Args:
        labels: (B, H, W) int64: classes, or 255 for ignored pixels, which are no class.
        grid: (h, w).
        padded_size: (H, W) that the grid spans; pixels beyond the labels are ignored.
    """
    height, width = labels.shape[1:]
    padding = (0, padded_size[1] - width, 0, padded_size[0] - height)
    patches = F.pad(labels, padding, value=IGNORE_INDEX).unflatten(2, (grid[1], -1)).unflatten(1, (grid[0], -1))
    lowest = patches.amin(dim=(2, 4))  # of (B, h, p, w, p); an ignored pixel has the highest value
    highest = patches.masked_fill(patches == IGNORE_INDEX, -1).amax(dim=(2, 4))
    known = highest >= 0
    return known & (highest != lowest), known


def edge_loss(logits: Tensor, labels: Tensor, padded_size: tuple[int, int]) -> Tensor:
    """Return the binary cross entropy of edge logits (B, h, w) against labels (B, H, W), without coefficient.

    Patches that are all ignored are left out. On an edge, a patch has the weight negatives / positives of its image
    (both at least 1), so both kinds count the same. The loss is a mean over the patches of an image, and then over the
    images. So it does not depend on how a batch is divided.
    """
    edges, known = edge_labels(labels, (logits.shape[1], logits.shape[2]), padded_size)
    count, positives = known.sum(dim=(1, 2)), edges.sum(dim=(1, 2))  # (B,)
    weight = (count - positives).clamp(min=1) / positives.clamp(min=1)
    entropy = F.binary_cross_entropy_with_logits(
        logits.float(), edges.float(), pos_weight=weight[:, None, None], reduction="none"
    )
    return ((entropy * known).sum(dim=(1, 2)) / count.clamp(min=1)).mean()
