"""Many images of one size through a model together: the labels of each are those that it has alone.

    together = frames_together(model, config, (480, 640))
    labels = frames_labels(model, images, config)        # images uint8 (B, 3, H, W), B <= together

A test protocol cuts each image into windows; those of several images fill one batch. What is added to
segvit/inference/protocol.py is that alone.

Letters: B images, K classes, H W image, n windows of an image, h w token grid.
"""

import torch
from torch import Tensor

from segvit.config import EvalConfig
from segvit.data.transforms import resize
from segvit.inference.label_map import compose_labels
from segvit.inference.network import Network
from segvit.inference.protocol import protocol_size, resolve_protocol
from segvit.inference.sliding import window_starts
from segvit.inference.tiles import View, window_matrices
from segvit.models.scores import class_probabilities
from segvit.models.segvit import evaluating


def frames_together(model: Network, config: EvalConfig, size: tuple[int, int]) -> int:
    """How many images of a size (H, W) in pixels fill a batch of `config.batch_size` windows, or whole images."""
    protocol = resolve_protocol(model, config)
    most = 1
    for scale in config.scales:
        most = max(most, len(_corners(protocol, *protocol_size(*size, config, scale))))
    return max(1, config.batch_size // most)


@torch.no_grad()
def frames_labels(model: Network, images: Tensor, config: EvalConfig) -> list[Tensor]:
    """Class of every pixel (H, W) int64 of each of the images uint8 (B, 3, H, W), under the protocol."""
    protocol = resolve_protocol(model, config)
    size = (images.shape[2], images.shape[3])
    views: list[list[View]] = [[] for _ in images]
    with evaluating(model):
        for scale in config.scales:
            resized = torch.stack([resize(image, protocol_size(*size, config, scale)) for image in images])
            resized = resized.to(model.mean.device)
            for flipped in (False, True) if config.flip else (False,):
                looks = _look(model, resized, protocol, batch_size=config.batch_size, flipped=flipped)
                for view, own in zip(looks, views, strict=True):
                    own.append(view)
    return [compose_labels(own, size) for own in views]


def _corners(protocol: dict[str, object], height: int, width: int) -> tuple[tuple[int, int], ...]:
    """Top and left of the windows of an image; of one in one piece, its own."""
    if protocol["mode"] != "slide":
        return ((0, 0),)
    window, stride = protocol["window"], protocol["stride"]
    assert isinstance(window, int) and isinstance(stride, int)
    return tuple(
        (top, left) for top in window_starts(height, window, stride) for left in window_starts(width, window, stride)
    )


def _look(model: Network, images: Tensor, protocol: dict[str, object], *, batch_size: int, flipped: bool) -> list[View]:
    """The view of each of the images (B, 3, H, W) at a scale: `look_whole` and `look_in_windows` for several."""
    images = images.flip(-1) if flipped else images
    height, width = images.shape[2], images.shape[3]
    corners = _corners(protocol, height, width)
    canvas = None
    size = (height, width)
    if protocol["mode"] == "slide":
        side = protocol["window"]
        assert isinstance(side, int)
        canvas, size = (side, side), (min(side, height), min(side, width))
    places = [(image, top, left) for image in range(len(images)) for top, left in corners]
    probabilities, logits, padded_size = [], [], (0, 0)
    for start in range(0, len(places), batch_size):
        batch = places[start : start + batch_size]
        windows = torch.stack(
            [images[image, :, top : top + size[0], left : left + size[1]] for image, top, left in batch]
        )
        output = model(windows, deep=False, canvas=canvas)
        probabilities.append(class_probabilities(output))
        logits.append(output.mask_logits[-1].float())
        padded_size = output.padded_size
    rows, columns = window_matrices(logits[0], size, padded_size)
    each = len(corners)
    return [
        View(
            size=(height, width),
            corners=corners,
            probabilities=one,
            logits=masks,
            rows=rows,
            columns=columns,
            padded_size=padded_size,
            flipped=flipped,
        )
        for one, masks in zip(torch.cat(probabilities).split(each), torch.cat(logits).split(each), strict=True)
    ]
