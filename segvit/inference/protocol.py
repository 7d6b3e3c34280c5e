"""One image of any size under a test protocol: resized, whole or in windows, at several scales, back to its own size.

Letters: K classes, H W image.
"""

import torch
from torch import Tensor

from segvit.config import EvalConfig
from segvit.data.transforms import fit_size, resize
from segvit.errors import UserError
from segvit.inference.label_map import compose_labels
from segvit.inference.network import Network
from segvit.inference.sliding import look_in_windows, look_whole
from segvit.inference.tiles import Composition, View
from segvit.models.segvit import evaluating

MAX_SCALE = 16.0
"""Largest factor of a test scale: beyond it a typo is more likely than a wish."""


def resolve_protocol(model: Network, config: EvalConfig | None = None) -> dict[str, object]:
    """Every number of the protocol, defaults filled in: what is printed and stored beside a score.

    Raises:
        UserError: a window or stride below one pixel, windows that leave gaps, or scales that are none.
    """
    config = config or model.protocol
    if not config.scales or not all(0 < scale <= MAX_SCALE for scale in config.scales):
        raise UserError(
            f"eval.scales {list(config.scales)}: give one or more factors above 0 and up to {MAX_SCALE:g}, such as "
            "0.5 1 1.5"
        )
    if config.resize_short_min is not None and (config.resize_short is None or config.resize_long is not None):
        raise UserError(
            "eval.resize_short_min is a bound of eval.resize_short: set that as well, and no eval.resize_long beside it"
        )
    protocol: dict[str, object] = {
        "mode": config.mode,
        "resize_long": config.resize_long,
        "resize_short": config.resize_short,
        "resize_short_min": config.resize_short_min,
    }
    if config.mode == "slide":
        window, stride = _window(model, config)
        protocol |= {"window": window, "stride": stride}
    return protocol | {"scales": list(config.scales), "flip": config.flip}


@torch.no_grad()
def image_scores(model: Network, image: Tensor, config: EvalConfig | None = None) -> Tensor:
    """Scores (K, H, W) of an image uint8 (3, H, W) at its own size, under the protocol (default: the model's)."""
    size = (image.shape[1], image.shape[2])
    volume = torch.empty(model.num_classes, *size, device=model.mean.device)
    for rows, columns, tile in Composition(look(model, image, config or model.protocol), size).tiles():
        volume[:, rows, columns] = tile
    return volume


@torch.no_grad()
def image_labels(model: Network, image: Tensor, config: EvalConfig | None = None) -> Tensor:
    """Class of every pixel (H, W) int64 of an image uint8 (3, H, W), under the protocol (default: the model's)."""
    return compose_labels(look(model, image, config or model.protocol), (image.shape[1], image.shape[2]))


@torch.no_grad()
def image_confidence(model: Network, image: Tensor, config: EvalConfig | None = None) -> tuple[Tensor, Tensor]:
    """Class of every pixel (H, W) int64, and the share (H, W) of that class in the pixel's scores, 0..1."""
    size = (image.shape[1], image.shape[2])
    labels = torch.empty(size, dtype=torch.int64, device=model.mean.device)
    share = torch.empty(size, device=model.mean.device)
    for rows, columns, tile in Composition(look(model, image, config or model.protocol), size).tiles():
        best, labels[rows, columns] = tile.max(dim=0)
        share[rows, columns] = best / tile.sum(dim=0).clamp(min=torch.finfo(torch.float32).tiny)
    return labels, share


@torch.no_grad()
def look(model: Network, image: Tensor, config: EvalConfig) -> list[View]:
    """Every view of an image uint8 (3, H, W) under the protocol: each scale, and each mirrored where it flips."""
    views = []
    resolve_protocol(model, config)
    with evaluating(model):
        for scale in config.scales:
            size = protocol_size(image.shape[1], image.shape[2], config, scale)
            resized = resize(image, size).to(model.mean.device)
            for flipped in (False, True) if config.flip else (False,):
                if config.mode == "slide":
                    window, stride = _window(model, config)
                    view = look_in_windows(
                        model, resized, window=window, stride=stride, batch_size=config.batch_size, flipped=flipped
                    )
                else:
                    view = look_whole(model, resized, flipped=flipped)
                views.append(view)
    return views


def protocol_size(height: int, width: int, config: EvalConfig, scale: float = 1.0) -> tuple[int, int]:
    """Height and width at which an image of `height` x `width` is looked at, at a scale (docs/method.md section 5)."""
    long, short = config.resize_long, config.resize_short
    if long is None and short is None:
        return fit_size(height, width, long=None, short=None, ratio=scale)
    least = config.resize_short_min or 0
    return fit_size(
        height,
        width,
        long=None if long is None else long * scale,
        short=None if short is None else max(short * scale, least),
    )


def _window(model: Network, config: EvalConfig) -> tuple[int, int]:
    """Side and stride of the windows in pixels; a third of the window overlaps by default."""
    window = model.config.image_size if config.window is None else config.window
    stride = max(window * 2 // 3, 1) if config.stride is None else config.stride
    if not 1 <= stride <= window:
        raise UserError(
            f"window {window}, stride {stride}: need 1 <= stride <= window, in pixels; the window is the training crop "
            "where it is not set. Set eval.stride (evaluate and predict: --stride), or eval.mode to whole"
        )
    if config.batch_size < 1:
        raise UserError(f"a batch of {config.batch_size} windows: give at least 1")
    return window, stride
