"""The one definition of SegViT's semantic scores (docs/method.md section 2).

`scores[c, y, x] = sum_q softmax(class_logits)[q, c] * sigmoid(upsample(mask_logits))[q, y, x]`

The label map without that volume is in segvit/inference/label_map.py.

Letters: B batch, K classes, Q queries, H W image, h w token grid.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from segvit.models.output import SegOutput


def class_probabilities(output: SegOutput) -> Tensor:
    """Return P[q, c] of the prediction, (B, Q, K), without "no object" after the softmax."""
    return output.class_logits[-1].float().softmax(dim=-1)[..., :-1]


def scores(output: SegOutput) -> Tensor:
    """Return the semantic scores (B, K, H, W) at the size of the images, in 0..Q, float32."""
    height, width = output.image_size
    masks = F.interpolate(output.mask_logits[-1].float(), size=output.padded_size, mode="bilinear", align_corners=False)
    masks = masks[..., :height, :width].sigmoid()
    with torch.autocast(device_type=masks.device.type, enabled=False):
        flat: Tensor = torch.matmul(class_probabilities(output).transpose(1, 2), masks.flatten(2))  # (B, K, H * W)
        volume: Tensor = flat.unflatten(2, (height, width))
    return volume
