"""The one definition of SegViT's semantic scores, as a volume and as a label map without it (docs/method.md section 2).

`scores[c, y, x] = sum_q softmax(class_logits)[q, c] * sigmoid(upsample(mask_logits))[q, y, x]`

Letters: B batch, K classes (and queries), H W image, h w token grid.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from segvit.inference.label_map import compose_labels
from segvit.inference.tiles import View
from segvit.models.output import SegOutput


def class_probabilities(output: SegOutput) -> Tensor:
    """P[q, c] of the prediction: (B, K queries, K classes), "no object" left out after the softmax."""
    return output.class_logits[-1].float().softmax(dim=-1)[..., :-1]


def scores(output: SegOutput) -> Tensor:
    """Semantic scores (B, K, H, W) at the size of the images, in 0..K, float32."""
    height, width = output.image_size
    masks = F.interpolate(output.mask_logits[-1].float(), size=output.padded_size, mode="bilinear", align_corners=False)
    masks = masks[..., :height, :width].sigmoid()
    with torch.autocast(device_type=masks.device.type, enabled=False):
        flat: Tensor = torch.matmul(class_probabilities(output).transpose(1, 2), masks.flatten(2))  # (B, K, H * W)
        volume: Tensor = flat.unflatten(2, (height, width))
    return volume


def label_map(output: SegOutput, size: tuple[int, int] | None = None) -> Tensor:
    """The class of the best score at each pixel: (B, H, W) int64.

    Equal to the argmax of `scores`, resized bilinear to `size` where one is given, without ever holding the
    (K, H, W) volume, and mostly without working it out (segvit/inference/bounds.py).

    Args:
        output: of a model.
        size: (H, W) in pixels of the wanted map. Default: the size of the images.
    """
    size = size or output.image_size
    return torch.stack([compose_labels([view], size) for view in image_views(output)])


def image_views(output: SegOutput) -> list[View]:
    """Each image of a batch as a view, to be composed in tiles."""
    probabilities, logits = class_probabilities(output), output.mask_logits[-1].float()
    return [
        View.of_image(one_probabilities[None], one_logits[None], output.image_size, output.padded_size)
        for one_probabilities, one_logits in zip(probabilities, logits, strict=True)
    ]
