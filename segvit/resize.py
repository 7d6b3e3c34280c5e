"""Bilinear resizing as a matrix, so that any rows of a large map can be had without the rest."""

import torch
import torch.nn.functional as F
from torch import Tensor


def bilinear_matrix(old: int, new: int, device: torch.device) -> Tensor:
    """The (new, old) float32 matrix that resizes a line of `old` values to `new`: bilinear, align_corners False.

    `bilinear_matrix(h, H) @ maps @ bilinear_matrix(w, W).T` equals `F.interpolate(maps, (H, W), mode="bilinear")`.
    """
    return F.interpolate(torch.eye(old, device=device)[None], size=new, mode="linear", align_corners=False)[0].T
