"""One image of any size under a test protocol: resized, whole or in windows, back to its own size.

Letters: K classes, H W image.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from segvit.config import EvalConfig
from segvit.data.transforms import fit_size, resize
from segvit.errors import UserError
from segvit.inference.scores import label_map, scores
from segvit.inference.sliding import sliding_scores
from segvit.models.segvit import SegViT, evaluating


def resolve_protocol(model: SegViT, config: EvalConfig | None = None) -> dict[str, object]:
    """Every number of the protocol, defaults filled in: what is printed and stored beside a score.

    Raises:
        UserError: a window or stride below one pixel, or windows that leave gaps.
    """
    config = config or model.protocol
    protocol: dict[str, object] = {
        "mode": config.mode,
        "resize_long": config.resize_long,
        "resize_short": config.resize_short,
    }
    if config.mode == "slide":
        window, stride = _window(model, config)
        protocol |= {"window": window, "stride": stride}
    return protocol


@torch.no_grad()
def image_scores(model: SegViT, image: Tensor, config: EvalConfig | None = None) -> Tensor:
    """Scores (K, H, W) of an image uint8 (3, H, W) at its own size, under the protocol (default: the model's)."""
    config = config or model.protocol
    size = (image.shape[1], image.shape[2])
    image = _prepare(model, image, config)
    with evaluating(model):
        if config.mode == "slide":
            window, stride = _window(model, config)
            volume = sliding_scores(model, image, window=window, stride=stride, batch_size=config.batch_size)
        else:
            volume = scores(model(image[None], deep=False))[0]
    if volume.shape[1:] == size:
        return volume
    return F.interpolate(volume[None], size=size, mode="bilinear", align_corners=False)[0]


@torch.no_grad()
def image_labels(model: SegViT, image: Tensor, config: EvalConfig | None = None) -> Tensor:
    """Class of every pixel (H, W) int64 of an image uint8 (3, H, W), under the protocol (default: the model's)."""
    config = config or model.protocol
    if config.mode == "slide":
        return image_scores(model, image, config).argmax(dim=0)
    size = (image.shape[1], image.shape[2])
    with evaluating(model):
        return label_map(model(_prepare(model, image, config)[None], deep=False), size)[0]


def _prepare(model: SegViT, image: Tensor, config: EvalConfig) -> Tensor:
    """The image at the protocol's size, on the model's device."""
    size = fit_size(image.shape[1], image.shape[2], long=config.resize_long, short=config.resize_short)
    return resize(image, size).to(model.mean.device)


def _window(model: SegViT, config: EvalConfig) -> tuple[int, int]:
    """Side and stride of the windows in pixels; a third of the window overlaps by default."""
    window = model.config.image_size if config.window is None else config.window
    stride = max(window * 2 // 3, 1) if config.stride is None else config.stride
    if not 1 <= stride <= window:
        raise UserError(f"window {window}, stride {stride}: need 1 <= stride <= window, in pixels")
    if config.batch_size < 1:
        raise UserError(f"a batch of {config.batch_size} windows: give at least 1")
    return window, stride
