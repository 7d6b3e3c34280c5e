"""The one definition of SegViT's semantic scores (docs/method.md section 2).

`scores[c, y, x] = sum_q softmax(class_logits)[q, c] * sigmoid(upsample(mask_logits))[q, y, x]`

With a presence head, query k is class k or nothing. Then the matrix of class probabilities is diagonal, and is kept as
its diagonal: `scores[k, y, x] = sigmoid(class_logits)[k] * sigmoid(upsample(mask_logits))[k, y, x]`.

The label map without that volume is in segvit/inference/label_map.py.

Letters: B batch, K classes, Q queries, H W image, h w token grid.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from segvit.models.output import SegOutput, is_presence


def class_probabilities(output: SegOutput) -> Tensor:
    """Return P[q, c] of the prediction: (B, Q, K), without "no object"; or its diagonal (B, K) of a presence head."""
    logits = output.class_logits[-1].float()
    if is_presence(logits):
        return logits.squeeze(-1).sigmoid()
    return logits.softmax(dim=-1)[..., :-1]


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
    """Return the semantic scores (B, K, H, W) at the size of the images, in 0..Q, float32."""
    height, width = output.image_size
    masks = F.interpolate(output.mask_logits[-1].float(), size=output.padded_size, mode="bilinear", align_corners=False)
    masks = masks[..., :height, :width].sigmoid()
    with torch.autocast(device_type=masks.device.type, enabled=False):
        flat = weighted(class_probabilities(output), masks.flatten(2))  # (B, K, H * W)
        volume: Tensor = flat.unflatten(2, (height, width))
    return volume
