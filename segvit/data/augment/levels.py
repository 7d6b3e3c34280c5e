"""Convert images between their own type and levels, float32 on the scale 0..255, on which all settings are.

image = from_levels(to_levels(image).add_(8).clamp_(0, 255), image.dtype)

Letters: N bands, h, w size of the image.
"""

import torch

from segvit.utils.resize import to_uint8


def to_levels(image: torch.Tensor) -> torch.Tensor:
    """Return a new tensor with the values of an image (N, h, w), uint8 or float in 0..1, on the scale 0..255."""
    return image.float() if image.dtype == torch.uint8 else image.float() * 255


def from_levels(levels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return levels (N, h, w) in 0..255, which may be overwritten, as an image of that type. uint8 is rounded."""
    return to_uint8(levels) if dtype == torch.uint8 else levels.div_(255).to(dtype)
