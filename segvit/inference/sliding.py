"""Scores of an image larger than the training crop: overlapping windows, averaged (docs/method.md section 5).

Letters: K classes, H W image, h w window.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from segvit.inference.scores import scores
from segvit.models.segvit import SegViT


def window_starts(side: int, window: int, stride: int) -> list[int]:
    """First pixels of the windows along a side: ceil((side - window) / stride) + 1 of them, the last shifted inside."""
    if side <= window:
        return [0]
    count = -(-(side - window) // stride) + 1
    return [min(index * stride, side - window) for index in range(count)]


def sliding_scores(model: SegViT, image: Tensor, *, window: int, stride: int, batch_size: int = 8) -> Tensor:
    """Scores (K, H, W) of one image (3, H, W): windows of `window` pixels every `stride`, averaged where they overlap.

    A side that is shorter than the window is one window, padded with the mean colour and cropped again.
    """
    _, height, width = image.shape
    corners = [
        (top, left) for top in window_starts(height, window, stride) for left in window_starts(width, window, stride)
    ]
    total = torch.zeros(model.num_classes, height, width, device=image.device)
    count = torch.zeros(height, width, device=image.device)
    for start in range(0, len(corners), batch_size):
        batch = corners[start : start + batch_size]
        windows = torch.stack([image[:, top : top + window, left : left + window] for top, left in batch])
        windows = _extend(model, windows, window)
        for (top, left), part in zip(batch, scores(model(windows, deep=False)), strict=True):
            area = (slice(top, top + window), slice(left, left + window))
            piece = total[:, *area]
            piece += part[:, : piece.shape[1], : piece.shape[2]]
            count[area] += 1
    return total.div_(count)


def _extend(model: SegViT, windows: Tensor, window: int) -> Tensor:
    """Windows (B, 3, h, w) grown to the full side on the right and at the bottom, with what normalises to zero."""
    bottom, right = window - windows.shape[2], window - windows.shape[3]
    if bottom <= 0 and right <= 0:
        return windows
    if windows.dtype == torch.uint8:
        windows = windows.float() / 255
    mean = model.mean[:, None, None]
    return F.pad(windows - mean, (0, max(right, 0), 0, max(bottom, 0))) + mean
