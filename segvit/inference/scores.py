"""The one definition of SegViT's semantic scores, as a volume and as a label map without it (docs/method.md section 2).

`scores[c, y, x] = sum_q softmax(class_logits)[q, c] * sigmoid(upsample(mask_logits))[q, y, x]`

Letters: B batch, K classes (and queries), H W image, h w token grid.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from segvit.models.output import SegOutput
from segvit.resize import bilinear_matrix

CHUNK_ELEMENTS = 2**22
"""Score elements held at once by `label_map`: 16 MB in float32."""


def class_probabilities(output: SegOutput) -> Tensor:
    """P[q, c] of the prediction: (B, K queries, K classes), "no object" left out after the softmax."""
    return output.class_logits[-1].float().softmax(dim=-1)[..., :-1]


def scores(output: SegOutput) -> Tensor:
    """Semantic scores (B, K, H, W) at the size of the images, in 0..K, float32."""
    height, width = output.image_size
    masks = F.interpolate(output.mask_logits[-1].float(), size=output.padded_size, mode="bilinear", align_corners=False)
    masks = masks[..., :height, :width].sigmoid()
    with torch.autocast(device_type=masks.device.type, enabled=False):
        return torch.einsum("bqc,bqyx->bcyx", class_probabilities(output), masks)


def label_map(output: SegOutput, size: tuple[int, int] | None = None) -> Tensor:
    """The class of the best score at each pixel, computed in chunks of rows: (B, H, W) int64.

    Equal to the argmax of `scores`, resized bilinear to `size` where one is given, without ever holding the
    (K, H, W) volume.

    Args:
        output: of a model.
        size: (H, W) in pixels of the wanted map. Default: the size of the images.
    """
    with torch.autocast(device_type=output.mask_logits.device.type, enabled=False):
        return _label_map(output, size or output.image_size)


def _label_map(output: SegOutput, size: tuple[int, int]) -> Tensor:
    """`label_map` in float32 whatever the surroundings."""
    (height, width), (padded_height, padded_width) = output.image_size, output.padded_size
    probabilities = class_probabilities(output)
    logits = output.mask_logits[-1].float()
    batch, num_classes, grid_height, grid_width = logits.shape
    rows = bilinear_matrix(grid_height, padded_height, logits.device)[:height]  # (H, h)
    columns = bilinear_matrix(grid_width, padded_width, logits.device)[:width]  # (W, w)
    resized = size != output.image_size
    resize = bilinear_matrix(height, size[0], logits.device) if resized else None  # (H', H)
    labels = torch.empty((batch, *size), dtype=torch.int64, device=logits.device)
    step = max(1, CHUNK_ELEMENTS // (batch * num_classes * max(size[1], width)))
    for top in range(0, size[0], step):
        wanted = slice(top, min(top + step, size[0]))
        source = wanted if resize is None else _touched(resize[wanted])
        masks = (rows[source] @ logits @ columns.T).sigmoid()
        chunk = torch.einsum("bqc,bqyx->bcyx", probabilities, masks)
        if resize is not None:
            chunk = resize[wanted, source] @ chunk
            chunk = F.interpolate(chunk, size=(chunk.shape[2], size[1]), mode="bilinear", align_corners=False)
        labels[:, wanted] = chunk.argmax(dim=1)
    return labels


def _touched(matrix: Tensor) -> slice:
    """The range of columns in which any row of `matrix` has a weight."""
    columns = (matrix != 0).any(dim=0).nonzero()
    return slice(int(columns[0]), int(columns[-1]) + 1)
