"""The one definition of SegViT's semantic scores (docs/method.md section 2).

`scores[c, y, x] = sum_q softmax(class_logits)[q, c] * sigmoid(upsample(mask_logits))[q, y, x]`

With a presence head, query k is class k or nothing. Then the matrix of class probabilities is diagonal, and is kept as
its diagonal: `scores[k, y, x] = sigmoid(class_logits)[k] * sigmoid(upsample(mask_logits))[k, y, x]`.

The scores of classes that were added to a model count twice (`ADDED`).

The label map without that volume is in segvit/inference/label_map.py.

Letters: B batch, K classes, Q queries, H W image, h w token grid.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from segvit.models.output import SegOutput, is_presence

ADDED = 2.0
"""Factor of the scores of added classes. They are learned against all other pixels, so a score of 1/2 says "as likely
as not". The old classes were compared with each other alone, so the best one there has almost 1."""
ABSENT = -1e4
"""Class logit whose probability is exactly 0 in a softmax; also finite in half precision."""


def groups_of(output: SegOutput) -> list[SegOutput]:
    """Return the output of each group of classes alone: that of the head, and those of added classes."""
    logits = (output.class_logits, *output.added_logits)
    masks = output.mask_logits.split([each.shape[2] for each in logits], dim=2)
    weights = output.weights or (1.0,) * len(logits)
    return [
        output._replace(class_logits=classes, mask_logits=own.contiguous(), added_logits=(), weights=(weight,))
        for classes, own, weight in zip(logits, masks, weights, strict=True)
    ]


def joint_class_logits(output: SegOutput) -> Tensor:
    """Return class logits of all groups as one tensor: (S, B, Q, K + 1), or (S, B, K, 1) if all are of presence.

    A softmax of them gives the weights of `class_probabilities`, divided by the highest factor so that they are
    probabilities: a query of an added class has its own logit there, 0 for "no object", and `ABSENT` for all other
    classes.
    """
    first = output.class_logits
    if not output.added_logits:
        return first
    if output.weights and output.weights[0] < max(output.weights):
        first = _halved(first)
    added = torch.cat(output.added_logits, dim=2)
    if is_presence(first):
        return torch.cat([first, added], dim=2)
    own = torch.eye(added.shape[2], dtype=torch.bool, device=added.device)
    new = F.pad(torch.where(own, added, ABSENT), (first.shape[3] - 1, 0), value=ABSENT)
    old = torch.cat([F.pad(first[..., :-1], (0, added.shape[2]), value=ABSENT), first[..., -1:]], dim=3)
    return torch.cat([old, F.pad(new, (0, 1))], dim=2)


def _halved(logits: Tensor) -> Tensor:
    """Return class logits (..., K + 1) or (..., 1) of half the probabilities; "no object" takes the rest."""
    if is_presence(logits):
        return -F.softplus(math.log(2) - logits)  # of sigmoid(z) / 2
    rest = torch.cat([logits, logits[..., -1:]], dim=-1).logsumexp(dim=-1, keepdim=True)
    return torch.cat([logits[..., :-1], rest], dim=-1)


def class_probabilities(output: SegOutput) -> Tensor:
    """Return P[q, c] of the prediction: (B, Q, K), without "no object"; or its diagonal (B, K) of presence heads.

    Those of groups are multiplied by their factors.
    """
    if output.added_logits:
        first, *added = (class_probabilities(group) for group in groups_of(output))
        if first.ndim == 2:
            return torch.cat([first, *added], dim=1)
        below = torch.diag_embed(torch.cat(added, dim=1))
        return torch.cat([F.pad(first, (0, below.shape[2])), F.pad(below, (first.shape[2], 0))], dim=1)
    logits = output.class_logits[-1].float()
    factor = output.weights[0] if output.weights else 1.0
    if is_presence(logits):
        return logits.squeeze(-1).sigmoid() * factor
    return logits.softmax(dim=-1)[..., :-1] * factor


def weighted(probabilities: Tensor, masks: Tensor, out: Tensor | None = None) -> Tensor:
    """Return the scores (..., K, n): sums of masks weighted by class probabilities.

    Args:
        probabilities: (..., Q, K), or a diagonal (..., K), from `class_probabilities`.
        masks: (..., Q, n), after the sigmoid.
        out: tensor to write the scores to; for a diagonal it may be `masks`.
    """
    if probabilities.ndim < masks.ndim:
        return torch.mul(masks, probabilities[..., None], out=out)
    return torch.matmul(probabilities.transpose(-1, -2), masks, out=out)


def scores(output: SegOutput) -> Tensor:
    """Return the semantic scores (B, K, H, W) at the size of the images, in 0..Q, float32; of added classes in 0..2.

    Each group of classes is scored apart: vectorised functions round by the place of a number in memory. So the scores
    of a group are the same to the bit with and without the others.
    """
    if output.added_logits:
        return torch.cat([scores(group) for group in groups_of(output)], dim=1)
    height, width = output.image_size
    masks = F.interpolate(output.mask_logits[-1].float(), size=output.padded_size, mode="bilinear", align_corners=False)
    masks = masks[..., :height, :width].sigmoid()
    with torch.autocast(device_type=masks.device.type, enabled=False):
        flat = weighted(class_probabilities(output), masks.flatten(2))  # (B, K, H * W)
        volume: Tensor = flat.unflatten(2, (height, width))
    return volume
