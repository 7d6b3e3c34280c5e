"""An image looked at in overlapping windows, or in one piece (docs/method.md section 5).

Letters: n windows, H W image.
"""

from dataclasses import replace

import torch
from torch import Tensor

from segvit.inference.network import Network
from segvit.inference.tiles import View, window_matrices
from segvit.models.scores import class_probabilities


def window_starts(side: int, window: int, stride: int) -> list[int]:
    """First pixels of the windows along a side: ceil((side - window) / stride) + 1 of them, the last shifted inside."""
    if side <= window:
        return [0]
    count = -(-(side - window) // stride) + 1
    return [min(index * stride, side - window) for index in range(count)]


def look_whole(model: Network, image: Tensor, *, flipped: bool = False) -> View:
    """The view of an image (3, H, W) in one piece."""
    output = model(_mirror(image, flipped)[None], deep=False)
    logits = output.mask_logits[-1].float()
    view = View.of_image(class_probabilities(output), logits, output.image_size, output.padded_size)
    return replace(view, flipped=flipped)


def look_in_windows(
    model: Network, image: Tensor, *, window: int, stride: int, batch_size: int = 8, flipped: bool = False
) -> View:
    """The view of an image (3, H, W) through windows of `window` pixels every `stride`, `batch_size` at a time.

    A side that is shorter than the window is one window, padded with the mean colour.
    """
    image = _mirror(image, flipped)
    _, height, width = image.shape
    corners = tuple(
        (top, left) for top in window_starts(height, window, stride) for left in window_starts(width, window, stride)
    )
    probabilities, logits, padded_size = [], [], (0, 0)
    for start in range(0, len(corners), batch_size):
        batch = corners[start : start + batch_size]
        windows = torch.stack([image[:, top : top + window, left : left + window] for top, left in batch])
        output = model(windows, deep=False, canvas=(window, window))
        probabilities.append(class_probabilities(output))
        logits.append(output.mask_logits[-1].float())
        padded_size = output.padded_size
    size = (min(window, height), min(window, width))
    rows, columns = window_matrices(logits[0], size, padded_size)
    return View(
        size=(height, width),
        corners=corners,
        probabilities=torch.cat(probabilities),
        logits=torch.cat(logits),
        rows=rows,
        columns=columns,
        padded_size=padded_size,
        flipped=flipped,
    )


def _mirror(image: Tensor, flipped: bool) -> Tensor:
    """The image (3, H, W), left for right where asked for."""
    return image.flip(2) if flipped else image
