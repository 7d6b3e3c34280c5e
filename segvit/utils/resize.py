"""Bilinear resizing in pieces, so that any part of a large map can be had without the rest."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def bilinear_matrix(old: int, new: int, device: torch.device) -> Tensor:
    """The (new, old) float32 matrix that resizes a line of `old` values to `new`: bilinear, align_corners False.

    `bilinear_matrix(h, H) @ maps @ bilinear_matrix(w, W).T` equals `F.interpolate(maps, (H, W), mode="bilinear")`.
    """
    return F.interpolate(torch.eye(old, device=device)[None], size=new, mode="linear", align_corners=False)[0].T


def places_on_old(matrix: Tensor) -> Tensor:
    """Where on the old line the new values of a `bilinear_matrix` (new, old) lie: (new,) float64, 0..old - 1."""
    return matrix.double() @ torch.arange(matrix.shape[1], dtype=torch.float64, device=matrix.device)


class BilinearTaps(NamedTuple):
    """For each of `new` places on a line: its two neighbours among the `old` values, and the share of the second."""

    low: Tensor
    """(new,) int64."""
    high: Tensor
    """(new,) int64."""
    share: Tensor
    """(new,) float32, 0..1."""

    def source(self, wanted: slice) -> slice:
        """The old values that the places in `wanted` depend on."""
        return slice(int(self.low[wanted.start]), int(self.high[wanted.stop - 1]) + 1)

    def resize(self, values: Tensor, wanted: slice, dim: int) -> Tensor:
        """The places in `wanted` along `dim`, from `values` (a, b, ...) that hold the range `source(wanted)` there."""
        first = self.low[wanted.start]
        shape = [1] * values.ndim
        shape[dim] = -1
        low, high = (values.index_select(dim, index[wanted] - first) for index in (self.low, self.high))
        return torch.lerp(low, high, self.share[wanted].view(shape))


def bilinear_taps(old: int, new: int, device: torch.device) -> BilinearTaps:
    """The taps of `bilinear_matrix`, in memory that grows with the line and not with its square.

    PyTorch's own arithmetic: the scale, and then each coordinate, rounded to float32 once. On a long line that leaves
    few digits, and taps that were more exact would differ from `F.interpolate`.
    """
    scale = (torch.tensor(old, dtype=torch.float32) / new).double()
    places = torch.arange(new, dtype=torch.float64)
    coordinates = (scale * (places + 0.5) - 0.5).clamp(min=0).float().to(device)
    low = coordinates.long().clamp(max=old - 1)
    return BilinearTaps(low, (low + 1).clamp(max=old - 1), coordinates - low)
