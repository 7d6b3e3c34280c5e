"""Images run through a model whole or in overlapping windows, many windows of many images to a batch.

    windows = Windows(side=512, stride=341)
    views = look(model, images, windows=windows)        # images (B, 3, H, W) -> one view of each

Each image gets the view that it gets alone (docs/method.md section 5).

Letters: B images, n windows of an image, K classes, Q queries, H W image, h w token grid.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from segvit.config import Blend
from segvit.inference.network import Network
from segvit.inference.tiles import View, window_matrices
from segvit.models.scores import class_probabilities

SIGMA = 1 / 8
"""Standard deviation of the weights of `gaussian`, as a share of the window's side, as in nnU-Net."""


class Windows(NamedTuple):
    """Square windows that an image is cut into."""

    side: int
    """In pixels."""
    stride: int
    """Pixels between the first rows, or the first columns, of two neighbours."""
    blend: Blend = "mean"
    """Weights of windows that overlap."""

    def corners(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        """Return the first row and column of each window of an image, row by row."""
        tops, lefts = (window_starts(length, self.side, self.stride) for length in (height, width))
        return tuple((top, left) for top in tops for left in lefts)


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Return the first pixels of the windows along a side of an image.

    There are ceil((length - window) / stride) + 1 of them, and the last is shifted inside.
    """
    if length <= window:
        return [0]
    count = -(-(length - window) // stride) + 1
    return [min(index * stride, length - window) for index in range(count)]


def window_weights(size: tuple[int, int], like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the Gaussian weights of the rows (H,) and of the columns (W,) of a window. Their product weights a pixel.

    The Gaussian is centred in the window, and its standard deviation is `SIGMA` of each side. So all weights are at
    least exp(-8) along each side: they are positive, and float32 holds their sums to its own precision.

    Args:
        size: height and width of a window in pixels.
        like: a tensor of the device.
    """
    rows, columns = (
        torch.exp(-0.5 * ((torch.arange(side, device=like.device) - (side - 1) / 2) / (SIGMA * side)) ** 2)
        for side in size
    )
    return rows, columns


def look(
    model: Network, images: Tensor, *, windows: Windows | None = None, batch_size: int = 8, flipped: bool = False
) -> list[View]:
    """Run images (B, 3, H, W) of one size through a model and return the view of each.

    Args:
        model: in evaluation mode.
        images: on the model's device.
        windows: how each image is cut. A side that is shorter than the window is one window, padded with the mean
            colour. Default: every image is one piece, and all run together.
        batch_size: number of windows that run together.
        flipped: mirror the images, left for right.
    """
    images = images.flip(3) if flipped else images
    height, width = images.shape[2], images.shape[3]
    if windows is None:
        outputs, size = [model(images, deep=False)], (height, width)
        corners: tuple[tuple[int, int], ...] = ((0, 0),)
    else:
        canvas, corners = (windows.side, windows.side), windows.corners(height, width)
        size = (min(windows.side, height), min(windows.side, width))
        pieces = [image[:, top : top + size[0], left : left + size[1]] for image in images for top, left in corners]
        batches = (pieces[start : start + batch_size] for start in range(0, len(pieces), batch_size))
        outputs = [model(torch.stack(batch), deep=False, canvas=canvas) for batch in batches]
    probabilities = torch.cat([class_probabilities(output) for output in outputs])
    logits = torch.cat([output.mask_logits[-1].float() for output in outputs])
    padded_size = outputs[0].padded_size
    by_image = zip(probabilities.split(len(corners)), logits.split(len(corners)), strict=True)
    return [
        window_view(
            *parts,
            corners,
            image_size=(height, width),
            size=size,
            padded_size=padded_size,
            flipped=flipped,
            blend="mean" if windows is None else windows.blend,
        )
        for parts in by_image
    ]


def window_view(
    probabilities: Tensor,
    logits: Tensor,
    corners: tuple[tuple[int, int], ...],
    *,
    image_size: tuple[int, int],
    size: tuple[int, int],
    padded_size: tuple[int, int],
    flipped: bool,
    blend: Blend,
) -> View:
    """Return the view of an image from the class probabilities and mask logits (n, Q, h, w) of its n windows.

    Args:
        probabilities, logits: of the windows.
        corners: first row and column of each window (n,).
        image_size: (H, W) of the image.
        size: height and width of a window.
        padded_size: height and width that the token grid of a window spans.
        flipped: the windows show the image mirrored, left for right.
        blend: weights of the windows where they overlap.
    """
    rows, columns = window_matrices(logits, size, padded_size)
    return View(
        size=image_size,
        corners=corners,
        probabilities=probabilities,
        logits=logits,
        rows=rows,
        columns=columns,
        padded_size=padded_size,
        weights=window_weights(size, logits) if blend == "gaussian" and len(corners) > 1 else None,
        flipped=flipped,
    )
