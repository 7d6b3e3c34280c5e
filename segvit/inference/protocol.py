"""Images of any size under a test protocol: resized, whole or in windows, at several scales, back to their own size.

    labels = image_labels(model, image)                    # uint8 (3, H, W) -> (H, W)
    labels = batch_labels(model, images, config)           # uint8 (B, 3, H, W) -> B x (H, W)

A protocol (`EvalConfig`, docs/method.md section 5) says how an image is resized and cut, and whether its scores are
averaged over scales and mirror images. Each image of a batch gets the labels that it gets alone.

Letters: B images, K classes, H W image.
"""

from typing import get_args

import torch
from torch import Tensor

from segvit.config import Blend, EvalConfig
from segvit.errors import UserError
from segvit.inference.label_map import compose_labels
from segvit.inference.network import Network
from segvit.inference.tiles import Composition, View
from segvit.inference.windows import Windows, look
from segvit.models.modes import evaluating
from segvit.utils.resize import resize
from segvit.utils.sizes import fit_size

MAX_SCALE = 16.0
"""Largest factor of a test scale. A larger one is most likely a typo."""


def resolve_protocol(model: Network, config: EvalConfig | None = None) -> dict[str, object]:
    """Return every number of the protocol, with defaults filled in, to print and store beside a score.

    Raises:
        UserError: a window, stride or batch below one, windows that leave gaps, an unknown blend, or an impossible
            scale or size.
    """
    config = config or model.protocol
    if not config.scales or not all(0 < scale <= MAX_SCALE for scale in config.scales):
        raise UserError(
            f"eval.scales {list(config.scales)}: give one or more factors above 0 and at most {MAX_SCALE:g}, such as "
            "0.5 1 1.5"
        )
    if config.resize_short_min is not None and (config.resize_short is None or config.resize_long is not None):
        raise UserError(
            "eval.resize_short_min is a lower bound of eval.resize_short: set eval.resize_short too, and leave "
            "eval.resize_long unset"
        )
    protocol: dict[str, object] = {
        "mode": config.mode,
        "resize_long": config.resize_long,
        "resize_short": config.resize_short,
        "resize_short_min": config.resize_short_min,
    }
    if (windows := protocol_windows(model, config)) is not None:
        protocol |= {"window": windows.side, "stride": windows.stride, "blend": windows.blend}
    return protocol | {"scales": list(config.scales), "flip": config.flip}


def protocol_size(height: int, width: int, config: EvalConfig, scale: float = 1.0) -> tuple[int, int]:
    """Return the height and width that an image is resized to, at a scale (docs/method.md section 5)."""
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


def protocol_windows(model: Network, config: EvalConfig) -> Windows | None:
    """Return the windows of the protocol, or None if it looks at whole images.

    The default window is the training crop, and the default stride leaves an overlap of a third of it.

    Raises:
        UserError: a window, stride or batch below one, windows that leave gaps, or an unknown blend.
    """
    if config.blend not in get_args(Blend):
        raise UserError(f"eval.blend {config.blend!r}: give {' or '.join(get_args(Blend))}")
    if config.mode != "slide":
        return None
    window = model.image_size if config.window is None else config.window
    stride = max(window * 2 // 3, 1) if config.stride is None else config.stride
    if not 1 <= stride <= window:
        raise UserError(
            f"window {window}, stride {stride}: need 1 <= stride <= window, in pixels; the default window is the "
            "training crop. Set eval.stride (evaluate and predict: --stride), or set eval.mode to whole"
        )
    if config.batch_size < 1:
        raise UserError(f"eval.batch_size {config.batch_size}: give the number of windows that run together, 1 or more")
    return Windows(window, stride, config.blend)


def images_per_batch(model: Network, config: EvalConfig, size: tuple[int, int]) -> int:
    """Return how many images of a size (H, W) in pixels fill a batch of `config.batch_size` windows or whole images."""
    resolve_protocol(model, config)
    windows = protocol_windows(model, config)
    if windows is None:
        return max(1, config.batch_size)
    sizes = [protocol_size(*size, config, scale) for scale in config.scales]
    return max(1, config.batch_size // max(len(windows.corners(*resized)) for resized in sizes))


@torch.no_grad()
def image_scores(model: Network, image: Tensor, config: EvalConfig | None = None) -> Tensor:
    """Compute the scores (K, H, W) of an image uint8 (3, H, W), under a protocol (default: the model's)."""
    composition = _composition(model, image, config)
    volume = torch.empty(model.num_classes, *composition.size, device=model.mean.device)
    for rows, columns, tile in composition.tiles():
        volume[:, rows, columns] = tile
    return volume


@torch.no_grad()
def image_labels(model: Network, image: Tensor, config: EvalConfig | None = None) -> Tensor:
    """Label every pixel of an image uint8 (3, H, W) -> (H, W) int64, under a protocol (default: the model's)."""
    (labels,) = batch_labels(model, image[None], config or model.protocol)
    return labels


@torch.no_grad()
def batch_labels(model: Network, images: Tensor, config: EvalConfig) -> list[Tensor]:
    """Label every pixel of images uint8 (B, 3, H, W) -> B maps (H, W) int64, under a protocol."""
    size = (images.shape[2], images.shape[3])
    return [compose_labels(views, size) for views in _views(model, images, config)]


@torch.no_grad()
def image_confidence(model: Network, image: Tensor, config: EvalConfig | None = None) -> tuple[Tensor, Tensor]:
    """Return the class (H, W) int64 of every pixel, and the share (H, W) of that class in the pixel's scores, 0..1."""
    composition = _composition(model, image, config)
    labels = torch.empty(composition.size, dtype=torch.int64, device=model.mean.device)
    share = torch.empty(composition.size, device=model.mean.device)
    for rows, columns, tile in composition.tiles():
        best, labels[rows, columns] = tile.max(dim=0)
        share[rows, columns] = best / tile.sum(dim=0).clamp(min=torch.finfo(torch.float32).tiny)
    return labels, share


def _composition(model: Network, image: Tensor, config: EvalConfig | None) -> Composition:
    """Return the scores of an image uint8 (3, H, W), to be computed tile by tile."""
    (views,) = _views(model, image[None], config or model.protocol)
    return Composition(views, (image.shape[1], image.shape[2]))


def _views(model: Network, images: Tensor, config: EvalConfig) -> list[list[View]]:
    """Return all views of each image uint8 (B, 3, H, W): at every scale, and mirrored too if the protocol flips."""
    resolve_protocol(model, config)
    windows = protocol_windows(model, config)
    views: list[list[View]] = [[] for _ in images]
    with evaluating(model):
        for scale in config.scales:
            size = protocol_size(images.shape[2], images.shape[3], config, scale)
            resized = images if size == images.shape[2:] else torch.stack([resize(image, size) for image in images])
            resized = resized.to(model.mean.device)
            for flipped in (False, True) if config.flip else (False,):
                looks = look(model, resized, windows=windows, batch_size=config.batch_size, flipped=flipped)
                for view, own in zip(looks, views, strict=True):
                    own.append(view)
    return views
