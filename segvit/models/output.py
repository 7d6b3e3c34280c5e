"""What a SegViT returns, in training and in evaluation alike.

Letters: S supervised outputs, B batch, K classes, H W image, h w token grid.
"""

from typing import NamedTuple

from torch import Tensor


class SegOutput(NamedTuple):
    """Class and mask logits of every supervised output; the last one is the prediction."""

    class_logits: Tensor
    """(S, B, K, K + 1): query k over the K classes and "no object"."""
    mask_logits: Tensor
    """(S, B, K, h, w): one mask per query on the token grid, before the sigmoid."""
    image_size: tuple[int, int]
    """(H, W) of the images that came, in pixels."""
    padded_size: tuple[int, int]
    """(H, W) that the grid of the masks spans, in pixels: the images padded on the right and at the bottom."""
