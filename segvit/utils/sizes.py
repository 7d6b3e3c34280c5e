"""Sizes of resized images, in whole pixels.

Letters: H W size of the image.
"""

import math


def scaled(side: int, factor: float) -> int:
    """Return a side in pixels times a factor, rounded half up as image libraries do, and at least 1 pixel.

    Python's `round` rounds halves to the even number: it gives 1024 for 683 * 1.5, where this gives 1025.
    """
    return max(math.floor(side * factor + 0.5), 1)


def fit_size(
    height: int, width: int, *, long: float | None, short: float | None, ratio: float = 1.0
) -> tuple[int, int]:
    """Return the height and width that fit two bounds and keep the aspect ratio.

    The longer side is at most long * ratio and the shorter at most short * ratio, and one of them is exactly that.
    None sets no bound. Without any bound, the result is the native size times ratio.
    """
    bounds = []
    if long is not None:
        bounds.append(long / max(height, width))
    if short is not None:
        bounds.append(short / min(height, width))
    factor = min(bounds, default=1.0) * ratio
    return scaled(height, factor), scaled(width, factor)
