"""Bilinear resizing with half-pixel centres and without antialiasing, of a whole map or of any part of it.

Images and label maps are resized by `resize` and `resize_labels`, at the sizes of segvit/utils/sizes.py. Score maps are
resized in parts, so that any part of a large map can be computed without the rest: by matrices, or by taps, which are
the two neighbours of each new value and the share of the second.

Letters: C channels, H W size before, h w size after, n new values on a line.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# --- images and label maps -------------------------------------------------------------------------------------------


class Window(NamedTuple):
    """A rectangle of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def resize(image: Tensor, size: tuple[int, int], window: Window | None = None) -> Tensor:
    """Resize uint8 or float (C, H, W) to (C, h, w) bilinearly, or compute only the part of the result in `window`.

    A window holds bit for bit what the whole result holds there, and costs only its own pixels.
    """
    window = window or Window(0, 0, *size)
    down, across = slice(window.top, window.top + window.height), slice(window.left, window.left + window.width)
    if size == tuple(image.shape[-2:]):
        return image[:, down, across]
    rows, columns = _pixel_taps(image.shape[-2], size[0], down), _pixel_taps(image.shape[-1], size[1], across)
    y, x = slice(0, window.height), slice(0, window.width)
    part = image[:, rows.source(y), columns.source(x)].float()
    part = rows.resize(part, y, dim=1)
    resized = columns.resize(part, x, dim=2)
    return to_uint8(resized) if image.dtype == torch.uint8 else resized.to(image.dtype)


def resize_labels(labels: Tensor, size: tuple[int, int], window: Window | None = None) -> Tensor:
    """Resize labels (H, W) to (h, w) by the nearest centre, aligned with `resize`; or only the part in `window`."""
    window = window or Window(0, 0, *size)
    rows = _nearest(labels.shape[0], size[0], window.top, window.height)
    columns = _nearest(labels.shape[1], size[1], window.left, window.width)
    return _select(_select(labels, rows, dim=0), columns, dim=1)


def to_uint8(values: Tensor) -> Tensor:
    """Round numbers in 0..255 in place and cast them (...) -> (...), through int16: only that cast is vectorised."""
    return values.round_().to(torch.int16).to(torch.uint8)


def _nearest(old: int, new: int, start: int, length: int) -> Tensor:
    """Return the old pixel that holds the centre of each new pixel start .. start + length - 1: (length,) int64."""
    # In whole numbers: the floor of (i + 1/2) * old / new, free of rounding.
    return (torch.arange(start, start + length) * 2 + 1) * old // (2 * new)


# --- lines of a map: matrices and taps -------------------------------------------------------------------------------


def bilinear_matrix(old: int, new: int, device: torch.device) -> Tensor:
    """Return the (new, old) float32 matrix that resizes a line of `old` values to `new`.

    `bilinear_matrix(h, H) @ maps @ bilinear_matrix(w, W).T` equals `F.interpolate(maps, (H, W), mode="bilinear")`.
    """
    return F.interpolate(torch.eye(old, device=device)[None], size=new, mode="linear", align_corners=False)[0].T


def interpolation_matrix(places: Tensor, count: int) -> Tensor:
    """Return the (n, count) float64 matrix that interpolates a line of `count` values at places (n,), 0..count - 1."""
    low = places.long().clamp(max=count - 2)
    share = (places - low)[:, None]
    matrix = places.new_zeros(len(places), count)
    return matrix.scatter_(1, low[:, None], 1 - share).scatter_(1, low[:, None] + 1, share)


def places_on_old(matrix: Tensor) -> Tensor:
    """Return the places (n,) float64, 0..old - 1, of the new values of a `bilinear_matrix` (n, old) on the old line."""
    return matrix.double() @ torch.arange(matrix.shape[1], dtype=torch.float64, device=matrix.device)


def source_of(wanted: slice, old: int, new: int) -> slice:
    """Return the values on a line of `old` that new values depend on, without computing any matrix or taps.

    Args:
        wanted: a range of the `new` values.
        old: length of the line before.
        new: length of the line after.
    """
    first = (wanted.start + 0.5) * old / new - 0.5
    last = (wanted.stop - 0.5) * old / new - 0.5
    return slice(max(int(first) - 1, 0), min(int(last) + 3, old))  # one more on each side, for rounding


class BilinearTaps(NamedTuple):
    """The two neighbours of each of n new places among the old values on a line, and the share of the second."""

    low: Tensor
    """(n,) int64."""
    high: Tensor
    """(n,) int64."""
    share: Tensor
    """(n,) float32, 0..1."""

    def source(self, wanted: slice) -> slice:
        """Return the range of old values that the places in `wanted` depend on."""
        return slice(int(self.low[wanted.start]), int(self.high[wanted.stop - 1]) + 1)

    def resize(self, values: Tensor, wanted: slice, dim: int) -> Tensor:
        """Compute the places in `wanted` along `dim`, from `values` (a, b, ...) that hold `source(wanted)` there."""
        first = self.low[wanted.start]
        low, high = self.low[wanted] - first, self.high[wanted] - first
        shape = [1] * values.ndim
        shape[dim] = -1
        return torch.lerp(_select(values, low, dim), _select(values, high, dim), self.share[wanted].view(shape))


def bilinear_taps(old: int, new: int, device: torch.device) -> BilinearTaps:
    """Return the taps of `bilinear_matrix`, in memory that grows with the line and not with its square.

    The scale and then each coordinate are rounded to float32 once, as PyTorch does. On a long line float32 leaves few
    digits, so taps that were more exact would differ from `F.interpolate`.
    """
    scale = (torch.tensor(old, dtype=torch.float32) / new).double()
    places = torch.arange(new, dtype=torch.float64)
    coordinates = (scale * (places + 0.5) - 0.5).clamp(min=0).float().to(device)
    low = coordinates.long().clamp(max=old - 1)
    return BilinearTaps(low, (low + 1).clamp(max=old - 1), coordinates - low)


def taps_of(matrix: Tensor, wanted: Tensor) -> BilinearTaps:
    """Return the taps of some rows (n,) of a `bilinear_matrix` (new, old)."""
    places = places_on_old(matrix)[wanted]
    low = places.long()
    return BilinearTaps(low, (low + 1).clamp(max=matrix.shape[1] - 1), (places - low).float())


def _pixel_taps(old: int, new: int, wanted: slice) -> BilinearTaps:
    """Return the taps of the new pixels in `wanted` alone.

    Every step is rounded to float32, unlike in `bilinear_taps`: models were trained on the pixels that this gives.
    """
    centres = ((torch.arange(wanted.start, wanted.stop) + 0.5) * (old / new) - 0.5).clamp_(0, old - 1)
    low = centres.long()
    return BilinearTaps(low, (low + 1).clamp_(max=old - 1), centres - low)


def _select(values: Tensor, index: Tensor, dim: int) -> Tensor:
    """Return `values.index_select(dim, index)`; along the last dimension `gather` is several times as fast."""
    if dim == values.ndim - 1:
        return values.gather(dim, index.expand(*values.shape[:-1], -1))
    return values.index_select(dim, index)
