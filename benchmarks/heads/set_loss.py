"""The loss of Mask2Former (arXiv 2112.01527), which EoMT trains with: queries are matched to the masks of each image.

Each supervised output has a matching of its own. Costs of a match and coefficients of the loss are the published ones:
2 for the class, 5 for the binary cross entropy of the mask, 5 for its dice, 0.1 for "no object". The matching compares
masks at 12,544 random points of an image, the loss at all its pixels. Ignored pixels are left out of both.

Letters: S supervised outputs, B images, Q queries, K classes, H W image, M masks of an image, P points.
"""

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from segvit.config import LossConfig
from segvit.data.spec import IGNORE_INDEX
from segvit.losses import Losses, Normalizers
from segvit.models.output import SegOutput

CLASS, MASK, DICE, NO_OBJECT = 2.0, 5.0, 5.0, 0.1
NUM_POINTS = 12_544


def set_loss(
    output: SegOutput, labels: Tensor, *, config: LossConfig, divisors: Normalizers, class_weights: Tensor | None
) -> Losses:
    """Return the terms `class`, `mask` and `dice`, each (S,), for labels (B, H, W)."""
    found = [
        _losses_of(class_logits, mask_logits, labels, output.padded_size)
        for class_logits, mask_logits in zip(output.class_logits, output.mask_logits, strict=True)
    ]
    return Losses({name: torch.stack([terms[name] for terms in found]) for name in ("class", "mask", "dice")})


def _losses_of(
    class_logits: Tensor, mask_logits: Tensor, labels: Tensor, padded_size: tuple[int, int]
) -> dict[str, Tensor]:
    """Return the terms of one supervised output: class logits (B, Q, K + 1), mask logits (B, Q, h, w)."""
    no_object = class_logits.shape[2] - 1
    targets = labels.new_full(class_logits.shape[:2], no_object)  # (B, Q)
    entropy, dice, count = mask_logits.new_zeros(()), mask_logits.new_zeros(()), 0
    for image, (own_classes, own_masks, own_labels) in enumerate(zip(class_logits, mask_logits, labels, strict=True)):
        present = own_labels.unique()
        present = present[present != IGNORE_INDEX]
        if not len(present):
            continue
        queries, which = match(own_classes.detach(), own_masks.detach(), own_labels, present, padded_size)
        targets[image, queries] = present[which]
        logits = F.interpolate(own_masks[queries][None], size=padded_size, mode="bilinear", align_corners=False)[0]
        valid = own_labels != IGNORE_INDEX
        logits = logits[:, : valid.shape[0], : valid.shape[1]][:, valid]  # (M, P)
        wanted = (own_labels[valid] == present[which][:, None]).float()
        entropy = entropy + F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(dim=1).sum()
        dice = dice + dice_loss(logits, wanted).sum()
        count += len(present)
    weights = torch.ones(no_object + 1, device=labels.device)
    weights[no_object] = NO_OBJECT
    classes = F.cross_entropy(class_logits.float().transpose(1, 2), targets, weights)
    return {"class": CLASS * classes, "mask": MASK * entropy / max(count, 1), "dice": DICE * dice / max(count, 1)}


def dice_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Return dice (M,) of masks (M, P) and 0 / 1 targets (M, P)."""
    masks = logits.sigmoid()
    return 1 - (2 * (masks * wanted).sum(dim=1) + 1) / (masks.sum(dim=1) + wanted.sum(dim=1) + 1)


@torch.no_grad()
def match(
    class_logits: Tensor, mask_logits: Tensor, labels: Tensor, present: Tensor, padded_size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Return the query and the mask (positions in `present`) of each match, (M,) both, of least cost in all.

    Args:
        class_logits: (Q, K + 1).
        mask_logits: (Q, h, w).
        labels: (H, W).
        present: classes of the masks (M,).
        padded_size: (H, W) in pixels that the masks span.
    """
    valid = (labels != IGNORE_INDEX).nonzero()  # (., 2): row, column
    points = valid[torch.randint(len(valid), (min(NUM_POINTS, len(valid)),), device=labels.device)]
    wanted = (labels[points[:, 0], points[:, 1]] == present[:, None]).float()  # (M, P)
    size = points.new_tensor([padded_size[1], padded_size[0]])
    places = 2 * (points.flip(1) + 0.5) / size - 1  # x, y in -1..1
    logits = F.grid_sample(mask_logits.float()[None], places[None, None], align_corners=False, padding_mode="border")
    logits = logits[0, :, 0]  # (Q, P)
    # Binary cross entropy of every pair: softplus(x) - x where the target is 1, softplus(x) elsewhere.
    entropy = (F.softplus(logits).sum(dim=1, keepdim=True) - logits @ wanted.T) / len(points)
    masks = logits.sigmoid()
    dice = 1 - (2 * masks @ wanted.T + 1) / (masks.sum(dim=1, keepdim=True) + wanted.sum(dim=1) + 1)
    cost = MASK * entropy + DICE * dice - CLASS * class_logits.float().softmax(dim=1)[:, present]  # (Q, M)
    queries, which = linear_sum_assignment(cost.cpu().numpy())
    return torch.as_tensor(queries, device=labels.device), torch.as_tensor(which, device=labels.device)
